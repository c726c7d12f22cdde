"""The cache's states, on a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quash.cache.reader import CacheState
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.log import logger
from quash.runtime.process import Health
from responder.serve.freshness import Freshness, Limits, assess
from responder.serve.worker import Worker
from tests.unit.serve.in_memory import NOW, DictReader

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


def test_a_clock_that_is_behind_makes_no_cache_fresh() -> None:
    """A heartbeat from further ahead than clocks may differ: stale, since nobody knows how old it is."""
    now = 1_800_000_000
    assert assess(state(now + 60), now, LIMITS) is Freshness.FRESH
    assert assess(state(now + 61), now, LIMITS) is Freshness.STALE
    assert assess(state(now + 61), now, LIMITS, unchanged=7_201) is Freshness.UNREADY


async def test_clock_behind() -> None:
    """A node's clock is set back two days and its follower applies nothing: it grows stale, unready and too old."""
    clock, reader = FakeClock(NOW), DictReader({})
    health = Health()
    worker = Worker(reader, clock, Config(), health, logger())

    def label() -> str:
        worker.refresh()
        return worker.responder.view.freshness.label

    for _ in range(3):
        await clock.advance(1)
        reader.heartbeat += 1
        assert label() == "fresh"
    clock.step(-2 * 86_400)
    assert label() == "stale"
    seen = []
    for seconds in (60, 7_141, 79_200):
        await clock.advance(seconds)
        seen.append((label(), health.ready))
    assert seen == [("stale", True), ("unready", False), ("too_old", False)]
    clock.step(2 * 86_400)
    assert label() == "too_old"
    reader.heartbeat = int(clock.now())
    assert label() == "fresh"


async def test_a_clock_that_is_set_back_a_little_hides_no_age() -> None:
    """The heartbeat is as old as the worker has seen it unchanged, whatever the time of day says."""
    clock, reader = FakeClock(NOW), DictReader({})
    worker = Worker(reader, clock, Config(), Health(), logger())
    worker.refresh()
    for _ in range(6):
        await clock.advance(20)
        clock.step(-20)
        worker.refresh()
    assert worker.responder.view.freshness is Freshness.STALE


def test_what_each_state_permits() -> None:
    """The table of the design: ready, serves good, knows misses."""
    assert {f.label: (f.ready, f.serves_good, f.knows_misses) for f in Freshness} == {
        "fresh": (True, True, True),
        "stale": (True, True, False),
        "unready": (False, True, False),
        "too_old": (False, False, False),
        "filling": (False, False, False),
    }
