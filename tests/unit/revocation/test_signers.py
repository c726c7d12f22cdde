"""OCSP signers over the admin API and on the command line: listed for everybody, switched by officers."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.api import application, listening
from issuer.revocation.mass_api import MassApi
from issuer.revocation.signers import SignersApi
from quash.pki.certificate import read_certificate
from quash.runtime.clock import FakeClock, SystemClock
from quash.runtime.config import Config
from quash.store import acts, blocked_keys, issuers, ocsp_signers, signer_requests, stolen_signers
from quash.store.database import acquire
from quash.store.roles import ADMIN, JOBS
from tests.support.command_line import CommandLine, Said
from tests.support.edge import Client, Edge
from tests.support.revoking import World, key_hash, make_world

DAY = 86_400


@pytest.fixture
async def world(database: Any) -> World:
    """Issuers on the real time of day, alpha's key online, top's not."""
    made = await make_world(database, FakeClock(time.time()), ADMIN)
    await made.owner.execute("update issuer set key_ref = 'pem:ca/alpha.pem' where name = 'alpha'")
    await made.owner.execute("update issuer set key_ref = null where name = 'top'")
    leaf = await made.leaf("alpha")
    async with acquire(made.owner) as conn:
        await ocsp_signers.add(
            conn,
            issuer_id=await conn.fetchval("select id from issuer where name = 'alpha'"),
            certificate=leaf.public_bytes(Encoding.DER),
            key_ref="pem:ocsp/alpha-1.pem",
            signature_algorithm="ecdsa-p256-sha256",
            not_before=1_800_000_000,
            not_after=1_800_000_000 + 30 * DAY - 1,
            created_at=1_800_000_000,
        )
    return made


class Deployment:
    """The signers' part of the admin API, a client of it and a command line."""

    def __init__(self, client: Client, command_line: CommandLine, options: tuple[str, ...]) -> None:
        self.client = client
        self._command_line, self._options = command_line, options

    async def quash(self, *arguments: str, verb: str = "signer") -> Said:
        return await self._command_line.run(verb, *arguments, *self._options)


@pytest.fixture
async def deployment(world: World, tmp_path: Path) -> AsyncIterator[Deployment]:
    edge = await Edge(tmp_path / "state", world.owner).set_up()
    app = application(world.pool, SystemClock())
    SignersApi(world.pool, SystemClock()).add_routes(app)
    MassApi(world.pool, Config(), SystemClock()).add_routes(app)
    async with listening(app, edge.tls, "127.0.0.1", 0) as port, CommandLine() as command_line:
        path = tmp_path / "quash.toml"
        path.write_text(f"[admin]\nport = {port}\n")
        options = ("--config", str(path), "--state", str(edge.state))
        yield Deployment(Client(edge, port), command_line, options)


async def test_listed(deployment: Deployment) -> None:
    """Every signer with its state and times, for any role; the same as text."""
    said = await deployment.quash("list", "--json", "--as", "viewer")
    (signer,) = said.lines
    assert list(signer) == ["issuer", "serial", "state", "algorithm", "not_before", "not_after"]
    assert (signer["issuer"], signer["state"], signer["not_after"]) == ("alpha", "active", "2027-02-14T07:59:59Z")
    text = await deployment.quash("list")
    assert text.out.startswith(f"alpha {signer['serial']}: active, ecdsa-p256-sha256, 2027-01-15T08:00:00Z to ")


async def test_a_switch_is_an_officers_order(world: World, deployment: Deployment) -> None:
    """One row, its act, news for the presigner and a case; refused to others, and where no process has the key."""
    refused = await deployment.client.post("/v1/signers/switches", {"issuer": "alpha"})
    assert refused.status == 403
    done = await deployment.quash("switch", "--issuer", "alpha", "--json")
    assert (done.status, done.json["issuer"]) == (0, "alpha")
    row = await world.owner.fetchrow(
        "select a.actor, a.action, a.id from signer_switch s join act a on a.id = s.act_id"
    )
    assert tuple(row) == ("operator:officer", "signer.switch", done.json["act_id"])
    assert await world.owner.fetchval("select count(*) from outbox where kind = 'signer'") == 1
    case = await world.owner.fetchrow("select id, trigger, summary from revocation_case")
    assert (case["id"], case["trigger"]) == (done.json["case"], "br-3")
    assert "until 2027-02-14T07:59:59Z" in case["summary"]
    member = await world.owner.fetchrow("select serial from case_certificate where case_id = $1", case["id"])
    assert member["serial"].hex().lstrip("0") == (await deployment.quash("list", "--json")).json["serial"]
    offline = await deployment.quash("switch", "--issuer", "top")
    assert offline.status == 3
    assert "signer.offline" in offline.err
    unknown = await deployment.quash("switch", "--issuer", "nobody")
    assert "issuer.unknown" in unknown.err
    assert await world.owner.fetchval("select count(*) from signer_switch") == 1


