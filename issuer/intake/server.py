"""Listening to strangers: each holds few connections, and each connection lasts a short while, whatever it does in it.

aiohttp waits for ever for a header, for a body and for an answer to be taken; asyncio counts no TLS handshake. One
limit over all of them is simpler than one for each, and a report is one request on one connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Any, Final, cast

import prometheus_client
from aiohttp import web

from issuer.api import ApiConnection, ProblemRunner
from issuer.intake.quota import network_of
from quash.runtime.config import Intake

_ENDED: Final = prometheus_client.Counter(
    "quash_intake_connections_ended_total", "Connections ended: too long, too many, too many of one source", ["cause"]
)


class Door:
    """The connections that are open. Beyond all that may be, the oldest goes: whoever waits longest costs most."""

    def __init__(self, config: Intake) -> None:
        self._most = config.connections
        self._most_of_source = inf if config.behind_proxy else config.connections_per_source
        self._seconds = config.connection_seconds
        self._open: dict[asyncio.Transport, tuple[str, asyncio.TimerHandle]] = {}  # oldest first
        self._of_source: Counter[str] = Counter()

    def enter(self, transport: asyncio.Transport) -> None:
        """Notes a connection, or ends it."""
        source = network_of(str((transport.get_extra_info("peername") or ("unknown",))[0]))
        if self._of_source[source] >= self._most_of_source:
            _end(transport, "source")
            return
        if len(self._open) >= self._most:
            oldest = next(iter(self._open))
            self.leave(oldest)
            _end(oldest, "connections")
        timer = asyncio.get_running_loop().call_later(self._seconds, _end, transport, "time")
        self._open[transport] = (source, timer)
        self._of_source[source] += 1

    def leave(self, transport: asyncio.Transport) -> None:
        """Forgets it; again does nothing."""
        source, timer = self._open.pop(transport, (None, None))
        if source is None or timer is None:
            return
        timer.cancel()
        self._of_source[source] -= 1
        if not self._of_source[source]:
            del self._of_source[source]


def _end(transport: asyncio.Transport, cause: str) -> None:
    """At once: who does not read would keep an orderly end open."""
    _ENDED.labels(cause).inc()
    transport.abort()


class _Connection(ApiConnection):
    __slots__ = ("_came_by", "_door")

    def __init__(self, door: Door, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._came_by = cast(asyncio.Transport, transport)  # aiohttp forgets its own when it closes
        self._door.enter(self._came_by)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._door.leave(self._came_by)
        super().connection_lost(exc)


@asynccontextmanager
async def listening(app: web.Application, config: Intake) -> AsyncIterator[int]:
    """Serves `app` inside the block and yields the port (of use where 0 was asked for)."""
    connection = partial(_Connection, Door(config))
    runner = ProblemRunner(app, connection=connection, handle_signals=False, shutdown_timeout=10)
    await runner.setup()
    assert runner.server is not None  # noqa: S101 - it was set up
    tls = _tls(config)
    try:
        server = await asyncio.get_running_loop().create_server(
            runner.server,
            config.host,
            config.port,
            ssl=tls,
            ssl_handshake_timeout=config.connection_seconds if tls is not None else None,
        )
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _tls(config: Intake) -> ssl.SSLContext | None:
    """None: a proxy in front speaks TLS."""
    if config.certificate is None or config.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config.certificate, config.key)
    return context
