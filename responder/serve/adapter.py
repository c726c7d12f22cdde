"""The one module that knows aiohttp from the inside: everything we rely on that its documentation does not say.

A subclass of aiohttp's protocol that can answer some requests beside it needs to know when it may, and must leave
aiohttp's own books right: keep-alive deadline, numbers of requests. A test compares `ATTRIBUTES` and the code of
`METHODS` with the installed release and fails when they are others, so that somebody looks.
"""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

# What we read and write.
ATTRIBUTES = (
    *("transport", "_loop", "_manager", "_paused", "_close", "_force_close", "_waiter", "_messages"),
    *("_request_count", "_keepalive_timeout", "_next_keepalive_close_time"),
)
# What we extend or call, and what must go on treating those attributes as it does.
METHODS = (
    *("__init__", "connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"),
    *("close", "force_close", "shutdown", "start", "_process_keepalive", "handle_error", "finish_response"),
)


class AdaptedConnection(web.RequestHandler):
    """One HTTP connection. `transport` is None once aiohttp has closed it, even if octets are still to be sent."""

    __slots__ = ("wire",)

    wire: asyncio.Transport
    """The transport, as long as there is one: until `connection_lost`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        # "Paused" then means that the kernel takes no more, so that whoever does not read is noticed at once.
        self.wire.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    @property
    def may_answer_beside(self) -> bool:
        """Whether nothing that was written before waits, and the connection is not about to close."""
        return not (self._paused or self._close or self._force_close)

    def answer_beside(self, octets: bytes) -> int:
        """Writes an answer that aiohttp knows nothing of, and keeps its books; returns which request that was, from 1.

        Only for a connection that has given aiohttp no octet yet, and `may_answer_beside`.
        """
        self.wire.write(octets)
        self._manager.requests_count += 1  # type: ignore[union-attr]  # None only after connection_lost
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._request_count = count = self._request_count + 1
        return count

    @property
    def requests(self) -> int:
        """How many were read, by aiohttp or beside it."""
        return self._request_count

    @property
    def awaits_head(self) -> bool:
        """Whether every request that was read is answered: what arrived since is part of a header."""
        return self._waiter is not None and not self._messages

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
