"""The one module that knows aiohttp from the inside: everything we rely on that its documentation does not say.

A subclass of aiohttp's protocol that can answer some requests beside it needs to know when it may, and must leave
aiohttp's own books right: keep-alive deadline, number of a connection's requests. A test compares `ATTRIBUTES` and the
code of `METHODS` with the installed release and fails when they are others, so that somebody looks.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, BadHttpMethod, HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

# What we read and write.
ATTRIBUTES = (
    *("transport", "_loop", "_paused", "_close", "_force_close", "_waiter", "_messages"),
    *("_request_count", "_keepalive_timeout", "_next_keepalive_close_time"),
)
# What we extend or call, and what must go on treating those attributes as it does.
METHODS = (
    *("__init__", "connection_made", "connection_lost", "data_received", "eof_received"),
    *("pause_writing", "resume_writing", "close", "force_close", "shutdown", "start"),
    *("_process_keepalive", "handle_error", "finish_response"),
)


# How its parser shows the request line whose method it does not know: all of it, or what a segment brought of it.
_METHOD = r"^ *b'[A-Za-z0-9!#$%&*+.^_`|~-]"
_UNKNOWN_METHOD = re.compile(_METHOD + r"* \S+ HTTP/1\.[01]'$", re.MULTILINE)
_UNKNOWN_SO_FAR = re.compile(_METHOD + r"*(?: \S*(?: [HTP/1.0]*(?:\\r)?)?)?'$", re.MULTILINE)


def is_unknown_method(error: BaseException | None, *, cut: bool) -> bool:
    """Whether the parser refused a request for its method alone, as far as it read: not for being no HTTP.

    `cut`: it had not got the end of the line yet; it refuses at the first octet of a method that it does not know.
    """
    shown = _UNKNOWN_SO_FAR if cut else _UNKNOWN_METHOD
    return isinstance(error, BadHttpMethod) and shown.search(error.message) is not None


def has_too_many_fields(error: BaseException | None) -> bool:
    """Whether the parser refused a header for the number of its fields, of which it has a limit of its own."""
    return isinstance(error, BadHttpMessage) and error.message == "Too many headers received"


class AdaptedConnection(web.RequestHandler):
    """One HTTP connection, whose requests `beside` answers as long as it can.

    `beside` takes what has just arrived and returns the whole answer to it, in parts, or None for what it leaves to
    aiohttp: these octets and, from then on, all others of the connection. Nor is it asked while an answer waits to be
    written or when the connection is about to close. `transport` is None once aiohttp has closed it, even with octets
    unsent.
    """

    __slots__ = ("_last_body", "beside", "ended", "tell_at", "wire")

    beside: Callable[[bytes], Sequence[bytes] | None] | None
    ended: bool
    """Whether the client sends no more, and waits for answers."""
    tell_at: int
    _last_body: StreamReader | None
    wire: asyncio.Transport
    """The transport, as long as there is one: until `connection_lost`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.ended, self._last_body = False, None
        # "Paused" then means that the kernel takes no more, so that whoever does not read is noticed at once.
        self.wire.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        beside = self.beside
        if beside is not None:
            if not (self._paused or self._close or self._force_close):
                answer = beside(data)
                if answer is not None:
                    self.wire.writelines(answer)
                    # aiohttp's own books: its timer closes a connection whose deadline nobody renews.
                    self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                    self._request_count = count = self._request_count + 1
                    if count >= self.tell_at:
                        self.answered_beside(count)
                    return
            self.beside = None
        self.read(data)

    def read(self, data: bytes) -> None:
        """Gives octets to aiohttp."""
        super().data_received(data)
        if self._messages:
            self._last_body = self._messages[-1][1]

    def eof_received(self) -> bool:  # type: ignore[override] # whose is None: end it
        """The client has closed its side, and perhaps that alone: complete requests are answered before this ends."""
        self.ended = self._last_body is not None and self._last_body.is_eof() and not self.awaits_head
        self._close = self._close or (self.ended and not self.has_more)  # after the answer that is being given
        return self.ended

    def answered_beside(self, count: int) -> None:
        """Called after an answer of `beside` when the connection has had `tell_at` requests or more: `count`."""

    @property
    def requests(self) -> int:
        """How many were read, by aiohttp or beside it."""
        return self._request_count

    @property
    def awaits_head(self) -> bool:
        """Whether every request that was read is answered: what arrived since is part of a header."""
        return self._waiter is not None and not self._messages

    @property
    def is_idle(self) -> bool:
        """Whether all that was asked is answered and nobody has begun to close it."""
        return self.awaits_head and not self.wire.is_closing()

    @property
    def idle_until(self) -> float:
        """The event loop's time at which it has been idle for too long: the later, the later it was used."""
        return self._next_keepalive_close_time

    @property
    def has_more(self) -> bool:
        """Whether more requests were read than the one being answered."""
        return bool(self._messages)

    @property
    def seconds(self) -> float:
        """The event loop's time."""
        return self._loop.time()

    def refuse(self, error: HttpProcessingError) -> None:
        """As if the parser had raised `error` at what was read last; nothing more is read."""
        self._request_count += 1
        self._messages.append((_ErrInfo(status=400, exc=error, message=error.message), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._close = True
