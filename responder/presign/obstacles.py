"""Issuers that nothing can be signed for just now: what the looks at keys find, and what signing itself ran into.

The others are signed for meanwhile. An issuer whose signing failed is left out of refreshes for a while, since its
buckets would stay the ones that are due longest; its news wait in their buckets, which are due.
"""

from __future__ import annotations

from quash.errors import QuashError
from quash.runtime.clock import Clock
from responder.presign.key_watch import KeyWatch
from responder.presign.metrics import alarm
from responder.presign.roster import Roster
from responder.presign.timetable import Timetable

RETRY_AFTER = 10.0
"""An issuer that nothing could be signed for is left out of refreshes for so long."""
_LOOK = "keys"


class Obstacles:
    """Of one tenure. `keys` outlives it: its owner gives the lease up when a key is away for long."""

    def __init__(self, keys: KeyWatch, timetable: Timetable, clock: Clock) -> None:
        self._keys = keys
        self._timetable = timetable
        self._clock = clock
        self._paused: dict[int, float] = {}

    async def look(self, roster: Roster) -> None:
        """Tries every key, when that is due."""
        if self._timetable.is_due(_LOOK):
            await self._keys.look(roster, int(self._clock.now()))
            self._timetable.done(_LOOK, self._keys.pause)

    def pause(self, issuer_id: int, error: QuashError, certificates: int) -> None:
        """Nothing could be signed for an issuer, and so many certificates wait."""
        alarm(error.code, error.message, issuer_id=issuer_id, certificates=certificates)
        self._paused[issuer_id] = self._clock.monotonic() + RETRY_AFTER
        if not self._keys.problems:
            self._timetable.at_once(_LOOK)  # perhaps it is the key, which another one may have

    def paused_issuers(self) -> list[int]:
        now = self._clock.monotonic()
        self._paused = {issuer_id: until for issuer_id, until in self._paused.items() if until > now}
        return list(self._paused)

    def clear(self) -> None:
        """Issuers or signers changed: whatever was wrong may be right."""
        self._paused.clear()
