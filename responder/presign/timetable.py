"""When each part of a tenure's work is due, and when a step leaves the rest of it to the next one.

By the monotonic clock: a wall clock that is set must neither skip a heartbeat nor make up for hours of them.
"""

from __future__ import annotations

from quash.runtime.clock import Clock

STEP_SECONDS = 5.0
"""After which a step leaves the rest to the next one."""


class Timetable:
    """Work by name, due at once until it is `done`. `unfinished`: the last step ended by the clock, with work left."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}
        self._until = 0.0
        self.unfinished = False

    def begin_step(self) -> None:
        self._until = self._clock.monotonic() + STEP_SECONDS
        self.unfinished = False

    def step_is_over(self) -> bool:
        """Ask while there is work left: the step is then `unfinished`."""
        self.unfinished = self._clock.monotonic() >= self._until
        return self.unfinished

    def is_due(self, what: str) -> bool:
        return self._clock.monotonic() >= self._due.get(what, 0.0)

    def done(self, what: str, every: float) -> None:
        """It is due again after so many seconds."""
        self._due[what] = self._clock.monotonic() + every

    def at_once(self, what: str) -> None:
        """Something changed: it is due now."""
        self._due.pop(what, None)