async def test_a_switch_is_a_job(world: World, deployment: Deployment) -> None:
    """Where it stands follows from committed rows alone, so that no crash can lose it; the newest is listed first."""
    number = (await deployment.quash("switch", "--issuer", "alpha", "--json")).json["job"]
    assert number == "switch-1"

    async def stands() -> tuple[str, int, int, str | None]:
        job = (await deployment.quash("show", number, "--json", verb="job")).json
        assert (job["id"], job["issuer"]) == (number, "alpha")
        return job["state"], job["done"], job["buckets"], job["code"]

    alpha = world.authorities["alpha"].id
    await world.owner.execute(
        "insert into bucket (issuer_id, bucket, due_at) select $1, n, 0 from generate_series(0, 3) n", alpha
    )
    ask = (
        "insert into signer_request (issuer_id, switch_id, key_ref, csr, state, code, signer_id, created_at)"
        " values ($1, 1, 'pem:ocsp/x.pem', '', $2, $3, $4, 0)"
    )
    assert await stands() == ("ordered", 0, 4, None)
    await world.owner.execute(ask, alpha, "refused", "rotation.key_reused", None)
    assert await stands() == ("refused", 0, 4, "rotation.key_reused")
    assert "asks again within an hour (rotation.key_reused)" in (await deployment.quash("show", number, verb="job")).out
    await world.owner.execute(ask, alpha, "open", None, None)
    assert await stands() == ("requested", 0, 4, None)
    signer = await world.owner.fetchval("select max(id) from ocsp_signer")
    await world.owner.execute("update signer_request set state = 'done', signer_id = $1 where state = 'open'", signer)
    assert await stands() == ("signing", 0, 4, None)
    await world.owner.execute("update bucket set signer_id = $1 where bucket <> 0", signer)
    assert await stands() == ("signing", 3, 4, None)
    # Passed before it was written down who signed: until a minute after the new signer was there perhaps by the old
    # one, however long before its certificate was reserved.
    await world.owner.execute("update ocsp_signer set created_at = not_before + 36000 where id = $1", signer)
    passed = "update bucket set passed_at = (select created_at from ocsp_signer where id = $1) + $2 where bucket = 0"
    await world.owner.execute(passed, signer, 59)
    assert await stands() == ("signing", 3, 4, None)
    await world.owner.execute(passed, signer, 60)
    assert await stands() == ("done", 4, 4, None)
    await world.owner.execute("update bucket set passed_at = null where bucket = 0")
    assert " left" in (await deployment.quash("show", number, verb="job")).out
    await world.owner.execute("update bucket set signer_id = $1", signer)
    assert await stands() == ("done", 4, 4, None)
    assert (await deployment.quash("watch", number, verb="job")).status == 0
    await deployment.quash("switch", "--issuer", "alpha")
    listed = (await deployment.quash("list", verb="job")).out.splitlines()
    assert [each.split()[:2] for each in listed] == [["switch-2", "ordered"], ["switch-1", "done"]]
    for unknown in ("switch-3", "switch-x", "nobody"):
        assert (await deployment.quash("show", unknown, verb="job")).status == 2


