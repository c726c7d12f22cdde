"""The cache's states, on a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quash.cache.reader import CacheState
from quash.runtime.clock import FakeClock
from responder.serve.freshness import Freshness, Limits, assess

LIMITS = Limits(fresh=60, unready=7_200, good=86_400)


def state(heartbeat: int | None, *, complete: bool = True) -> CacheState:
    """A cache whose newest heartbeat is `heartbeat`."""
    return CacheState(heartbeat, complete, (1, 1))


async def test_a_cache_grows_old_by_steps() -> None:
    """Without a heartbeat: fresh for 60 s, stale for 2 h, unready for 24 h, then too old."""
    clock = FakeClock()
    heartbeat = int(clock.now())
    seen = []
    for seconds in (0, 60, 1, 7_139, 1, 79_199, 1):
        await clock.advance(seconds)
        seen.append(assess(state(heartbeat), clock.now(), LIMITS))
    fresh, stale, unready, old = Freshness.FRESH, Freshness.STALE, Freshness.UNREADY, Freshness.TOO_OLD
    assert seen == [fresh, fresh, stale, stale, unready, unready, old]
    assert assess(state(int(clock.now())), clock.now(), LIMITS) is Freshness.FRESH


@pytest.mark.parametrize("unknown", [None, state(None), state(1_800_000_000, complete=False)])
def test_a_cache_that_never_was_complete_is_being_filled(unknown: CacheState | None) -> None:
    """No file, no heartbeat, or the feed's head not reached yet: nothing but `revoked` is believed."""
    assert assess(unknown, 1_800_000_000, LIMITS) is Freshness.FILLING


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_an_older_cache_never_permits_more(a: int, b: int) -> None:
    """Readiness, `good` and answers by a miss are only ever taken away as time goes on."""
    younger, older = (assess(state(0), age, LIMITS) for age in sorted((a, b)))
    for permission in ("ready", "serves_good", "knows_misses"):
        assert getattr(younger, permission) >= getattr(older, permission)


def test_what_each_state_permits() -> None:
    """The table of the design: ready, serves good, knows misses."""
    assert {f.label: (f.ready, f.serves_good, f.knows_misses) for f in Freshness} == {
        "fresh": (True, True, True),
        "stale": (True, True, False),
        "unready": (False, True, False),
        "too_old": (False, False, False),
        "filling": (False, False, False),
    }
