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
    """What one hook has yet to be told: URL -> (tag, when it may be purged), in the order in which it was added."""

    hook: Purge
    urls: dict[str, tuple[str, float]] = field(default_factory=dict)
    next_at: float = 0.0
    failures: int = 0


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
            for url in listed:
                queue.urls.pop(url, None)  # replaced again: to the end, since an earlier purge came too early
                queue.urls[url] = (tag, due)
            _WAITING.labels(queue.hook.url).set(len(queue.urls))

    async def step(self) -> int:
        """Sends every batch that is due now, at most one for each hook; returns how many URLs were taken."""
        return sum([await self._send(queue) for queue in self._queues])

    def pause(self) -> float:
        """Seconds, at most one, until the next batch is due."""
        waits = [queue.next_at - self._clock.monotonic() for queue in self._queues if queue.urls]
        return max(0.01, min([1.0, *waits]))

    async def _send(self, queue: _Queue) -> int:
        now, hook = self._clock.monotonic(), queue.hook
        self._drop_old(queue, now)
        if now < queue.next_at:
            return 0
        due = ((url, known) for url, known in queue.urls.items() if known[1] <= now)
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
            if queue.urls.get(url) == known:  # else it was replaced while the request was under way
                del queue.urls[url]
        queue.failures, queue.next_at = 0, now + 1 / hook.per_second
        self.problems.pop(hook.url, None)
        _PURGED.labels(hook.url, "taken").inc(len(batch))
        _WAITING.labels(hook.url).set(len(queue.urls))
        return len(batch)

    def _drop_old(self, queue: _Queue, now: float) -> None:
        """Caches have let go by themselves. The oldest come first, within seconds, so this stops at the first young."""
        old = list(itertools.takewhile(lambda url: queue.urls[url][1] + MAX_AGE < now, queue.urls))
        for url in old:
            del queue.urls[url]
        if old:
            _PURGED.labels(queue.hook.url, "given up").inc(len(old))
            _WAITING.labels(queue.hook.url).set(len(queue.urls))
