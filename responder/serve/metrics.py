"""What a worker counts, at the cost of one addition for an answer of the fast path.

Labels are our own words and issuers' names: no client chooses one. The age of an answer is now - thisUpdate.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, NamedTuple

from prometheus_client import REGISTRY, Counter
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from responder.serve.answer import SIGNED, Answer

HOUR = 3600
AGES = (60, 600, HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR, 16 * HOUR, 20 * HOUR, 23 * HOUR, 24 * HOUR, 48 * HOUR)
"""Seconds, each the last of its bucket: A4 refreshes at 20 hours and alarms at 23, G3 is broken at 24."""

ANSWERS = Counter(
    "quash_ocsp_answers_total",
    "HTTP answers by source (fast, full, live), method, HTTP status, outcome, CertID hash (A20) and issuer",
    ["source", "method", "status", "outcome", "hash", "issuer"],
)
ERRORS = Counter(
    "quash_ocsp_errors_total",
    "Answers without a signature: what they said, and why",
    ["outcome", "cause", "issuer"],
)
LATE = Counter(
    "quash_ocsp_late_answers_total",
    "Signed answers that a newer one should have replaced: older than 23 h, or than their validity allows (A2 to A4)",
    ["issuer"],
)

_METHODS = {"GET": "GET", "HEAD": "HEAD", "POST": "POST"}


class Tally(NamedTuple):
    """What signed answers of the fast path are told apart by. `age`: a bucket of AGES, the last one for older ones.

    `late`: a newer one should have replaced it.
    """

    method: str
    outcome: str
    hash: str
    issuer: str
    age: int
    late: bool


def is_late(answer: Answer, now: float) -> bool:
    return 0 < answer.late_at <= now


def age_bucket(age: int) -> int:
    return bisect_left(AGES, age)


def age_changes(this_update: int, bucket: int) -> int:
    """The Unix second from which an answer's age is in the next bucket, if ever."""
    return this_update + AGES[bucket] + 1 if bucket < len(AGES) else sys.maxsize


def count_answer(source: str, method: str, answer: Answer, now: float) -> None:
    """Of full path and live signer."""
    ANSWERS.labels(
        source, _METHODS.get(method, "other"), answer.status, answer.outcome, answer.hash, answer.issuer
    ).inc()
    if answer.cause:
        ERRORS.labels(answer.outcome, answer.cause, answer.issuer).inc()
    elif answer.outcome in SIGNED:
        ages.add(answer.issuer, age_bucket(int(now) - answer.this_update), 1)
        LATE.labels(answer.issuer).inc(is_late(answer, now))


def count_fast(tally: Tally, answers: int) -> None:
    """Of the fast path, many at once."""
    ANSWERS.labels("fast", tally.method, 200, tally.outcome, tally.hash, tally.issuer).inc(answers)
    ages.add(tally.issuer, tally.age, answers)
    LATE.labels(tally.issuer).inc(answers if tally.late else 0)


def count_refusal(answer: Answer) -> None:
    """Of HTTP errors that no answer was looked for."""
    count_answer("full", "", answer, 0)


class Ages(Collector):
    """A histogram that takes many observations at once; its sum takes each for the middle of its bucket."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}

    def add(self, issuer: str, bucket: int, answers: int) -> None:
        self._counts.setdefault(issuer, [0] * (len(AGES) + 1))[bucket] += answers

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(
            "quash_ocsp_answer_age_seconds",
            "Age of signed answers when they were given; the sum is about right",
            labels=["issuer"],
        )
        for issuer, counts in self._counts.items():
            family.add_metric([issuer], *_cumulated(counts))
        yield family


def _cumulated(counts: list[int]) -> tuple[list[Any], float]:
    bounds = (*map(float, AGES), float("inf"))
    middles = [(low + high) / 2 for low, high in zip((0, *AGES), (*AGES, AGES[-1]), strict=True)]
    total, buckets = 0, []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        buckets.append((str(bound) if bound != float("inf") else "+Inf", float(total)))
    return buckets, sum(count * middle for count, middle in zip(counts, middles, strict=True))


ages = Ages()
REGISTRY.register(ages)
