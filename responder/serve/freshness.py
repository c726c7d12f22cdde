"""How far a node's cache may be believed: a state machine over the age of the newest applied heartbeat."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from quash.cache.reader import CacheState
from quash.runtime.clock import AHEAD


@dataclass(frozen=True, slots=True)
class Limits:
    """Ages in seconds of the newest applied heartbeat, each the last one at which the state before still holds.

    `ahead`: how far it may lie ahead of our clock, which else is behind: then nobody knows how old it is.
    """

    fresh: int
    unready: int
    good: int
    ahead: int = AHEAD


class Freshness(Enum):
    """What each state permits: (ready for a load balancer, `good` is served, a miss is an answer).

    `revoked` is served in every state until its nextUpdate: it does not become untrue. A miss is an answer
    (unauthorized, A9) only while the cache holds everything; else it is tryLater.
    """

    FRESH = ("fresh", True, True, True)
    STALE = ("stale", True, True, False)
    UNREADY = ("unready", False, True, False)
    TOO_OLD = ("too_old", False, False, False)
    # Still being filled for the first time: a `good` that is there may be one whose revocation is yet to be applied.
    FILLING = ("filling", False, False, False)

    def __init__(self, label: str, ready: bool, serves_good: bool, knows_misses: bool) -> None:
        self.label = label
        self.ready = ready
        self.serves_good = serves_good
        self.knows_misses = knows_misses


def assess(state: CacheState | None, now: float, limits: Limits, unchanged: float = 0.0) -> Freshness:
    """The state of a cache; None: it cannot be read.

    `unchanged`: seconds for which no newer heartbeat came, by a clock that nobody sets: the heartbeat is at least that
    old. One ahead of `now` counts as new within the tolerance, beyond it as stale.
    """
    if state is None or not state.complete or state.heartbeat is None:
        return Freshness.FILLING
    age = max(now - state.heartbeat, unchanged)
    if now < state.heartbeat - limits.ahead:
        age = max(age, limits.fresh + 1)
    for limit, freshness in (
        (limits.fresh, Freshness.FRESH),
        (limits.unready, Freshness.STALE),
        (limits.good, Freshness.UNREADY),
    ):
        if age <= limit:
            return freshness
    return Freshness.TOO_OLD
