"""Hints: heard at once, missed never for long, and nobody waits longer than asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from quash.store import roles
from quash.store.hints import Hints

_LONG = 20.0


class _SlowPool:
    """A pool of a busy server: a connection takes longer than a poll."""

    def __init__(self, pool: Any, seconds: float) -> None:
        self._pool = pool
        self._seconds = seconds
        self.asked = 0

    async def acquire(self) -> Any:
        self.asked += 1
        await asyncio.sleep(self._seconds)
        return await self._pool.acquire()

    async def release(self, conn: Any) -> None:
        await self._pool.release(conn)


@pytest.fixture
async def notify(database: Any) -> Callable[[], Any]:
    return lambda: database.owner.execute("select pg_notify('feed', '')")


@pytest.fixture
async def hints(database: Any) -> AsyncIterator[Hints]:
    hints = Hints(await database.pool(roles.FOLLOWER), "feed")
    yield hints
    await hints.close()


async def _seconds(hints: Hints, longest: float) -> float:
    began = time.monotonic()
    await hints.wait(longest)
    return time.monotonic() - began


async def test_waits_longer_only_while_the_server_would_tell(hints: Hints, notify: Callable[[], Any]) -> None:
    """Without a connection that listens, the poll comes as soon as it does by itself."""
    began = time.monotonic()
    await hints.wait(0.05, listening=_LONG)
    assert time.monotonic() - began < _LONG / 2
    await asyncio.wait_for(_connected(hints), _LONG)
    waiting = asyncio.create_task(hints.wait(0.05, listening=_LONG))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await notify()
    await asyncio.wait_for(waiting, _LONG)


async def _connected(hints: Hints) -> None:
    while not hints.is_listening:
        await hints.wait(0.01)


async def test_a_hint_ends_a_wait(hints: Hints, notify: Callable[[], Any]) -> None:
    """Also one that came between two waits; without any, a wait takes as long as asked."""
    assert await _seconds(hints, 0.5) >= 0.5
    await notify()
    assert await _seconds(hints, _LONG) < _LONG / 2
    assert await _seconds(hints, 0.05) >= 0.05
    waiting = asyncio.create_task(_seconds(hints, _LONG))
    await asyncio.sleep(0.05)
    await notify()
    assert await waiting < _LONG / 2


async def test_a_connection_that_takes_longer_than_a_poll_is_had_in_the_end(
    database: Any, notify: Callable[[], Any]
) -> None:
    """On a busy server a connection takes many polls: none of them waits for it, and none begins it anew."""
    pool = _SlowPool(await database.pool(roles.FOLLOWER), 0.3)
    hints = Hints(pool, "feed")  # type: ignore[arg-type]
    try:
        assert await _seconds(hints, 0.05) < 0.25
        await asyncio.sleep(1)
        assert await _seconds(hints, 0.05) >= 0.05
        await notify()
        assert await _seconds(hints, _LONG) < _LONG / 2
        assert pool.asked == 1
    finally:
        await hints.close()


async def test_a_lost_connection_is_replaced(hints: Hints, cluster: Any, notify: Callable[[], Any]) -> None:
    """The server ends the session: waits go on as polls, and the next connection hears again."""
    await hints.wait(0.2)
    admin = await cluster.admin()
    try:
        await admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = $1 and query like 'LISTEN%'",
            roles.FOLLOWER,
        )
    finally:
        await admin.close()
    assert await _seconds(hints, 0.5) >= 0.5
    await notify()
    assert await _seconds(hints, _LONG) < _LONG / 2


async def test_closing_ends_a_connection_under_way(database: Any) -> None:
    """Nothing is left behind by who is closed while it connects, nor by who never waited."""
    pool = await database.pool(roles.FOLLOWER)
    hints = Hints(_SlowPool(pool, 0.3), "feed")  # type: ignore[arg-type]
    await hints.wait(0.05)
    await hints.close()
    await hints.close()
    await asyncio.sleep(0.5)
    assert pool.get_idle_size() == pool.get_size()
