"""The sweep: every newly blocked key is looked for among all certificates, and those that have it are revoked (C8, C9).

News of blocked keys come at least once, so a crash repeats a look and loses none; a look that finds nothing costs one
query for a thousand keys.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from issuer.revocation.compromise import Ground, revoke_key
from quash.pki.reasons import Reason
from quash.runtime.clock import Clock
from quash.runtime.log import logger
from quash.store import blocked_keys, jobs
from quash.store.database import Connection, Pool, acquire
from quash.store.news import NewsReader

SWEEP: Final = "key.sweep"
_ACTOR: Final = "sweep"
_PAGE: Final = 1000
_SWEPT = Counter("quash_sweep_keys_total", "Newly blocked keys that were looked for")
_FOUND = Counter("quash_sweep_found_total", "Blocked keys that certificates of ours had")


class Sweeper:
    """`step` looks for every key that was blocked since the last one. Any number of sweepers may run."""

    def __init__(self, pool: Pool, clock: Clock, *, batch: int) -> None:
        self._pool = pool
        self._clock = clock
        self._batch = batch
        self._reader = NewsReader("blocked_key", ("spki_sha256", "act_id", "reason"), "blocked-key-sweep")
        self._loaded = False

    async def step(self) -> int:
        """Returns how many keys it found among certificates."""
        found = 0
        async with acquire(self._pool) as conn:
            if not self._loaded:
                await self._reader.load(conn)
                self._loaded = True
            while True:
                batch = await self._reader.read(conn, _PAGE)
                if batch.rows:
                    causes = {row["spki_sha256"]: row for row in batch.rows}
                    certified = await blocked_keys.still_certified(conn, list(causes), int(self._clock.now()))
                    for key in certified:
                        found += await self._revoke(conn, key, causes[key]["act_id"], causes[key]["reason"])
                    await self._reader.save(conn, batch.position, int(self._clock.now()))
                    _SWEPT.inc(len(batch.rows))
                self._reader.accept(batch)
                if not batch.more:
                    return found

    async def _revoke(self, conn: Connection, key: bytes, cause: int, reason: str) -> bool:
        now = int(self._clock.now())
        if await jobs.covers_key(conn, key, reason=Reason.keyCompromise, revoked_at=now):
            return False
        ground = Ground(_ACTOR, SWEEP, {"cause": cause}, reason)
        done = await revoke_key(conn, self._clock, key, ground, revoked_at=None, batch=self._batch)
        if done.act_id is None:
            return False
        _FOUND.inc()
        logger().warning("sweep.found", spki_sha256=key.hex(), certificates=done.total, act=done.act_id)
        return True
