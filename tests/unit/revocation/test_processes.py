"""The processes `admin` and `jobs` as the supervisor runs them: real time, roles, hints and health."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from issuer.revocation import jobs as jobs_process
from issuer.revocation import main as admin_process
from loadtest.system import free_ports
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.runtime.process import Main, Process
from quash.runtime.state import State
from quash.store.roles import ADMIN, JOBS
from tests.support.edge import Client, Edge
from tests.support.revoking import World, key_hash, make_world


@pytest.fixture
async def world(database: Any) -> World:
    """As elsewhere, on the real time of day: the processes have their own clocks."""
    return await make_world(database, FakeClock(time.time()), ADMIN)


@pytest.fixture
def state(database: Any, tmp_path: Path) -> State:
    """A state folder with the passwords of the test's server."""
    state = State(tmp_path)
    for role in (ADMIN, JOBS):
        (state.secrets / f"{role}.password").symlink_to(database.state.secrets / f"{role}.password")
    return state


@contextlib.asynccontextmanager
async def running(main: Main, process: Process) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(main(process))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(done: Callable[[], bool], task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(15):
        while not done():
            assert not task.done(), task
            await asyncio.sleep(0.01)


async def test_admin_process_serves_and_is_ready(world: World, database: Any, state: State) -> None:
    """It finds its files where `init` puts them, serves as its own role, and says that it is ready."""
    edge = Edge(state.root, world.owner)
    await edge.set_up()
    for name in ("api.pem", "api.key"):
        (state.root / name).rename(state.secrets / name)
    (port,) = free_ports(1)
    config = database.config.model_copy(update={"admin": database.config.admin.model_copy(update={"port": port})})
    process = Process("admin", config, state)
    key = await world.certificate(spki=key_hash())
    async with running(admin_process.main, process) as task:
        await until(lambda: process.health.ready, task)
        body = {"issuer": "alpha", "serial": format_serial(key[1]), "reason": "keyCompromise"}
        assert (await Client(edge, port).post("/v1/revocations", body)).status == 201
    assert len(await world.history(key)) == 1


async def test_job_process_finishes_at_the_hint(world: World, database: Any, state: State) -> None:
    """A job that commits while the runner sleeps is taken up at its hint, long before the poll."""
    config = database.config.model_copy(update={"admin": database.config.admin.model_copy(update={"sibling_batch": 3})})
    process = Process("jobs", config, state)
    async with running(jobs_process.main, process) as task:
        await until(lambda: process.health.ready, task)
        await asyncio.sleep(0.2)  # it listens by now
        spki = key_hash()
        keys = [await world.certificate(spki=spki) for _ in range(12)]
        revoked = await world.revoke(keys[0], Reason.keyCompromise, batch=3)
        assert revoked.siblings_total == 11
        async with asyncio.timeout(10):
            while (await world.counts())["revocation"] < 12:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
    assert [len(await world.history(key)) for key in keys] == [1] * 12


async def test_job_process_outlives_a_lost_database(world: World, database: Any, state: State, cluster: Any) -> None:
    """Its connections are cut, it says so or not, and finishes the next job all the same."""
    process = Process("jobs", database.config, state)
    async with running(jobs_process.main, process) as task:
        await until(lambda: process.health.ready, task)
        admin = await cluster.admin()
        try:
            await admin.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = $1 and datname = $2",
                JOBS,
                await world.owner.fetchval("select current_database()"),
            )
        finally:
            await admin.close()
        spki = key_hash()
        keys = [await world.certificate(spki=spki) for _ in range(5)]
        await world.revoke(keys[0], Reason.keyCompromise, batch=1)
        async with asyncio.timeout(15):
            while (await world.counts())["revocation"] < 5:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        assert not task.done()
