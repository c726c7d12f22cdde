"""Waiting for news: until the hint arrives by `pg_notify`, or until a poll's time when it is lost or never sent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from quash.errors import QuashError
from quash.store.database import Connection, Pool, connecting, is_lost, translated


class Hints:
    """One channel's hints, on a connection that is kept out of the pool and replaced when it is lost.

    Contract: `wait` may return early and for nothing; it never waits longer than asked. A hint carries nothing.
    """

    def __init__(self, pool: Pool, channel: str) -> None:
        self._pool = pool
        self._channel = channel
        self._hinted = asyncio.Event()
        self._conn: Connection | None = None
        # Connecting outlives a poll: on a busy server it would be begun anew at each, and never succeed.
        self._connecting: asyncio.Task[None] | None = None

    @property
    def is_listening(self) -> bool:
        """Whether a hint would be heard, as far as we know."""
        return self._connecting is None and self._conn is not None and not is_lost(self._conn)

    async def wait(self, seconds: float, *, listening: float | None = None) -> None:
        """Returns at the next hint, or at once for one that came since the last call; at the latest after `seconds`.

        `listening`: instead of `seconds` while the server would tell us. A standby tells nobody.
        """
        if self._connecting is not None and self._connecting.done():
            self._connecting.result()  # raises what no database is to blame for
            self._connecting = None
        if self._connecting is None and not self.is_listening:
            self._connecting = asyncio.create_task(self._listen())
        if listening is not None and self.is_listening:
            seconds = listening
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hinted.wait()
        self._hinted.clear()

    async def close(self) -> None:
        """Gives the connection up. Safe to call when there is none."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        await self._let_go()

    async def _listen(self) -> None:
        try:
            await self._let_go()
            with connecting():
                self._conn = await self._pool.acquire()
                await self._conn.add_listener(self._channel, self._heard)
        except QuashError:
            await self._let_go()  # no database, no hint: the poll goes on

    async def _let_go(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with suppress(QuashError), translated():
                await conn.remove_listener(self._channel, self._heard)
            with suppress(QuashError), translated():
                await self._pool.release(conn)

    def _heard(self, *_: Any) -> None:
        self._hinted.set()
