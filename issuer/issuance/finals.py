"""Final certificates go to a log too, within 24 hours (E6): beside flow 1 and behind it, so that no order waits.

1. T3 has left a row with the certificate, whatever happens to the process that wrote it
2. claim       some that are due; the claim itself sets when the next attempt is, so that a crash here costs a pause
3. submit      one usable log after the other until one gives an SCT that verifies
4. record      which log has it, and when; one that no log takes is tried again, after longer pauses
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from prometheus_client import Gauge

from issuer.ct.sct import Sct
from issuer.issuance import prepare
from quash.errors import QuashError
from quash.pki.serials import format_serial
from quash.runtime.clock import Clock
from quash.runtime.log import logger
from quash.store import final_submissions
from quash.store.database import Pool, acquire
from quash.store.final_submissions import Due

_AT_ONCE: Final = 4
"""Submissions side by side: enough for a backlog of an outage, too few to be felt by orders."""
BATCH: Final = 16
"""Certificates claimed with one question."""

_OLDEST: Final = Gauge("quash_ct_finals_oldest_seconds", "Age of the oldest final certificate in no log (E6: 86400)")


class Log(Protocol):
    """Puts a final certificate into one log and returns its verified SCT; again it does no harm. Raises `ct.*`."""

    async def log_final(self, certificate: bytes, issuers: Sequence[bytes], not_after: int) -> Sct: ...


class Finals:
    """Submits what T3 left. Any number of processes may, on one database."""

    def __init__(self, pool: Pool, logs: Log, clock: Clock) -> None:
        self._pool = pool
        self._logs = logs
        self._clock = clock
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def step(self) -> int:
        """Submits at most `BATCH` that are due; returns how many of them a log has now."""
        async with acquire(self._pool) as conn:
            due = await final_submissions.claim(conn, self._now(), BATCH)
            since = await final_submissions.oldest(conn, self._now())
            chains = {each: await prepare.read_chain(conn, each) for each in {each.issuer_id for each in due}}
        _OLDEST.set(0 if since is None else self._now() - since)
        found = await asyncio.gather(*(self._submit(each, chains[each.issuer_id]) for each in due))
        logged = [(each.issuer_id, each.serial, log) for each, log in zip(due, found, strict=True) if log is not None]
        if logged:
            async with acquire(self._pool) as conn:
                await final_submissions.set_logged(conn, self._now(), logged)
        return len(logged)

    async def _submit(self, due: Due, above: prepare.Chain) -> bytes | None:
        """The id of the log that has it."""
        try:
            async with self._gate:
                found = await self._logs.log_final(due.der, [der for _, der in above], due.not_after)
        except QuashError as error:
            logger().warning("ct.final_waits", serial=format_serial(due.serial), code=error.code, detail=error.message)
            return None
        return found.log_id

    def _now(self) -> int:
        return int(self._clock.now())
