"""Idempotency keys over the admin API, and what a repeat is told after faults between a change and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from issuer import idempotency
from issuer.api import ProblemRunner, application, tls_context
from issuer.revocation.main import add_routes
from issuer.revocation.visible import Watches
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from tests.support.edge import Client, Edge, Said
from tests.support.held_tables import held, waiting
from tests.support.revoking import DAY, World, key_hash

OPEN = {"trigger": "br-3", "reporter": "Example", "summary": "key on a forum"}
KEY = {"headers": {"Idempotency-Key": "k"}}


@pytest.fixture
async def edge(world: World, tmp_path: Path) -> Edge:
    return await Edge(tmp_path, world.owner).set_up()


@asynccontextmanager
async def serving(world: World, database: Any, edge: Edge, *, patience: float = 10) -> AsyncIterator[Client]:
    """One life of the API's process; it gives requests `patience` seconds when it ends."""
    async with Watches(world.pool, database.config, world.clock) as watches:
        app = application(world.pool, world.clock)
        add_routes(app, world.pool, database.config, world.clock, watches)
        app.middlewares.append(idempotency.middleware(world.pool, world.clock))
        runner = ProblemRunner(app, handle_signals=False, shutdown_timeout=patience)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls_context(edge.tls)).start()
            yield Client(edge, runner.addresses[0][1])
        finally:
            await runner.cleanup()


@pytest.fixture
async def api(world: World, database: Any, edge: Edge) -> AsyncIterator[Client]:
    async with serving(world, database, edge) as client:
        yield client


async def count(world: World) -> int:
    return int(await world.owner.fetchval("select count(*) from revocation_case"))


async def cut_off(cluster: Any, backend: int) -> None:
    admin = await cluster.admin()
    try:
        await admin.execute("select pg_terminate_backend($1, 5000)", backend)
    finally:
        await admin.close()


async def test_a_named_change_is_done_once(world: World, api: Client, clock: FakeClock) -> None:
    """Again: the same answer and no second case; another body is refused, another operator's key is its own."""
    first = await api.post("/v1/cases", OPEN, **KEY)
    again = await api.post("/v1/cases", OPEN, **KEY)
    assert (first.status, again.status, first.body) == (201, 201, again.body)
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    assert (await api.post("/v1/cases", {**OPEN, "summary": "x"}, **KEY)).code == "idempotency.reused"
    matched = {"headers": {**KEY["headers"], "If-Match": '"a"'}}
    assert (await api.post("/v1/cases", OPEN, **matched)).code == "idempotency.reused"
    other = await api.post("/v1/cases", OPEN, as_="officer", **KEY)
    assert other.body["id"] != first.body["id"]
    assert (await api.post("/v1/cases", OPEN, headers={"Idempotency-Key": "é"})).code == "idempotency.malformed"
    clock.step(DAY + 1)
    assert (await api.post("/v1/cases", OPEN, **KEY)).body["id"] != first.body["id"]
    assert await count(world) == 3


async def test_a_refusal_is_kept_too(world: World, api: Client) -> None:
    """It says again what it said, as a problem document; trying anew takes a new key."""
    path = f"/v1/cases/{(await api.post('/v1/cases', OPEN)).body['id']}/notes"
    for status, code, body, more in (
        (400, "request.invalid", {}, {}),
        (400, "request.content_type", None, {}),
        (412, "precondition.failed", {"text": "x"}, {"If-Match": '"other"'}),
    ):
        how = {"headers": {"Idempotency-Key": code, **more}}
        said: list[Said] = [await api.ask("POST", path, json=body, **how) if body is not None
                            else await api.ask("POST", path, data=b"x", **how) for _ in range(2)]  # fmt: skip
        assert [(each.status, each.code) for each in said] == [(status, code)] * 2
        assert said[0].body == said[1].body
        assert said[1].headers["X-Quash-Code"] == code
        assert [each.headers.get("Idempotency-Replayed") for each in said] == [None, "true"]
    assert (await api.post("/v1/nowhere", {}, **KEY)).code == "request.no_such_path"
    assert (await api.post("/v1/cases", OPEN, **KEY)).status == 201


