"""Progress of mass events, told by itself: to whoever reported, and to every subscriber concerned (C17, C18).

At the beginning of the revocation, then at intervals while certificates are left, and when all are seen revoked.
"""

from __future__ import annotations

from typing import Final

from issuer.revocation.cases import Standing, standing
from issuer.revocation.notices import is_address, notify, notify_subscribers
from quash.pki.rules import DAY
from quash.runtime.clock import Clock
from quash.runtime.config import Notices
from quash.store import cases
from quash.store.database import Connection, Pool, acquire

ACTOR: Final = "cases"
_HOUR: Final = 3600
_STALE: Final = DAY
"""Seconds after which what was done is no news: a case that was met before this was switched on is not told of."""


class ProgressTeller:
    """`step` queues what is due. Notices are named by case and interval, so that each goes to everybody once."""

    def __init__(self, pool: Pool, config: Notices, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._least = config.progress_from
        self._every = config.progress_hours * _HOUR

    async def step(self) -> int:
        """Returns how many notices are new."""
        now, told = int(self._clock.now()), 0
        async with acquire(self._pool) as conn:
            for case in await cases.everything(conn):
                stands = standing(case, now)
                due = self._due(stands, now)
                if due is not None:
                    told += await _tell(conn, stands, *due, now)
        return told

    def _due(self, stands: Standing, now: int) -> tuple[str, str] | None:
        """The template and the name of the interval; None: nothing is to be told."""
        case = stands.case
        if case.total < self._least or not case.revoked:
            return None
        if stands.state == "met":
            fresh = case.last_seen_at is not None and now - case.last_seen_at < _STALE
            return ("done", "done") if fresh else None
        if stands.state == "open":
            return "progress", f"progress:{(now - case.opened_at) // self._every}"
        return None


async def _tell(conn: Connection, stands: Standing, template: str, interval: str, now: int) -> int:
    once = f"{interval}:{stands.case.id}"
    told = await notify_subscribers(conn, ACTOR, stands, template, now=now, once=once)
    if is_address(stands.case.reporter):
        told += await notify(conn, ACTOR, stands, template, [stands.case.reporter], now=now, once=once)
    return told
