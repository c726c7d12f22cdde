"""The HTTP skin of the responder on aiohttp's low-level server: sizes, time limits, and nothing about OCSP.

No router: the base64 of a GET holds slashes, and a router that normalises paths would lose some (A33).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from responder.serve.answer import INTERNAL_ERROR, Answer, Request, http_error

BODY_SECONDS = 10.0  # A40 is what we promise; a client that sends slower than this is not one
KEEPALIVE_SECONDS = 75.0  # also for a connection that has not sent a whole header yet
_LINGER_SECONDS = 2.0  # reading on after a 413, so that the client sees the answer instead of a reset
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Answers = Callable[[Request], Answer]


class HttpServer(web.Server):
    """Answers each request with `answers`; `max_header` and `max_body` in octets; a body takes `body_seconds`.

    `draining`: set it to have every further answer carry `Connection: close`.
    """

    def __init__(self, answers: Answers, *, max_header: int, max_body: int, body_seconds: float = BODY_SECONDS) -> None:
        super().__init__(self._handle)
        self.draining = False
        self._answers = answers
        self._max_header = max_header
        self._max_body = max_body
        self._body_seconds = body_seconds

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=self._loop,
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            auto_decompress=False,  # a compressed body would be a way around max_body
            max_line_size=self._max_header,
            max_field_size=self._max_header + 1,  # another number, so that LineTooLong tells which it was
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = await self._answer(request)
        response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        if answer.close or self.draining:
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> Answer:
        body = b""
        if request.method == "POST":
            if (request.content_length or 0) > self._max_body:
                return http_error(413)
            try:
                body = await self._read(request)
            except TimeoutError:
                return http_error(408)
            except web.RequestPayloadError:
                return http_error(400)
        return self._answers(
            Request(
                request.method,
                request.raw_path.encode("utf-8", "surrogateescape"),
                body,
                request.headers.get("If-None-Match", ""),
                request.headers.get("If-Modified-Since", ""),
            )
        )

    async def _read(self, request: web.BaseRequest) -> bytes:
        """The body, or as soon as it is larger than the limit, as much as came."""
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(_CONTINUE)
        body = b""
        async with asyncio.timeout(self._body_seconds):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > self._max_body:
                    break
        return body


class _Connection(web.RequestHandler):
    """aiohttp's connection, with our answers to what its parser refuses."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, LineTooLong):
            status = 414 if exc.args[1] == self.max_line_size else 431
        if status == 500:
            self.log_exception("responder.unforeseen", exc_info=exc)
        answer = INTERNAL_ERROR if status == 500 else http_error(status)
        response = web.Response(status=status, headers=answer.headers, body=answer.body)
        response.force_close()
        return response
