"""Rate limits of the private APIs, per operator: a stolen credential or a loop gone wild is slowed down and seen.

In memory: a restart forgives. Revoking siblings or a whole key counts as one request, so no limit delays a compromise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from issuer.api import OPERATOR, Handler, problem
from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock

_READING = ("GET", "HEAD", "OPTIONS")


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """Token buckets that hold one minute's worth: reads and changes are counted apart."""

    def __init__(self, clock: Clock, *, reads: int, changes: int) -> None:
        self._clock = clock
        self._limits = {True: reads, False: changes}
        self._buckets: dict[tuple[bytes, bool], _Bucket] = {}

    def take(self, operator: bytes, *, reading: bool) -> float:
        """Counts a request; returns 0, or the seconds after which one would pass."""
        limit, now = self._limits[reading], self._clock.monotonic()
        bucket = self._buckets.setdefault((operator, reading), _Bucket(limit, now))
        bucket.tokens = min(limit, bucket.tokens + (now - bucket.at) * limit / 60)
        bucket.at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) * 60 / limit
        bucket.tokens -= 1
        return 0.0

    def middleware(self) -> Any:
        """To stand behind the one that says which operator asks."""

        @web.middleware
        async def limited(request: web.Request, handler: Handler) -> web.StreamResponse:
            wait = self.take(request[OPERATOR].identity, reading=request.method in _READING)
            if wait == 0.0:
                return await handler(request)
            error = QuashError("operator.rate_limited", "too many requests a minute: wait", Kind.UNAVAILABLE)
            response = problem(error, 429)
            response.headers["Retry-After"] = str(math.ceil(wait))
            return response

        return limited
