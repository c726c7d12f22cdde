"""The feeding side: every write of the presigner is one short transaction under its lease's fence.

News need one statement, and so a transaction of the server's own; what else there is to write joins it in an open one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import nullcontext

from quash.runtime.clock import Clock
from quash.store import feed
from quash.store.database import Connection, Pool, acquire
from quash.store.feed import FeedRow
from quash.store.leases import Lease
from quash.store.news import Position
from responder.presign.metrics import PARTITIONS

SPAN = 6 * 3600
"""Seconds of `written_at` in one partition. Partitions lie on this grid, so it may change only by a factor."""

_GRACE = 60
"""A partition that ended less than this ago may still be written to, by a transaction under way."""

Announce = Callable[[int], list[FeedRow]]
Within = Callable[[Connection], Awaitable[None]]


class Feeder:
    """Appends to the feed while `lease` holds.

    Every partition begins with the issuers and templates (`announce`), so that a node can start from any of them.
    """

    def __init__(self, pool: Pool, lease: Lease, clock: Clock, announce: Announce) -> None:
        self._pool = pool
        self._lease = lease
        self._clock = clock
        self._announce = announce
        self._prepared: int | None = None
        self._announced: int | None = None

    def announce_again(self) -> None:
        """Issuers or signers changed: the next write tells nodes of all of them."""
        self._announced = None

    async def write(
        self,
        rows: Sequence[FeedRow],
        within: Within | None = None,
        *,
        proven: Collection[tuple[int, bytes]] = (),
        taken_up: tuple[str, Position] | None = None,
    ) -> None:
        """Appends `rows` with what `feed.write` takes beside them, and runs `within`, in one transaction.

        Raises `lease.lost`, and then nothing was written.
        """
        now = int(self._clock.now())
        start = now - now % SPAN
        async with acquire(self._pool) as conn:
            await self._prepare(conn, start)
            announcement = [] if start == self._announced else self._announce(now)
            async with conn.transaction() if within else nullcontext():
                await feed.write(conn, self._lease, [*announcement, *rows], now, proven=proven, taken_up=taken_up)
                if within:
                    await within(conn)
        self._announced = start

    async def drop_partitions(self) -> int:
        """Drops every partition that no node needs any more; returns how many."""
        over = int(self._clock.now()) - _GRACE
        dropped = 0
        async with acquire(self._pool) as conn:
            known = await feed.partitions(conn)
            for partition in known:
                if partition.ends_at > over or not await feed.drop_partition(conn, partition.starts_at, over):
                    break  # what keeps this one keeps the younger ones
                dropped += 1
        PARTITIONS.set(len(known) - dropped)
        return dropped

    async def _prepare(self, conn: Connection, start: int) -> None:
        """Makes this span's partition and the next one's, so that the change of spans never waits for a lock."""
        if start != self._prepared:
            await feed.add_partition(conn, start, start + SPAN)
            await feed.add_partition(conn, start + SPAN, start + 2 * SPAN)
            self._prepared = start
