"""`quash revoke --preview` and `quash job watch` against the real admin API: what they forecast, computed by hand."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import pty
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from issuer.api import application, listening
from issuer.revocation.mass_api import MassApi
from issuer.revocation.mass_runner import MassRunner
from issuer.revocation.signers import SignersApi
from quash.pki.reasons import Reason
from quash.runtime.clock import FakeClock, SystemClock
from quash.store import buckets, mass_jobs, outbox, rates
from quash.store.buckets import Bucket
from quash.store.database import acquire
from quash.store.roles import ADMIN, JOBS, PRESIGNER
from tests.support.command_line import CommandLine, Said
from tests.support.edge import Edge
from tests.support.revoking import Key, World, key_hash, make_world

REPOSITORY = Path(__file__).parents[3]
WITHIN = 60.0


@dataclass
class Deployment:
    """The routes of mass revocations with a state folder for the command line, and a runner that works when asked."""

    world: World
    runner: MassRunner
    options: tuple[str, ...]
    command_line: CommandLine

    async def quash(self, *arguments: str) -> Said:
        """Runs one command, and the job runner meanwhile."""
        asked = asyncio.create_task(self.command_line.run(*arguments, *self.options))
        while not asked.done():
            await self.runner.step()
            await asyncio.wait([asked], timeout=0.02)
        return await asked

    async def running(self, total: int) -> int:
        """A job that was started, of so many certificates; no runner is at it."""
        spki = key_hash()
        for _ in range(total):
            await self.world.certificate(spki=spki)
        job = (await self.quash("revoke", "--key", spki.hex(), "--reason", "superseded", "--preview", "--json")).json
        started = await self.command_line.run("job", "start", str(job["id"]), "--json", *self.options)
        assert started.json["state"] == "running", started.err
        return int(job["id"])

    async def show(self, number: int) -> Any:
        """As the API says, without a runner at work."""
        return (await self.command_line.run("job", "show", str(number), "--json", *self.options)).json


@pytest.fixture
async def deployment(database: Any, tmp_path: Path) -> AsyncIterator[Deployment]:
    world = await make_world(database, FakeClock(time.time()), ADMIN)
    edge = await Edge(tmp_path / "state", world.owner).set_up()
    app = application(world.pool, SystemClock())
    MassApi(world.pool, database.config, SystemClock()).add_routes(app)
    SignersApi(world.pool, SystemClock()).add_routes(app)
    runner = MassRunner(await database.pool(JOBS), SystemClock(), batch=7)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(app, edge.tls, "127.0.0.1", 0))
        config = tmp_path / "quash.toml"
        config.write_text(f"[admin]\nport = {port}\n")
        options = ("--config", str(config), "--state", str(edge.state))
        yield Deployment(world, runner, options, await stack.enter_async_context(CommandLine()))


@pytest.fixture
async def signing_rate(database: Any) -> float:
    """Certificates a second, as the presigner measured and kept it."""
    async with acquire(await database.pool(PRESIGNER)) as conn:
        await rates.keep(conn, rates.SIGNING, 2.5, 0)
    return 2.5


async def publish(world: World, issuer: str, entries: int, size: int) -> None:
    """A CRL that was published, of so many octets."""
    await world.owner.execute(
        "insert into crl (issuer_id, scope, number, this_update, next_update, entries, size, sha256, covers, scheduled,"
        " published_at) values ($1, 'full', 1, $2::bigint, $2 + 86400, $3, $4, sha256(''), pg_current_snapshot(),"
        " true, $2)",
        world.authorities[issuer].id,
        world.now,
        entries,
        size,
    )


@pytest.mark.usefixtures("signing_rate")
async def test_a_keys_preview_forecasts_crls_and_signing(deployment: Deployment) -> None:
    """Seven certificates of a key, two of them revoked before; nothing changes.

    Alpha: 20 entries of 100,000 octets stand, 3 are new. Beta has no CRL: an entry of 40 octets and 12 for its reason.
    Seven certificates at 2.5 a second are signed in 2.8 seconds.
    """
    world, spki = deployment.world, key_hash()
    of_alpha = [await world.certificate(spki=spki) for _ in range(5)]
    for _ in range(2):
        await world.certificate("beta", spki=spki)
    await world.certificate(spki=key_hash())
    for key in of_alpha[:2]:
        await world.revoke(key, Reason.superseded)
    await publish(world, "alpha", 20, 2_000_000)
    command = ("revoke", "--key", spki.hex().upper(), "--reason", "superseded", "--preview")
    said = await deployment.quash(*command, "--json")
    assert said.status == 0, said.err
    job = said.json
    assert (job["state"], job["certificates"], job["siblings"], job["done"]) == ("ready", 7, 0, 0)
    assert (job["preview"]["issuers"], job["preview"]["revoked_before"]) == ({"alpha": 5, "beta": 2}, 2)
    assert job["preview"]["scopes"] == [
        {"issuer": "alpha", "scope": "full", "certificates": 5, "entries": 23, "bytes": 2_300_000},
        {"issuer": "beta", "scope": "full", "certificates": 2, "entries": 2, "bytes": 2 * 52},
    ]
    assert job["signing_seconds"] == 2.8
    text = (await deployment.quash(*command)).out
    assert "CRL alpha full: 23 entries, 2.3 MB then" in text
    assert "signing: 0:00:03 at the rate measured last" in text
    unsaid = (await deployment.quash("revoke", "--key", spki.hex(), "--preview", "--json")).json
    assert unsaid["preview"]["scopes"][1]["bytes"] == 2 * 40
    assert (await world.counts())["revocation"] == 2


async def test_a_preview_of_what_an_issuer_issued_in_a_period(deployment: Deployment) -> None:
    """From the first date, before the second; nothing of another issuer, and no signing time that nobody measured."""
    world = deployment.world

    async def issued(at: str, issuer: str = "alpha") -> Key:
        key = await world.certificate(issuer)
        moment = int(dt.datetime.fromisoformat(at).timestamp())
        await world.owner.execute("update certificate set not_before = $2 where serial = $1", key[1], moment)
        return key

    chosen = [await issued(at) for at in ("2026-03-01T00:00:00Z", "2026-03-04T23:59:59Z")]
    for at in ("2026-02-28T23:59:59Z", "2026-03-05T00:00:00Z"):
        await issued(at)
    await issued("2026-03-02T00:00:00Z", "beta")
    period = ("--issuer", "alpha", "--issued-between", "2026-03-01", "2026-03-05")
    said = await deployment.quash("revoke", *period, "--reason", "superseded", "--preview", "--json")
    assert said.status == 0, said.err
    assert (said.json["preview"]["issuers"], said.json["signing_seconds"]) == ({"alpha": 2}, None)
    found = await world.owner.fetch("select issuer_id, serial from mass_job_certificate")
    assert sorted(tuple(row) for row in found) == sorted(chosen)


async def advance(world: World, number: int, done: int, per_second: float) -> None:
    """So far, and so fast in its last batches."""
    await world.owner.execute("update mass_job set done = $2, per_second = $3 where id = $1", number, done, per_second)


async def test_the_time_left_of_a_running_job(deployment: Deployment) -> None:
    """Of ten certificates four are revoked, at one in 1250 seconds: 7500 are left."""
    number = await deployment.running(10)
    assert (await deployment.show(number))["seconds_left"] is None
    await advance(deployment.world, number, 4, 0.0008)
    job = await deployment.show(number)
    assert job["seconds_left"] == pytest.approx(7500, rel=1e-3)  # the rate has single precision
    expected = dt.datetime.fromisoformat(job["expected_at"]).timestamp()
    assert expected == pytest.approx(time.time() + 7500, abs=60)


class Terminal:
    """A `quash` command on a terminal of 120 columns, and all that it wrote so far."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.text = ""

    async def __aenter__(self) -> Terminal:
        self._ours, theirs = pty.openpty()
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "quash.cli.main", *self._arguments),
            cwd=REPOSITORY,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        os.close(self._ours)

    async def until(self, *words: str) -> None:
        """Until one screen line after another has shown all of these."""
        deadline = time.monotonic() + WITHIN
        while not all(word in self.text for word in words):
            assert time.monotonic() < deadline, self.text
            with contextlib.suppress(BlockingIOError, OSError):  # OSError: the command ended
                self.text += os.read(self._ours, 1 << 16).decode("utf-8", "replace")
            await asyncio.sleep(0.05)


