"""How many reports one source, and all together, may hand in: beyond, they are asked to come back (no report is lost
to a flood, since each source has its own share).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from quash.runtime.clock import Clock

_MOST_SOURCES: Final = 100_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Quota:
    """Token buckets in memory: `per_hour` of one source, `per_minute` of all. A restart forgives."""

    def __init__(self, clock: Clock, *, per_hour: int, per_minute: int) -> None:
        self._clock = clock
        self._per_source = (per_hour, 3600.0)
        self._global = (per_minute, 60.0)
        self._all = _Bucket(float(per_minute), clock.monotonic())
        self._sources: dict[str, _Bucket] = {}

    def take(self, source: str) -> float:
        """Counts a report; returns 0, or the seconds after which one would pass."""
        now = self._clock.monotonic()
        if len(self._sources) >= _MOST_SOURCES:
            self._forget(now)
        own = self._sources.setdefault(network_of(source), _Bucket(float(self._per_source[0]), now))
        waits = [_wait(own, self._per_source, now), _wait(self._all, self._global, now)]
        if any(waits):
            return max(waits)
        own.tokens -= 1
        self._all.tokens -= 1
        return 0.0

    def _forget(self, now: float) -> None:
        """Those whose bucket is full again, and if that is not enough, everybody: the global quota stands."""
        self._sources = {s: b for s, b in self._sources.items() if now - b.at < self._per_source[1]}
        if len(self._sources) >= _MOST_SOURCES:
            self._sources.clear()


def _wait(bucket: _Bucket, limit: tuple[int, float], now: float) -> float:
    count, seconds = limit
    bucket.tokens = min(float(count), bucket.tokens + (now - bucket.at) * count / seconds)
    bucket.at = now
    return 0.0 if bucket.tokens >= 1 else (1 - bucket.tokens) * seconds / count


def network_of(source: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 that one IPv6 subscriber has."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
