"""One worker of the responder: its view of the cache, once a second, and its answers, counted."""

from __future__ import annotations

from typing import Any

from prometheus_client import Gauge

from quash.cache.reader import CacheReader, CacheState
from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.process import Health
from responder.serve.access_log import AccessLog, described
from responder.serve.answer import SIGNED, Answer, Limits, Request, Responder
from responder.serve.fast import FastPath
from responder.serve.freshness import Freshness, assess
from responder.serve.freshness import Limits as FreshnessLimits
from responder.serve.live import LiveClient
from responder.serve.metrics import count_answer, count_fast
from responder.serve.view import View, directory_of

FRESHNESS = Gauge("quash_ocsp_cache_freshness", "1 for the state that the cache is in", ["state"])
HEARTBEAT_AGE = Gauge(
    "quash_ocsp_heartbeat_age_seconds", "Age of the newest heartbeat in the cache; far below 0: this clock is behind"
)


class Worker:
    """Answers from the cache alone, so its health depends on nothing else: a late CRL never takes OCSP away."""

    def __init__(
        self,
        reader: CacheReader,
        clock: Clock,
        config: Config,
        health: Health,
        log: Any,
        *,
        live: LiveClient | None = None,
    ) -> None:
        self._reader = reader
        self._clock = clock
        limits = config.responder
        self._limits = FreshnessLimits(limits.fresh_seconds, limits.unready_seconds, limits.good_seconds)
        self._health = health
        self._log = log
        self._generation: tuple[int, int] | None = None
        self._freshness: Freshness | None = None
        self._heartbeat: int | None = None
        self._heartbeat_seen = clock.monotonic()
        self._live = live
        self._sign_nonces = config.nonce_signers if live else frozenset()
        sizes = Limits(limits.max_header, limits.max_body, config.presign.refresh_every, limits.live.certificates)
        self.responder = Responder(reader.get, sizes)
        self._access_log = AccessLog(log, limits.access_log_every)
        self.fast = FastPath(self.responder, reader.get, clock.now, self._access_log)
        health.set("cache", ok=False, detail="not read yet")

    def answer(self, request: Request) -> Answer:
        """Answers and counts; where there is no signed answer, perhaps of an issuer or signer that came this second."""
        now = self._clock.now()
        answer = self.responder.answer(request, now)
        if answer.outcome not in SIGNED and self._catalog_changed():
            self.refresh()
            answer = self.responder.answer(request, now)
        if answer.ask is None or self._live is None:
            self._count("full", request.method, answer)
        return answer

    def _catalog_changed(self) -> bool:
        try:
            return self._reader.state().generation != self._generation
        except QuashError:
            return False

    async def answer_live(self, method: str, answer: Answer) -> Answer:
        """Asks the live signer where that may do better, and counts."""
        if answer.ask is None or self._live is None:
            return answer
        signed = await self._live.answer(answer)
        self._count("live" if signed is not answer else "full", method, signed)
        return signed

    def _count(self, source: str, method: str, answer: Answer) -> None:
        now = self._clock.now()
        count_answer(source, method, answer, now)
        if self._access_log.wants("full"):
            self._access_log.write(**described(source, method, answer, now))

    def count(self) -> None:
        """Adds what the fast path has answered to the metrics."""
        for tally, answers in self.fast.take_counts():
            count_fast(tally, answers)

    def refresh(self) -> None:
        """Takes note of a new heartbeat, a changed catalog, a replaced file. For once a second.

        The view stays the same object as long as nothing in it changes: memos hang on it.
        """
        state, problem = None, ""
        try:
            state = self._reader.state()
            if state.generation != self._generation:
                directory = directory_of(self._reader.catalog(), self._sign_nonces)
                self.responder.view = View(directory, Freshness.FILLING)  # until `_note`, a few lines on
                self._generation = state.generation
        except QuashError as error:
            state, problem = None, error.message
        self._note(state, problem)

    def _note(self, state: CacheState | None, problem: str) -> None:
        now = self._clock.now()
        freshness = assess(state, now, self._limits, self._unchanged(state))
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

    def _unchanged(self, state: CacheState | None) -> float:
        """Seconds since this worker saw the heartbeat change, whatever is done to the time of day."""
        now = self._clock.monotonic()
        if state is not None and state.heartbeat != self._heartbeat:
            self._heartbeat, self._heartbeat_seen = state.heartbeat, now
        return now - self._heartbeat_seen
