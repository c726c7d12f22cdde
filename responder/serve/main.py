"""`quash serve responder`: one worker on the listening socket that the supervisor holds."""

from __future__ import annotations

import asyncio
import contextlib

from quash.cache.reader import LmdbReader
from quash.errors import Kind, QuashError
from quash.runtime.process import Process
from responder.serve.http import HttpServer
from responder.serve.worker import Worker

DRAIN_SECONDS = 3.0
_BACKLOG = 1024


async def main(process: Process) -> None:
    """Serves until it is cancelled; then leaves without breaking a connection.

    A leaving worker stops accepting (the supervisor's socket stays open, other workers take the queue), answers the
    next request of each connection with `Connection: close`, and ends when none is left, or after a drain time.
    """
    if process.listen is None:
        raise QuashError("responder.no_socket", "the responder needs a listening socket", Kind.INTERNAL)
    config = process.config.responder
    reader = LmdbReader(process.state.cache)
    worker = Worker(reader, process.clock, config, process.health, process.log)
    worker.refresh()
    server = HttpServer(worker.answer, max_header=config.max_header, max_body=config.max_body)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(server, sock=process.listen, backlog=_BACKLOG)
    try:
        while True:
            await process.clock.sleep(1)
            worker.refresh()
    finally:
        listener.close()
        await drain(server)
        reader.close()


async def drain(server: HttpServer, seconds: float = DRAIN_SECONDS) -> None:
    """Lets clients finish; idle ones are closed when the time is over."""
    server.draining = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while server.connections:  # noqa: ASYNC110 (aiohttp's server has no event for it)
                await asyncio.sleep(0.05)
    await server.shutdown(1.0)
