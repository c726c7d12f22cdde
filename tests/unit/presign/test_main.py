"""The process itself: real time, real keys in files, hints of a real server."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from quash.runtime.clock import FakeClock, SystemClock
from quash.runtime.process import Process
from quash.runtime.state import State
from quash.store.passwords import password_file
from responder.presign.main import ROLE, main


@pytest.fixture
def clock() -> FakeClock:
    """The world begins at the true time, which the process lives in."""
    return FakeClock(time.time())


@pytest.fixture
def state(world: Any, tmp_path: Path) -> State:
    """A state folder of this process alone: its password, its keys."""
    state = State(tmp_path / "state")
    shutil.copy(password_file(world.database.state, ROLE), password_file(state, ROLE))
    state.write_secret(state.secrets / "ocsp.passphrase", b"correct horse")
    return state


def write_keys(world: Any, state: State) -> None:
    for ref, key in world.keys.items():
        path = state.keys / ref.removeprefix("pem:")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"correct horse"))
        )


@asynccontextmanager
async def running(process: Process) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(main(process))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(true: Callable[[], Any], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 - what is waited for happens in the database
            await asyncio.sleep(0.005)


def process_of(world: Any, state: State) -> Process:
    return Process("presigner", world.database.config, state, SystemClock())


async def test_news_are_taken_up_at_once(world: Any, state: State) -> None:
    """A running presigner becomes ready, answers a new certificate, then its revocation."""
    authority = await world.authority()
    write_keys(world, state)
    process = process_of(world, state)

    async def ready() -> bool:
        return process.health.ready

    async with running(process):
        await eventually(ready)
        serial = await world.issue(authority)
        key = (authority.id, serial)

        async def version(wanted: int) -> bool:
            cache = await world.cache()
            return key in cache and cache[key].version == wanted

        await eventually(lambda: version(0))
        await world.revoke(authority, serial)
        await eventually(lambda: version(1))
        assert process.health.report()["checks"]["presign"]["detail"] == "leading"


async def test_it_outlives_a_lost_database_session(world: Any, state: State) -> None:
    """Every session killed under it: it reconnects, takes the lease again and goes on."""
    authority = await world.authority()
    write_keys(world, state)
    process = process_of(world, state)
    async with running(process) as task:

        async def ready() -> bool:
            return process.health.ready

        await eventually(ready)
        executioner = await world.database.connection(ROLE)
        await executioner.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where usename = current_user and datname = current_database() and pid <> pg_backend_pid()"
        )
        serial = await world.issue(authority)

        async def answered() -> bool:
            return (authority.id, serial) in await world.cache()

        await eventually(answered)
        await eventually(ready)
        assert not task.done()


async def test_unready_with_the_reason(world: Any, state: State) -> None:
    """While the published CRLs forbid signing it is not ready and says why; it begins once they are right."""
    authority = await world.authority()
    serial = await world.issue(authority)
    write_keys(world, state)
    (state.crl / "broken.crl").write_bytes(b"no CRL")
    process = process_of(world, state)
    async with running(process):

        async def refused() -> bool:
            return "crl.malformed" in str(process.health.report())

        await eventually(refused)
        assert not process.health.ready
        assert await world.cache() == {}
        (state.crl / "broken.crl").unlink()

        async def answered() -> bool:
            return (authority.id, serial) in await world.cache()

        await eventually(answered)
