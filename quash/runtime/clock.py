"""Time as a constructor argument: decisions use a `Clock`, never `time.time()` nor SQL's `now()`."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol

AHEAD = 60
"""Seconds that what others dated may lie ahead of our clock, before one of the two clocks is wrong."""


class Clock(Protocol):
    """The time of day and the passing of it.

    Contract: `now` is Unix time in seconds and may step either way, as a machine's clock does; `monotonic` only rises.
    `sleep` waits at least that long on this clock. Nothing is promised about resolution below a millisecond.
    """

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock.

    The functions themselves, not methods that call them: each cached OCSP answer asks, and a call between costs time.
    """

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeClock:
    """A clock that moves only when a test says so; sleepers wake in order of their time."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._count = itertools.count()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._count), event))
        await event.wait()

    def step(self, seconds: float) -> None:
        """Moves the time of day alone, as an administrator or NTP would; no sleeper wakes."""
        self._now += seconds

    async def advance(self, seconds: float) -> None:
        """Lets time pass: wakes each sleeper at its own moment and gives it a turn of the loop."""
        end = self._monotonic + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, event = heapq.heappop(self._sleepers)
            self._now += at - self._monotonic
            self._monotonic = at
            event.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        self._now += end - self._monotonic
        self._monotonic = end