async def test_the_bar_on_a_terminal(deployment: Deployment) -> None:
    """State, how many of how many, and hours, minutes and seconds that are left; it ends with the job."""
    number = await deployment.running(10)
    await advance(deployment.world, number, 4, 0.0008)
    async with Terminal("job", "watch", str(number), *deployment.options) as terminal:
        await terminal.until("running", "4/10", "2:05:00 left")
        await advance(deployment.world, number, 9, 0.5)
        await terminal.until("9/10", "0:00:02 left")
        await advance(deployment.world, number, 10, 0.5)
        await deployment.world.owner.execute("update mass_job set state = 'done' where id = $1", number)
        await terminal.until("done", "10/10")
        assert await asyncio.wait_for(terminal.process.wait(), WITHIN) == 0


def to_sign() -> tuple[float | None, float | None]:
    """The metrics: certificates, and seconds."""
    name = "quash_mass_revocation_to_sign"
    return REGISTRY.get_sample_value(name), REGISTRY.get_sample_value(f"{name}_seconds")


async def take_up(database: Any) -> None:
    """All bulk news, as the presigner does."""
    reader = outbox.reader(outbox.BULK)
    async with acquire(await database.pool(PRESIGNER)) as conn:
        batch = await reader.read(conn)
        await reader.save(conn, batch.position, 0)


