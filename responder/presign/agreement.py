"""Agreement of this machine's clock with the database's: a signer that runs ahead must not sign.

Of two records of one status version the later thisUpdate wins, so a signer ahead of time would shadow honest ones; a
signer behind would sign answers that are too old. More than `TOLERANCE` apart, neither clock can be trusted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.store import feed
from quash.store.database import Connection
from responder.presign.metrics import CLOCK_AHEAD

TOLERANCE = 5.0
"""Seconds."""

DatabaseTime = Callable[[Connection], Awaitable[float]]


class ClockAgreement:
    """Our clock, as far as the database's bears it out. `database_time` is replaced where a test moves time."""

    def __init__(self, clock: Clock, database_time: DatabaseTime = feed.database_time) -> None:
        self._clock = clock
        self._database_time = database_time

    async def now(self, conn: Connection) -> int:
        """Unix seconds, rounded down; raises `presign.clock_disagrees`.

        What the caller reads afterwards is at least as new as this moment, so it may stand as thisUpdate (A30). A slow
        answer of the database makes the comparison stricter in both directions, never laxer.
        """
        before = self._clock.now()
        theirs = await self._database_time(conn)
        after = self._clock.now()
        CLOCK_AHEAD.set(after - theirs)
        if after - theirs > TOLERANCE or theirs - before > TOLERANCE:
            raise QuashError(
                "presign.clock_disagrees",
                f"this machine's clock is {after - theirs:+.1f} s from the database's: repair time synchronisation;"
                " nothing is signed until then",
                Kind.UNAVAILABLE,
            )
        return int(before)
