"""One worker of the responder: its view of the cache, once a second, and its answers, counted."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge

from quash.cache.reader import CacheReader, CacheState
from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.process import Health
from responder.serve.answer import UNKNOWN_SIGNER, Answer, Limits, Request, Responder
from responder.serve.fast import FastPath
from responder.serve.freshness import Freshness, assess
from responder.serve.freshness import Limits as FreshnessLimits
from responder.serve.view import View, directory_of

ANSWERS = Counter(
    "quash_ocsp_answers_total",
    "OCSP answers by path (fast, full), method, HTTP status, outcome and the CertID hash that the client used (A20)",
    ["source", "method", "status", "outcome", "hash"],
)
FRESHNESS = Gauge("quash_ocsp_cache_freshness", "1 for the state that the cache is in", ["state"])
HEARTBEAT_AGE = Gauge("quash_ocsp_heartbeat_age_seconds", "Age of the newest heartbeat in the cache")

_METHODS = {"GET": "GET", "HEAD": "HEAD", "POST": "POST"}  # a client chooses no metric label of ours


class Worker:
    """Answers from the cache alone, so its health depends on nothing else: a late CRL never takes OCSP away."""

    def __init__(self, reader: CacheReader, clock: Clock, config: Config, health: Health, log: Any) -> None:
        self._reader = reader
        self._clock = clock
        limits = config.responder
        self._limits = FreshnessLimits(limits.fresh_seconds, limits.unready_seconds, limits.good_seconds)
        self._health = health
        self._log = log
        self._generation: tuple[int, int] | None = None
        self._freshness: Freshness | None = None
        sizes = Limits(limits.max_header, limits.max_body, config.presign.refresh_every)
        self.responder = Responder(reader.get, sizes)
        self.fast = FastPath(self.responder, reader.get, clock.now)
        health.set("cache", ok=False, detail="not read yet")

    def answer(self, request: Request) -> Answer:
        """Answers and counts; takes a new look at the catalog first when a record's signer is not in it yet."""
        now = self._clock.now()
        answer = self.responder.answer(request, now)
        if answer.outcome == UNKNOWN_SIGNER:
            self.refresh()
            answer = self.responder.answer(request, now)
        method = _METHODS.get(request.method, "other")
        ANSWERS.labels("full", method, answer.status, answer.outcome, answer.hash).inc()
        return answer

    def count(self) -> None:
        """Adds what the fast path has answered to the metrics."""
        for method, outcome, hash_name, answers in self.fast.take_counts():
            ANSWERS.labels("fast", method, 200, outcome, hash_name).inc(answers)

    def refresh(self) -> None:
        """Takes note of a new heartbeat, a changed catalog, a replaced file. For once a second.

        The view stays the same object as long as nothing in it changes: memos hang on it.
        """
        state, problem = None, ""
        try:
            state = self._reader.state()
            if state.generation != self._generation:
                directory = directory_of(self._reader.catalog())
                self.responder.view = View(directory, Freshness.FILLING)  # until `_note`, a few lines on
                self._generation = state.generation
        except QuashError as error:
            state, problem = None, error.message
        self._note(state, problem)

    def _note(self, state: CacheState | None, problem: str) -> None:
        now = self._clock.now()
        freshness = assess(state, now, self._limits)
        if freshness is not self.responder.view.freshness:
            self.responder.view = View(self.responder.view.directory, freshness)
        self._health.set("cache", ok=freshness.ready, detail=problem or freshness.label)
        if freshness is not self._freshness:
            level = self._log.info if freshness is Freshness.FRESH else self._log.warning
            level("responder.cache", freshness=freshness.label, problem=problem)
            self._freshness = freshness
        for each in Freshness:
            FRESHNESS.labels(each.label).set(each is freshness)
        if state is not None and state.heartbeat is not None:
            HEARTBEAT_AGE.set(now - state.heartbeat)
