"""What the lease's holder keeps in order once a minute: the feed's partitions, the outbox's tail, the alarm of A4."""

from __future__ import annotations

from collections.abc import Mapping

from quash.pki.rules import answers_late_after
from quash.runtime.clock import Clock
from quash.runtime.config import Presign
from quash.store import buckets, outbox
from quash.store.database import Connection, Pool, acquire
from quash.store.news import NewsReader
from responder.presign.feeder import Feeder
from responder.presign.metrics import OLDEST, OLDEST_LIMIT, alarm

PRUNE_BATCH = 10_000
PRUNE_BATCHES = 10
"""Of a minute: a mass revocation leaves more news behind than one."""


class Upkeep:
    """`readers`: of the outbox's lanes; what they read has been fed."""

    def __init__(
        self, pool: Pool, feeder: Feeder, readers: Mapping[int, NewsReader], clock: Clock, settings: Presign
    ) -> None:
        self._pool = pool
        self._feeder = feeder
        self._readers = readers
        self._clock = clock
        self._settings = settings

    async def run(self) -> None:
        for _ in range(PRUNE_BATCHES):
            if not await self._prune_outbox():
                break
        await self._feeder.drop_partitions()
        await self._tell_oldest()

    async def _tell_oldest(self) -> None:
        async with acquire(self._pool) as conn:
            oldest = await buckets.oldest_pass(conn)
        age = max(0, int(self._clock.now()) - oldest) if oldest is not None else 0
        limit = answers_late_after(self._settings.validity)
        OLDEST.set(age)
        OLDEST_LIMIT.set(limit)
        if age > limit:
            alarm("presign.refresh_late", f"some answers are {age} s old: see why their bucket is not refreshed (A4)")

    async def _prune_outbox(self) -> bool:
        """All that was read has been fed: remembers that, also for a lane without news, and deletes some of it.

        Returns whether there may be more to delete.
        """
        deleted = []

        async def within(conn: Connection) -> None:
            for lane, reader in self._readers.items():
                await reader.save(conn, reader.position, int(self._clock.now()))
                deleted.append(await outbox.prune(conn, lane, reader.position.tx, PRUNE_BATCH))

        await self._feeder.write([], within)
        return max(deleted) == PRUNE_BATCH
