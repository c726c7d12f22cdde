"""`quash serve responder`: one worker on the listening socket that the supervisor holds."""

from __future__ import annotations

import asyncio
import contextlib
import resource

from quash.cache.reader import LmdbReader
from quash.errors import Kind, QuashError
from quash.runtime.process import Process
from responder.serve.http import HttpServer
from responder.serve.live import LiveClient
from responder.serve.worker import Worker

_BACKLOG = 1024
_OTHER_FILES = 128  # the cache, sockets of its own, logs, and new connections that are about to be refused


async def main(process: Process) -> None:
    """Serves until it is cancelled; then leaves without breaking a connection.

    A leaving worker stops accepting (the supervisor's socket stays open, other workers take the queue), answers the
    next request of each connection with `Connection: close`, and ends when none is left, or after a drain time.
    """
    if process.listen is None:
        raise QuashError("responder.no_socket", "the responder needs a listening socket", Kind.INTERNAL)
    config = process.config.responder
    _raise_file_limit(config.max_connections, process)
    reader = LmdbReader(process.state.cache)
    live = LiveClient(config.live.socket or process.state.run / "presigner.sock", config.live)
    worker = Worker(reader, process.clock, process.config, process.health, process.log, live=live)
    worker.refresh()
    fast = worker.fast if config.fast_path else None
    server = HttpServer(worker.answer, config, now=process.clock.now, fast=fast, live=worker.answer_live)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(server, sock=process.listen, backlog=_BACKLOG)
    try:
        while True:
            await process.clock.sleep(1)
            worker.refresh()
            worker.count()
            server.guard.sweep(loop.time())
    finally:
        listener.close()
        await drain(server, config.drain_seconds)
        worker.count()
        reader.close()


async def drain(server: HttpServer, seconds: float) -> None:
    """Lets clients finish; idle ones are closed when the time is over."""
    server.drain()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while server.connections:  # noqa: ASYNC110 (aiohttp's server has no event for it)
                await asyncio.sleep(0.05)
    await server.shutdown(1.0)


def _raise_file_limit(connections: int, process: Process) -> None:
    """Each connection is an open file; the usual soft limit of 1024 would be the first limit that is met."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        process.log.warning("responder.open_files", limit=hard, wanted=wanted, do="raise LimitNOFILE of the service")
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
