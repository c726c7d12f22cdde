"""The pace of a mass revocation: at most so many certificates a second, or evenly so as to be done by a moment."""

from __future__ import annotations

import math
from typing import Final

from quash.store.mass_jobs import MassJob

TAIL: Final = 60
"""Seconds before the moment at which the last batch is due: signing and CRLs follow it within these."""
_EVERY: Final = 1.0  # seconds between two batches, where the pace leaves a choice
_CATCH_UP: Final = 1.0  # seconds: a longer delay, as of a restart or a pause, is not made good by a burst


def rate(job: MassJob, now: float) -> float | None:
    """Certificates a second from `now` on; None: as fast as it can, also where the moment is too near."""
    if job.max_per_second is not None:
        return job.max_per_second
    if job.finish_by is None:
        return None
    left, seconds = (job.total or 0) - job.done, job.finish_by - TAIL - now
    return left / seconds if left > 0 and seconds > 0 else None


def batch(per_second: float | None, most: int) -> int:
    """How many certificates the next batch has: what a second allows, at least one, at most `most`."""
    return most if per_second is None else min(most, max(1, round(per_second * _EVERY)))


def next_at(per_second: float | None, count: int, before: float, now: float) -> float:
    """When the batch after one of `count` may begin, Unix seconds; `before`: when that one might."""
    if per_second is None:
        return now
    return (before if before >= now - _CATCH_UP else now) + count / per_second


def expected_at(job: MassJob, now: float) -> int | None:
    """When its last batch is done if it goes on as measured, Unix seconds; None: not running, or no rate yet."""
    return None if job.seconds_left is None else math.ceil(now + job.seconds_left)


def is_late(job: MassJob, now: float) -> bool:
    """Whether it misses the moment it is to be done by, as it goes; it aims at `TAIL` before, which is its leeway."""
    expected = expected_at(job, now)
    return job.finish_by is not None and expected is not None and expected > job.finish_by
