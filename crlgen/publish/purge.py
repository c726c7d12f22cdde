"""Purge hooks: caches in front of us are asked to forget what was replaced, after it was published (G1).

A purge is a courtesy to a cache that would let go by itself after `max-age`: it never holds up or undoes a publication,
is retried until then, and dropped afterwards. What is waiting is forgotten with the process; a builder that starts
purges every CRL once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aiohttp import ClientError, ClientSession, ClientTimeout
from prometheus_client import Counter, Gauge

from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Purge

MAX_AGE = 1800.0
"""Seconds after which every cache has let go by itself."""
_LONGEST_RETRY = 60.0

_PURGED = Counter("quash_purge_urls_total", "URLs that a purge hook took or that were given up", ["hook", "result"])
_WAITING = Gauge("quash_purge_waiting", "URLs that wait to be purged", ["hook"])


class Sender(Protocol):
    """Posts one purge request; raises `purge.failed` unless the hook took it."""

    async def send(self, hook: Purge, body: Mapping[str, Any]) -> None: ...


class Webhook:
    """A `Sender` over HTTP. The hook's token is read from its file at each request, so that it can be replaced."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def send(self, hook: Purge, body: Mapping[str, Any]) -> None:
        try:
            headers = {"Authorization": f"Bearer {_token(hook.token_file)}"} if hook.token_file else {}
            timeout = ClientTimeout(total=hook.timeout)
            async with self._session.post(
                hook.url, json=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                if answer.status >= 300:
                    raise _failed(hook, f"status {answer.status}")
        except (ClientError, OSError, TimeoutError, ValueError) as error:
            raise _failed(hook, type(error).__name__) from error


def _token(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip()


def _failed(hook: Purge, why: str) -> QuashError:
    return QuashError("purge.failed", f"the purge hook {hook.url} did not take it: {why}", Kind.UNAVAILABLE)


@dataclass(slots=True)
class _Queue:
    """What one hook has yet to be told: URL -> (tag, when it may be purged), in the order in which it was added.

    CRLs go before `answers` of OCSP, of which a mass revocation leaves more than the rate allows for.
    """

    hook: Purge
    crls: dict[str, tuple[str, float]] = field(default_factory=dict)
    answers: dict[str, tuple[str, float]] = field(default_factory=dict)
    next_at: float = 0.0
    failures: int = 0

    @property
    def lanes(self) -> tuple[dict[str, tuple[str, float]], ...]:
        return self.crls, self.answers

    def __len__(self) -> int:
        return len(self.crls) + len(self.answers)

    @property
    def most(self) -> int:
        """URLs that the rate allows for before caches let go by themselves: more would only fill the memory."""
        return int(self.hook.batch * self.hook.per_second * MAX_AGE) + self.hook.batch

    def give_up(self, lane: dict[str, tuple[str, float]], urls: list[str]) -> None:
        for url in urls:
            del lane[url]
        if urls:
            _PURGED.labels(self.hook.url, "given up").inc(len(urls))


class Purger:
    """Sends purges in batches at each hook's rate; `problems` names the hooks that do not take them."""

    def __init__(self, hooks: Sequence[Purge], sender: Sender, clock: Clock) -> None:
        self._queues = [_Queue(hook) for hook in hooks]
        self._sender = sender
        self._clock = clock
        self.problems: dict[str, str] = {}

    @property
    def wants_ocsp(self) -> bool:
        """Whether any hook takes the URLs of OCSP answers."""
        return any(queue.hook.ocsp for queue in self._queues)

    def add(self, urls: Iterable[str], tag: str, *, ocsp: bool = False, after: float = 0.0) -> None:
        """Has URLs purged, `after` so many seconds: a cache must not fetch what they still are.

        `tag`: what they have in common, for caches that purge by tag.
        """
        due = self._clock.monotonic() + after
        listed = list(urls)
        for queue in self._queues:
            if ocsp and not queue.hook.ocsp:
                continue
            lane = queue.answers if ocsp else queue.crls
            for url in listed:
                lane.pop(url, None)  # replaced again: to the end, since an earlier purge came too early
                lane[url] = (tag, due)
            queue.give_up(lane, list(itertools.islice(lane, max(0, len(lane) - queue.most))))
            _WAITING.labels(queue.hook.url).set(len(queue))

    async def step(self) -> int:
        """Sends every batch that is due now, at most one for each hook; returns how many URLs were taken."""
        return sum([await self._send(queue) for queue in self._queues])

    def pause(self) -> float:
        """Seconds, at most one, until the next batch is due."""
        waits = [queue.next_at - self._clock.monotonic() for queue in self._queues if len(queue)]
        return max(0.01, min([1.0, *waits]))

    async def _send(self, queue: _Queue) -> int:
        now, hook = self._clock.monotonic(), queue.hook
        self._drop_old(queue, now)
        if now < queue.next_at:
            return 0
        waiting = itertools.chain.from_iterable(lane.items() for lane in queue.lanes)
        due = ((url, known) for url, known in waiting if known[1] <= now)
        if not (batch := dict(itertools.islice(due, hook.batch))):
            return 0
        body = {"urls": list(batch), "tags": sorted({tag for tag, _ in batch.values()})}
        try:
            await self._sender.send(hook, body)
        except QuashError as error:
            queue.failures += 1
            queue.next_at = now + min(_LONGEST_RETRY, 2.0 ** min(queue.failures, 10))
            self.problems[hook.url] = str(error)
            return 0
        for url, known in batch.items():
            for lane in queue.lanes:
                if lane.get(url) == known:  # else it was replaced while the request was under way
                    del lane[url]
        queue.failures, queue.next_at = 0, now + 1 / hook.per_second
        self.problems.pop(hook.url, None)
        _PURGED.labels(hook.url, "taken").inc(len(batch))
        _WAITING.labels(hook.url).set(len(queue))
        return len(batch)

    def _drop_old(self, queue: _Queue, now: float) -> None:
        """Caches have let go by themselves. The oldest come first, within seconds, so this stops at the first young."""
        for lane in queue.lanes:
            queue.give_up(lane, list(itertools.takewhile(lambda url: lane[url][1] + MAX_AGE < now, lane)))  # noqa: B023
        _WAITING.labels(queue.hook.url).set(len(queue))
