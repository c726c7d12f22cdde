"""How many records a second get through when there is enough to do: what forecasts of mass revocations go by."""

from __future__ import annotations

_LEAST_SECONDS = 2.0
_LEAST_RECORDS = 2000
_PAUSE = 1.0
"""Longer without a record: there was not enough to do, and the measurement begins anew."""


class Throughput:
    """Measures over spans of at least two seconds without a pause."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._last = 0.0
        self._records = 0

    def add(self, records: int, monotonic: float) -> float | None:
        """So many more were fed; returns records a second at the end of each span, else None."""
        if self._began is None or monotonic - self._last > _PAUSE:
            self._began, self._last, self._records = monotonic, monotonic, 0
            return None  # nobody knows when these were begun
        self._last = monotonic
        self._records += records
        seconds = monotonic - self._began
        if seconds < _LEAST_SECONDS or self._records < _LEAST_RECORDS:
            return None
        rate = self._records / seconds
        self._began, self._records = monotonic, 0
        return rate