@pytest.mark.parametrize("role", [ADMIN, JOBS])
async def test_whoever_blocks_a_signers_key_orders_its_replacement(world: World, database: Any, role: str) -> None:
    """One order and one case with the act that blocked; nothing again, and no order where it is replaced already."""
    signer = await world.owner.fetchrow("select certificate, issuer_id from ocsp_signer")
    key = hashlib.sha256(read_certificate(signer["certificate"]).spki).digest()
    pool = await database.pool(role)

    async def block(key: bytes) -> None:
        async with acquire(pool) as conn, conn.transaction():
            act_id = await acts.record(conn, at=world.now, actor="operator:one", action="key.block", subject={})
            await blocked_keys.block(conn, key, reason="asserted: stolen", added_at=world.now, act_id=act_id)

    async def ordered() -> tuple[int, int]:
        row = await world.owner.fetchrow(
            "select (select count(*) from signer_switch) as n, (select count(*) from revocation_case) as m"
        )
        return row["n"], row["m"]

    await block(key_hash())
    assert await ordered() == (0, 0)
    await world.owner.execute("update ocsp_signer set not_after = $1", world.now + DAY)
    for _ in range(2):
        await block(key)
        assert await ordered() == (1, 1)
    assert await world.owner.fetchval("select actor from act where action = 'signer.switch'") == "operator:one"
    assert await world.owner.fetchval("select issuer_id from outbox where kind = 'signer'") == signer["issuer_id"]
    member = await world.owner.fetchval("select serial from case_certificate")
    assert member == read_certificate(signer["certificate"]).serial


@pytest.mark.parametrize(("blocks_first", "actor"), [(True, "intake"), (False, "operator:one")])
async def test_an_order_and_a_blocked_key_are_one_switch(
    world: World, deployment: Deployment, database: Any, blocks_first: bool, actor: str
) -> None:
    """Whoever is first, and however often: one order, one case, and the officer is told both; after a refusal anew."""
    signer = await world.owner.fetchrow("select certificate, issuer_id from ocsp_signer")
    key = hashlib.sha256(read_certificate(signer["certificate"]).spki).digest()

    async def block() -> None:
        async with acquire(world.pool) as conn, conn.transaction():
            act_id = await acts.record(conn, at=world.now, actor=actor, action="key.block", subject={})
            await blocked_keys.block(conn, key, reason="asserted: stolen", added_at=world.now, act_id=act_id)

    async def order() -> tuple[str, int]:
        said = (await deployment.quash("switch", "--issuer", "alpha", "--json")).json
        return said["job"], said["case"]

    if blocks_first:
        await block()
    assert [await order(), await order()] == [("switch-1", 1)] * 2
    officers = "select count(*) from act where action = 'signer.switch' and actor <> $1"
    assert await world.owner.fetchval(officers, actor) == 2  # each order is on record (F1, F3)
    await block()
    counts = "select (select count(*) from signer_switch), (select count(*) from revocation_case)"
    assert tuple(await world.owner.fetchrow(counts)) == (1, 1)
    assert await world.owner.fetchval("select count(*) from outbox where kind = 'signer'") == 1
    await world.owner.execute(
        "insert into signer_request (issuer_id, switch_id, key_ref, csr, state, code, created_at)"
        " values ($1, 1, 'pem:ocsp/x.pem', '', 'refused', 'x', 0)",
        signer["issuer_id"],
    )
    assert await order() == ("switch-2", 1)


async def test_orders_at_the_same_moment_are_one(world: World) -> None:
    """The second one waits for the first one's commit, and finds it."""
    alpha = world.authorities["alpha"].id

    async def order() -> int:
        async with acquire(world.pool) as conn, conn.transaction():
            number, _ = await signer_requests.order_switch(conn, alpha, "alpha", actor="operator:o", at=world.now)
            await asyncio.sleep(0.2)  # not committed
            return number

    assert await asyncio.gather(order(), order()) == [1, 1]


@pytest.mark.parametrize(("state", "online", "known"), [("retiring", True, True), ("active", False, False)])
async def test_what_needs_no_other_switch(world: World, state: str, online: bool, known: bool) -> None:
    """A signer replaced already, with its case; one whose issuer's key is offline has a case, and no order."""
    await world.owner.execute("update ocsp_signer set state = $1, not_after = $2", state, world.now)
    await world.owner.execute("update issuer set key_ref = null where not $1", online)
    async with acquire(world.pool) as conn, conn.transaction():
        (signer,) = await ocsp_signers.in_service(conn)
        act_id = await acts.record(conn, at=world.now, actor="operator:one", action="key.block", subject={})
        if known:
            (issuer,) = [each for each in await issuers.all_issuers(conn) if each.id == signer.issuer_id]
            await stolen_signers.open_case(conn, issuer, [signer], actor="operator:one", at=world.now)
        key = hashlib.sha256(read_certificate(signer.certificate).spki).digest()
        await blocked_keys.block(conn, key, reason="asserted: stolen", added_at=world.now, act_id=act_id)
    assert await world.owner.fetchval("select count(*) from signer_switch") == 0
    assert await world.owner.fetchval("select count(*) from revocation_case") == 1
