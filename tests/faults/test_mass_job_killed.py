"""kill -9 of the process `jobs` in the middle of a mass revocation: every certificate is revoked exactly once (C17)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from issuer.revocation import mass
from issuer.revocation.mass_runner import FINISHED, REVOKE
from issuer.revocation.revoke import REVOKE_SIBLING
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.runtime.state import State
from quash.store.database import acquire
from quash.store.mass_jobs import MassJob
from quash.store.operators import Operator
from quash.store.roles import ADMIN, JOBS
from tests.support.revoking import DAY, World, make_world

OFFICER = Operator(b"\1" * 32, "officer", "One Person", "officer", "active")
WITHIN = 120.0


@pytest.fixture
async def world(database: Any) -> World:
    """On the real time of day: the process has a clock of its own."""
    return await make_world(database, FakeClock(time.time()), ADMIN)


@contextlib.asynccontextmanager
async def jobs_process(database: Any, folder: Path, batch: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """`quash serve jobs`, as a service manager runs it; killed at the end."""
    state = State(folder)
    state.secrets.mkdir(parents=True, exist_ok=True)
    state.run.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (state.secrets / f"{JOBS}.password").symlink_to(database.state.secrets / f"{JOBS}.password")
    config = folder / "config.toml"
    config.write_text(f'[database]\nurl = "{database.config.database.url}"\n[admin]\nsibling_batch = {batch}\n')
    command = ("-m", "quash.cli.main", "serve", "jobs", "--config", str(config), "--state", str(folder))
    with (folder / "jobs.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def until_done(world: World, job_id: int, process: asyncio.subprocess.Process, least: int) -> MassJob:
    """Waits until so many certificates are dealt with."""
    deadline = time.monotonic() + WITHIN
    while True:
        async with acquire(world.pool) as conn:
            job = await mass.find(conn, job_id)
        if job.done >= least:
            return job
        assert time.monotonic() < deadline, job
        assert process.returncode is None
        await asyncio.sleep(0.002)


@pytest.mark.parametrize(
    ("count", "kills", "batch"), [(300, 1, 20), pytest.param(20_000, 10, 50, marks=pytest.mark.long)]
)
async def test_a_killed_mass_job_revokes_each_exactly_once(
    world: World, database: Any, server_folder: Path, count: int, kills: int, batch: int
) -> None:
    """Killed at random points, while its set is made and between and inside batches; a quarter has shared keys (C8)."""
    await world.owner.execute(
        "insert into operator (fingerprint, name, person, role, state, added_at) values ($1, 'o', 'O', 'officer',"
        " 'active', 0)",
        OFFICER.fingerprint,
    )
    alpha, beta = (world.authorities[name].id for name in ("alpha", "beta"))
    await world.owner.execute(
        "insert into certificate (issuer_id, serial, state, profile, spki_sha256, not_before, not_after, bucket,"
        " created_at) select case when n % 4 = 0 then $2::smallint else $1::smallint end, s, 'issued', 'test',"
        " sha256(case when n % 4 < 2 then (n / 4)::text::bytea else s end), $3::bigint, $4::bigint, n % 4, 0"
        " from (select n, sha256(n::text::bytea) as s from generate_series(0, $5::integer - 1) n) k",
        alpha,
        beta,
        world.now - DAY,
        world.now + 90 * DAY,
        count,
    )
    period = {"issuer": "alpha", "after": world.now - 2 * DAY, "before": world.now + DAY}
    async with acquire(world.pool) as conn:
        job = await mass.create(
            conn, OFFICER, period, reason=Reason.keyCompromise, revoked_at=world.now - 60, now=world.now
        )
    started = False
    for number in range(kills + 1):
        async with jobs_process(database, server_folder, batch) as process:
            if not started:
                await _until_ready(world, job.id, process)
                async with acquire(world.pool) as conn:
                    await mass.start(conn, OFFICER, job.id, world.now)
                started = True
            if number < kills:
                await until_done(world, job.id, process, count * number // (kills + 1))
                await asyncio.sleep(random.uniform(0, 0.05))
                continue  # which kills it
            await until_done(world, job.id, process, count)
            async with asyncio.timeout(WITHIN):
                while (await _look(world, job.id)).state != "done":  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
    await _assert_exactly_once(world, await _look(world, job.id), count)


async def _look(world: World, job_id: int) -> MassJob:
    async with acquire(world.pool) as conn:
        return await mass.find(conn, job_id)


async def _until_ready(world: World, job_id: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(WITHIN):
        while (await _look(world, job_id)).state != "ready":
            assert process.returncode is None
            await asyncio.sleep(0.01)


async def _assert_exactly_once(world: World, job: MassJob, count: int) -> None:
    assert (job.state, job.total, job.done) == ("done", count, count)
    rows = await world.owner.fetch(
        "select i.name, r.serial, r.version, r.reason, r.revoked_at, r.act_id from revocation r"
        " join issuer i on i.id = r.issuer_id"
    )
    assert len({(row["name"], row["serial"]) for row in rows}) == len(rows) == count
    said = {(row["version"], row["reason"], row["revoked_at"]) for row in rows}
    assert said == {(1, Reason.keyCompromise, job.revoked_at)}
    acts = await world.owner.fetch("select id, subject from act where action = $1", REVOKE)
    named = [
        (act["id"], issuer, serial)
        for act in acts
        for issuer, serials in act["subject"]["certificates"].items()
        for serial in serials
    ]
    assert len(named) == job.changed
    # Siblings of a blocked key may be swept before the job comes to them.
    swept = await world.owner.fetch("select id, subject from act where action = $1", REVOKE_SIBLING)
    named += [(act["id"], act["subject"]["issuer"], act["subject"]["serial"]) for act in swept]
    assert len(named) == count
    assert set(named) == {(row["act_id"], row["name"], format_serial(row["serial"])) for row in rows}
    assert await world.owner.fetchval("select count(*) from act where action = $1", FINISHED) == 1
    keys = await world.owner.fetchval("select count(distinct spki_sha256) from certificate")
    assert await world.owner.fetchval("select count(*) from blocked_key") == keys
    # News of each, by itself or with its bucket.
    silent = await world.owner.fetchval(
        "select count(*) from certificate c where not exists (select from outbox o where o.issuer_id = c.issuer_id"
        " and (o.serial = c.serial or o.bucket = c.bucket))"
    )
    assert silent == 0