async def test_ten_at_once_do_it_once(world: World, api: Client) -> None:
    said = await asyncio.gather(*(api.post("/v1/cases", OPEN, **KEY) for _ in range(10)))
    assert {each.status for each in said} <= {201, 409}
    assert await count(world) == 1


async def test_a_database_lost_before_the_commit(world: World, api: Client, cluster: Any) -> None:
    """Whoever lost the connection cannot tell whether its commit arrived: a repeat does nothing."""
    async with held(world.owner, "revocation_case"):
        asked = asyncio.ensure_future(api.post("/v1/cases", OPEN, **KEY))
        await cut_off(cluster, await waiting(world.owner, "revocation_case"))
        assert (await asked).code == "store.unavailable"
    said = await api.post("/v1/cases", OPEN, **KEY)
    assert (said.status, said.code) == (409, "idempotency.unknown")
    assert await count(world) == 0


async def test_a_database_lost_after_the_commit(world: World, api: Client, cluster: Any) -> None:
    """The change is told as it was done, though its answer could not be kept; a repeat opens no second case."""
    async with held(world.owner, "revocation_case"):
        asked = asyncio.ensure_future(api.post("/v1/cases", OPEN, **KEY))
        await waiting(world.owner, "revocation_case")
        keeping = held(world.owner, "idempotent_request")
        await keeping.__aenter__()
    await cut_off(cluster, await waiting(world.owner, "idempotent_request"))
    assert (await asked).status == 201
    await keeping.__aexit__(None, None, None)
    assert (await api.post("/v1/cases", OPEN, **KEY)).code == "idempotency.unknown"
    assert await count(world) == 1


async def test_a_server_that_ends_in_between(world: World, database: Any, edge: Edge) -> None:
    """Cut off with its client waiting: the next process does not do it again."""
    async with held(world.owner, "revocation_case"):
        async with serving(world, database, edge, patience=0.1) as api:
            asked = asyncio.ensure_future(api.post("/v1/cases", OPEN, **KEY))
            await waiting(world.owner, "revocation_case")
        with pytest.raises(aiohttp.ClientError):
            await asked
    async with serving(world, database, edge) as api:
        assert (await api.post("/v1/cases", OPEN, **KEY)).code == "idempotency.unknown"
        assert (await api.post("/v1/cases", OPEN, headers={"Idempotency-Key": "k2"})).status == 201
    assert await count(world) == 1


async def test_a_fault_of_ours(world: World, api: Client) -> None:
    """500: whatever was done before it is not done again."""
    await world.owner.execute(
        "create function fail() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        " create trigger fail before insert on revocation_case for each row execute function fail()"
    )
    assert (await api.post("/v1/cases", OPEN, **KEY)).code == "internal"
    await world.owner.execute("drop trigger fail on revocation_case")
    assert (await api.post("/v1/cases", OPEN, **KEY)).code == "idempotency.unknown"
    assert (await api.post("/v1/cases", OPEN, headers={"Idempotency-Key": "k2"})).status == 201
    assert await count(world) == 1


async def test_a_large_list_may_name_itself_too(world: World, api: Client) -> None:
    """Adding to a list is the same when done again, and its body is larger than others: the header is no matter."""
    key = await world.certificate(spki=key_hash())
    opened = await api.post("/v1/mass-revocations", {"reason": "superseded", "list": True})
    body = {"issuer": "alpha", "serials": [format_serial(key[1])] * 3000}
    path = f"/v1/mass-revocations/{opened.body['id']}/certificates"
    for _ in range(2):
        assert (await api.post(path, body, headers={"Idempotency-Key": "k"})).status == 201
