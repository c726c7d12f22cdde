"""One connection: the fast path in front of aiohttp's protocol, and what a client may cost a worker.

A connection begins on the fast path and leaves it for ever with the first octet that goes to aiohttp. So no octets are
read by both, and nothing that aiohttp takes for a body is answered as a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice, takewhile
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from prometheus_client import Counter

from quash.runtime.config import Responder as ResponderConfig
from responder.serve.adapter import AdaptedConnection, has_too_many_fields, is_unknown_method
from responder.serve.answer import INTERNAL_ERROR, METHOD_NOT_ALLOWED, Answer, http_error
from responder.serve.fast import FastPath
from responder.serve.metrics import count_refusal

ENDED = Counter(
    "quash_ocsp_connections_ended_total",
    "Connections that a worker ended: header not complete in time, answers not read in time, too many at once",
    ["cause"],
)


_LOOKED_AT = 64  # idle connections, the oldest ones, among which the longest idle one is looked for


class Guard:
    """The connections of one worker: which there are, and which of them keep it waiting, longest first."""

    def __init__(self, limits: ResponderConfig) -> None:
        self.limits = limits
        self._open: dict[Connection, None] = {}  # as a set, oldest first
        self._slow: dict[Connection, float] = {}  # without a complete header, since when
        self._stalled: dict[Connection, float] = {}  # do not read what was written, since when

    def admit(self, connection: Connection, now: float) -> None:
        """Notes a new connection; beyond the limit the slowest one goes for it, an idle one, or it goes itself."""
        if len(self._open) >= self.limits.max_connections:
            leaving = next(iter(self._slow), None) or self._longest_idle() or connection
            self._slow.pop(leaving, None)
            _end(leaving, "connections")
        self._open[connection] = None
        if not connection.wire.is_closing():
            self._slow[connection] = now

    def _longest_idle(self) -> Connection | None:
        """Among the oldest idle ones alone: who opens connections by the thousand shall not make each cost as much."""
        idle = (each for each in self._open if each.is_idle and each not in self._stalled)
        return min(islice(idle, _LOOKED_AT), key=lambda each: each.idle_until, default=None)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._open)

    def forget(self, connection: Connection) -> None:
        self._open.pop(connection, None)
        self._slow.pop(connection, None)
        self._stalled.pop(connection, None)

    def await_head(self, connection: Connection, now: float) -> None:
        """Its next header has begun, unless that was noted before."""
        self._slow.setdefault(connection, now)

    def head_complete(self, connection: Connection) -> None:
        self._slow.pop(connection, None)

    def stalled(self, connection: Connection, now: float) -> None:
        self._stalled[connection] = now

    def reads_again(self, connection: Connection) -> None:
        self._stalled.pop(connection, None)

    def sweep(self, now: float) -> None:
        """Ends the connections whose time is over at `now`, the event loop's time."""
        for kept_waiting, seconds, cause in (
            (self._slow, self.limits.header_seconds, "header"),
            (self._stalled, self.limits.stall_seconds, "stall"),
        ):
            for connection, _ in list(takewhile(lambda item: now - item[1] >= seconds, kept_waiting.items())):  # noqa: B023
                _end(connection, cause)


def _end(connection: Connection, cause: str) -> None:
    """Nothing more is written to a client that does not read; the others see an orderly end."""
    ENDED.labels(cause).inc()
    if cause == "stall":
        connection.wire.abort()
    else:
        connection.force_close()


class Connection(AdaptedConnection):
    """Fast path, limits, and our answers to what aiohttp's parser refuses."""

    __slots__ = ("_guard", "_head_octets", "_line_is_cut", "_respond")

    def __init__(
        self,
        manager: web.Server,
        guard: Guard,
        fast: FastPath | None,
        respond: Callable[[Answer], web.Response],
        **aiohttp: Any,
    ) -> None:
        super().__init__(manager, **aiohttp)
        self._guard = guard
        self._respond = respond
        self.beside = fast.entry if fast is not None and guard.limits.max_requests > 1 else None
        self.tell_at = 1
        self._head_octets = 0
        self._line_is_cut = False

    @property
    def is_over(self) -> bool:
        """Whether it has had its requests; those that it sent ahead are answered yet, up to as many again."""
        limit = self._guard.limits.max_requests
        if not self.has_more:
            return self.ended or self.requests >= limit
        return self.requests >= 2 * limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._guard.admit(self, self.seconds)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._guard.forget(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._guard.stalled(self, self.seconds)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._guard.reads_again(self)

    def answered_beside(self, count: int) -> None:
        """After the first request, and when aiohttp is to answer the last one, with `Connection: close`."""
        self._head_is_complete()
        self.tell_at = self._guard.limits.max_requests - 1
        if count >= self.tell_at:
            self.beside = None

    def read(self, data: bytes) -> None:
        """The full path. Time and size of a header are limited as a whole: aiohttp limits its lines."""
        before = self.requests
        self._line_is_cut = b"\n" not in data
        super().read(data)
        if self.requests != before:
            self._head_is_complete()
        elif data and self.awaits_head:
            self._guard.await_head(self, self.seconds)
            self._head_octets += len(data)
            if self._head_octets > self._guard.limits.max_header:
                self.refuse(LineTooLong(b"", self.max_field_size))

    def _head_is_complete(self) -> None:
        self._head_octets = 0
        self._guard.head_complete(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, LineTooLong):
            status = 414 if exc.args[1] == self.max_line_size else 431
        elif has_too_many_fields(exc):
            status = 431
        if status == 500:
            self.log_exception("responder.unforeseen", exc_info=exc)
        if is_unknown_method(exc, cut=self._line_is_cut):
            answer = METHOD_NOT_ALLOWED
        else:
            answer = INTERNAL_ERROR if status == 500 else http_error(status)
        count_refusal(answer)
        written = self._respond(answer)
        written.force_close()
        return written
