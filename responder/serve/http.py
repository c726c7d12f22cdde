"""The HTTP skin of the responder on aiohttp's low-level server: sizes, time limits, and nothing about OCSP.

No router: the base64 of a GET holds slashes, and a router that normalises paths would lose some (A33).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, web

from quash.runtime.config import Responder as ResponderConfig
from responder.serve.answer import ENCODED, Answer, Request, http_error
from responder.serve.connection import Connection, Guard
from responder.serve.fast import FastPath
from responder.serve.metrics import count_refusal
from responder.serve.wire import response

_LINGER_SECONDS = 2.0  # reading on after a 413, so that the client sees the answer instead of a reset
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Answers = Callable[[Request], Answer]
Live = Callable[[str, Answer], Awaitable[Answer]]


class HttpServer(web.Server):
    """Answers each request with `answers`, and plain ones at once with `fast` when it is given.

    An answer with an `ask` goes through `live` first, with the request's method. `now`: Unix time.

    `guard` keeps the time limits of connections: call its `sweep` about once a second.
    """

    def __init__(
        self,
        answers: Answers,
        limits: ResponderConfig,
        *,
        now: Callable[[], float],
        fast: FastPath | None = None,
        live: Live | None = None,
    ) -> None:
        super().__init__(self._handle)
        self.guard = Guard(limits)
        self.draining = False
        self._answers = answers
        self._limits = limits
        self._now = now
        self._fast = fast
        self._live = live

    def __call__(self) -> web.RequestHandler:
        return Connection(
            self,
            self.guard,
            None if self.draining else self._fast,
            self.respond,
            loop=self._loop,
            access_log=None,
            keepalive_timeout=self._limits.idle_seconds,
            lingering_time=_LINGER_SECONDS,
            auto_decompress=False,  # a compressed body would be a way around max_body
            max_line_size=self._limits.max_header,
            max_field_size=self._limits.max_header + 1,  # another number, so that LineTooLong tells which it was
        )

    def drain(self) -> None:
        """From now on every answer carries `Connection: close`, but for those that more requests came with."""
        self.draining = True
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.beside = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = await self._answer(request)
        if answer.ask is not None and self._live is not None:
            answer = await self._live(request.method, answer)
        written = self.respond(answer)
        if (self.draining and not _has_more(request)) or _is_over(request):
            written.force_close()
        return written

    def respond(self, answer: Answer) -> web.Response:
        """What aiohttp is to write."""
        written = response(answer, self._now())
        if answer.close:
            written.force_close()
        return written

    async def _answer(self, request: web.BaseRequest) -> Answer:
        body = b""
        if _head_octets(request) > self._limits.max_header:
            return _counted(http_error(431))
        if request.method == "POST":
            if request.headers.get("Content-Encoding", "identity").lower() != "identity":
                return _counted(ENCODED)
            if (request.content_length or 0) > self._limits.max_body:
                return _counted(http_error(413))
            try:
                body = await self._read(request)
            except TimeoutError:
                return _counted(http_error(408))
            except (web.RequestPayloadError, ConnectionError):  # no body, or nobody left who hears this
                return _counted(http_error(400))
        return self._answers(
            Request(
                request.method,
                request.raw_path.encode("utf-8", "surrogateescape"),
                body,
                ", ".join(request.headers.getall("If-None-Match", ())),
                request.headers.get("If-Modified-Since", ""),
            )
        )

    async def _read(self, request: web.BaseRequest) -> bytes:
        """The body, or as soon as it is larger than the limit, as much as came."""
        # HTTP/1.0 knows no such answer (RFC 9110 10.1.1).
        expects = request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue"
        if expects and request.transport is not None:
            request.transport.write(_CONTINUE)
        body = b""
        async with asyncio.timeout(self._limits.body_seconds):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > self._limits.max_body:
                    break
        return body


def _counted(refusal: Answer) -> Answer:
    count_refusal(refusal)
    return refusal


def _has_more(request: web.BaseRequest) -> bool:
    return isinstance(request.protocol, Connection) and request.protocol.has_more


def _is_over(request: web.BaseRequest) -> bool:
    return isinstance(request.protocol, Connection) and request.protocol.is_over


def _head_octets(request: web.BaseRequest) -> int:
    """Of request target and header fields together, about as sent."""
    return len(request.raw_path) + sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