async def mark_due(world: World, database: Any) -> None:
    """Alpha's bucket that holds all certificates here."""
    async with acquire(await database.pool(PRESIGNER)) as conn:
        await buckets.mark_due(conn, [(world.authorities["alpha"].id, 0)], int(time.time()))


async def pass_bucket(world: World, database: Any) -> None:
    """It is signed, a moment later."""
    at = int(time.time()) + 2
    passed = Bucket(world.authorities["alpha"].id, 0, at, 4)
    async with acquire(await database.pool(PRESIGNER)) as conn:
        await buckets.finish_pass(conn, passed, passed_at=at, pass_xmin=1, due_at=at + 3600, signer_id=None)


async def add_buckets(world: World) -> None:
    """None is due soon."""
    async with acquire(world.owner) as conn:
        for authority in world.authorities.values():
            await buckets.add(conn, authority.id, 4, world.now + 3600)


@pytest.mark.usefixtures("signing_rate")
async def test_a_done_job_is_followed_until_all_is_signed(deployment: Deployment, database: Any) -> None:
    """Ten certificates at 2.5 a second, beside news of another issuer; a key was away, so their bucket is signed."""
    world = deployment.world
    await add_buckets(world)
    number = await deployment.running(10)
    assert ((await deployment.show(number))["to_sign"], to_sign()) == (0, (0, 0))
    async with acquire(world.owner) as conn:
        await outbox.add_certificates(conn, [(world.authorities["beta"].id, b"x")], lane=outbox.BULK)
    while await deployment.runner.step():
        pass
    job = await deployment.show(number)
    assert (job["state"], job["done"], job["to_sign"], job["signing_seconds"]) == ("done", 10, 10, 4.0)
    await MassRunner(await database.pool(JOBS), SystemClock(), batch=7).step()
    assert to_sign() == (10, 4.0)
    listed = (await deployment.command_line.run("job", "list", "--json", *deployment.options)).lines
    assert [each["to_sign"] for each in listed] == [10]
    text = (await deployment.command_line.run("job", "show", str(number), *deployment.options)).out
    assert f"10 of them are yet to be signed for OCSP: quash job watch {number}" in text
    async with Terminal("job", "watch", str(number), *deployment.options) as terminal:
        await terminal.until("signing", "0/10", "0:00:04 left")
        await mark_due(world, database)
        await take_up(database)
        assert (await deployment.show(number))["to_sign"] == 10
        assert terminal.process.returncode is None
        await pass_bucket(world, database)
        await terminal.until("done", "10/10")
        assert await asyncio.wait_for(terminal.process.wait(), WITHIN) == 0
    assert (await deployment.show(number))["signing_seconds"] == 0
    await MassRunner(await database.pool(JOBS), SystemClock(), batch=7).step()
    assert to_sign() == (0, 0)


@pytest.mark.usefixtures("signing_rate")
async def test_a_whole_bucket_waits_as_a_whole(
    deployment: Deployment, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its one row of news until it was passed; what an aborted job never came to does not wait."""
    monkeypatch.setattr("issuer.revocation.mass_runner._WHOLE_FROM", 10)
    world = deployment.world
    await add_buckets(world)
    number = await deployment.running(20)
    async with acquire(await database.pool(JOBS)) as conn:
        assert await mass_jobs.whole_buckets(conn, number) == {(world.authorities["alpha"].id, 0)}
    while await deployment.runner.step():
        pass
    assert (await deployment.show(number))["to_sign"] == 20
    await mark_due(world, database)
    await take_up(database)
    spki = key_hash()
    await world.certificate(spki=spki)
    aborted = (await deployment.quash("revoke", "--key", spki.hex(), "--preview", "--json")).json["id"]
    assert (await deployment.quash("job", "abort", str(aborted))).status == 0
    shown = [await deployment.show(each) for each in (number, aborted)]
    assert [(each["to_sign"], each["signing_seconds"]) for each in shown] == [(20, 8.0), (0, 0)]
    await pass_bucket(world, database)
    assert (await deployment.show(number))["to_sign"] == 0
