"""Advisory locks: who waits for whom, and what a dead session leaves."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from quash.store.database import acquire
from quash.store.locks import kill_switch_lock, spki_lock, try_order_lock
from quash.store.roles import ISSUING

KEY, OTHER = bytes(32), bytes(31) + b"\x01"


async def _waits(conn: Any, lock: Any) -> bool:
    """Whether taking `lock` on `conn` has to wait."""

    async def take() -> None:
        async with lock:
            pass

    try:
        await asyncio.wait_for(take(), 0.3)
    except TimeoutError:
        return True
    return False


async def test_a_key_is_locked_for_one_session(database: Any) -> None:
    """The same key waits, another does not; afterwards it is free."""
    a, b = await database.connection(), await database.connection()
    async with spki_lock(a, KEY):
        assert await _waits(b, spki_lock(b, KEY))
        assert not await _waits(b, spki_lock(b, OTHER))
    assert not await _waits(b, spki_lock(b, KEY))


async def test_signing_shares_the_kill_switch_and_a_stop_does_not(database: Any) -> None:
    """Two signers side by side; a stop waits for both, and a signer for a stop."""
    a, b, c = [await database.connection() for _ in range(3)]
    async with kill_switch_lock(a, stop=False), kill_switch_lock(b, stop=False):
        assert await _waits(c, kill_switch_lock(c, stop=True))
    async with kill_switch_lock(c, stop=True):
        assert await _waits(a, kill_switch_lock(a, stop=False))


async def test_an_order_lock_does_not_wait(database: Any) -> None:
    """The second session is told at once that it is not alone."""
    a, b = await database.connection(), await database.connection()
    order = uuid4()
    async with try_order_lock(a, order) as first, try_order_lock(b, order) as second:
        assert (first, second) == (True, False)
    async with try_order_lock(b, order) as alone:
        assert alone


async def test_a_dead_session_holds_nothing(database: Any) -> None:
    """A session that ends inside the block drops its lock, and leaving the block raises nothing of its own."""
    a, b = await database.connection(), await database.connection()

    async def die_inside() -> None:
        async with spki_lock(a, KEY):
            a.terminate()
            await asyncio.sleep(0.1)
            raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        await die_inside()
    assert not await _waits(b, spki_lock(b, KEY))


async def test_an_error_inside_frees_the_lock(database: Any) -> None:
    """Whatever ends the block, the session goes on without its lock."""
    a, b = await database.connection(), await database.connection()
    with pytest.raises(RuntimeError):
        async with spki_lock(a, KEY), a.transaction():
            raise RuntimeError
    assert not await _waits(b, spki_lock(b, KEY))


async def test_a_lost_session_does_not_hide_what_ended_the_work(database: Any, cluster: Any) -> None:
    """The lock went with the session; whoever held it learns his own error, such as a cancellation."""
    pool = await database.pool(ISSUING)

    async def work() -> None:
        async with acquire(pool) as conn, kill_switch_lock(conn, stop=False), spki_lock(conn, KEY):
            admin = await cluster.admin()
            await admin.execute("select pg_terminate_backend($1, 5000)", conn.get_server_pid())
            await admin.close()
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await work()
