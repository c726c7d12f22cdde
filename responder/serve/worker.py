"""One worker of the responder: its view of the cache, once a second, and its answers, counted."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge

from quash.cache.reader import CacheReader, CacheState
from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Responder as ResponderConfig
from quash.runtime.process import Health
from responder.serve.answer import UNKNOWN_SIGNER, Answer, Limits, Request, Responder
from responder.serve.freshness import Freshness, assess
from responder.serve.freshness import Limits as FreshnessLimits
from responder.serve.view import View, directory_of

ANSWERS = Counter(
    "quash_ocsp_answers_total",
    "OCSP answers by method, HTTP status, outcome and the CertID hash that the client used (A20)",
    ["method", "status", "outcome", "hash"],
)
FRESHNESS = Gauge("quash_ocsp_cache_freshness", "1 for the state that the cache is in", ["state"])
HEARTBEAT_AGE = Gauge("quash_ocsp_heartbeat_age_seconds", "Age of the newest heartbeat in the cache")

_METHODS = {"GET": "GET", "HEAD": "HEAD", "POST": "POST"}  # a client chooses no metric label of ours


class Worker:
    """Answers from the cache alone, so its health depends on nothing else: a late CRL never takes OCSP away."""

    def __init__(self, reader: CacheReader, clock: Clock, config: ResponderConfig, health: Health, log: Any) -> None:
        self._reader = reader
        self._clock = clock
        self._limits = FreshnessLimits(config.fresh_seconds, config.unready_seconds, config.good_seconds)
        self._health = health
        self._log = log
        self._generation: tuple[int, int] | None = None
        self._freshness: Freshness | None = None
        self.responder = Responder(reader.get, Limits(config.max_header, config.max_body))
        health.set("cache", ok=False, detail="not read yet")

    def answer(self, request: Request) -> Answer:
        """Answers and counts; takes a new look at the catalog first when a record's signer is not in it yet."""
        now = self._clock.now()
        answer = self.responder.answer(request, now)
        if answer.outcome == UNKNOWN_SIGNER:
            self.refresh()
            answer = self.responder.answer(request, now)
        ANSWERS.labels(_METHODS.get(request.method, "other"), answer.status, answer.outcome, answer.hash).inc()
        return answer

    def refresh(self) -> None:
        """Takes note of a new heartbeat, a changed catalog, a replaced file. For once a second."""
        state, problem = None, ""
        try:
            state = self._reader.state()
            if state.generation != self._generation:
                directory = directory_of(self._reader.catalog())
                self.responder.view = View(directory, Freshness.FILLING)
                self._generation = state.generation
        except QuashError as error:
            state, problem = None, error.message
        self._note(state, problem)

    def _note(self, state: CacheState | None, problem: str) -> None:
        now = self._clock.now()
        freshness = assess(state, now, self._limits)
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
