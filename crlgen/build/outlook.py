"""Warns of what is coming for CRLs: sizes (B21), disclosures (B24), and what only an offline key renews (B2, G4)."""

from __future__ import annotations

from crlgen.build import metrics
from quash.runtime.clock import Clock
from quash.store import outlook
from quash.store.database import Pool, acquire

_EVERY = 600.0  # seconds; the shortest deadline is 4 hours (B24)


class Watch:
    """Looks every ten minutes; `warnings`: a scope's path -> what a person should do. None of it holds up any CRL."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._again_at = 0.0
        self.warnings: dict[str, list[str]] = {}

    async def step(self) -> bool:
        """True when it looked. Raises `store.unavailable`."""
        if self._clock.monotonic() < self._again_at:
            return False
        now = int(self._clock.now())
        async with acquire(self._pool) as conn:
            found = await outlook.outlooks(conn, now)
        metrics.DISCLOSE_BY.clear()
        metrics.OFFLINE_BY.clear()
        for each in found:
            scope = each.state.scope
            metrics.FORECAST.labels(scope.issuer, scope.scope).set(each.forecast)
            if each.undisclosed:
                metrics.DISCLOSE_BY.labels(scope.issuer, scope.scope).set(min(due.at for due in each.undisclosed))
            for due in each.offline:
                metrics.OFFLINE_BY.labels(scope.issuer, due.what).set(due.at)
        said = {each.state.scope.path: each.warnings(now) for each in found}
        self.warnings = {path: texts for path, texts in said.items() if texts}
        self._again_at = self._clock.monotonic() + _EVERY
        return True
