"""The sweep: every newly blocked key is looked for among all certificates, and those that have it are revoked (C8, C9).

News of blocked keys come at least once, so a crash repeats a look and loses none; a look that finds nothing costs one
query for a thousand keys.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from issuer.revocation import mass_runner
from issuer.revocation.cases import add_key, open_case
from issuer.revocation.compromise import Ground, revoke_key
from quash.pki.reasons import Reason
from quash.runtime.clock import Clock
from quash.runtime.log import logger
from quash.store import acts, blocked_keys, cases, jobs, revocations
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
        try:
            return await self._sweep()
        except BaseException:
            self._loaded = False  # look what was left half done
            raise

    async def _sweep(self) -> int:
        found = 0
        async with acquire(self._pool) as conn:
            if not self._loaded:
                await self._reader.load(conn)
                await self._fill(conn)
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
        ground, since = Ground(_ACTOR, SWEEP, {"cause": cause}, reason), await _since(conn, cause)
        # A mass revocation is an event of its own; anything else that the sweep finds is a case with its deadline.
        case = await self._case(conn, key, reason, now) if since is None else None
        done = await revoke_key(conn, self._clock, key, ground, revoked_at=since, batch=self._batch)
        if case is not None:
            await add_key(conn, _ACTOR, case, key, now)
        if done.act_id is None:
            return False
        _FOUND.inc()
        logger().warning("sweep.found", spki_sha256=key.hex(), certificates=done.total, act=done.act_id)
        return True

    async def _fill(self, conn: Connection) -> None:
        """What a crash left between opening a case and filling it."""
        for case_id, key in await cases.unfilled(conn, _ACTOR):
            await add_key(conn, _ACTOR, case_id, key, int(self._clock.now()))

    async def _case(self, conn: Connection, key: bytes, reason: str, now: int) -> int | None:
        """Opened before the revocation, which filling it must not delay."""
        if not await revocations.unsettled(conn, key, unexpired_at=now, revoked_at=now, limit=1):
            return None
        summary = f"certificates of ours have a blocked key ({reason})"
        return await open_case(
            conn,
            _ACTOR,
            trigger="br-3",
            received_at=now,
            reporter=_ACTOR,
            summary=summary,
            now=now,
            spki_sha256=key,
        )


async def _since(conn: Connection, cause: int) -> int | None:
    """Of a key that a mass revocation blocked: its date, so that the job finds its siblings as it would leave them."""
    act = await acts.get(conn, cause)
    return act.subject["revoked_at"] if act is not None and act.action == mass_runner.REVOKE else None
