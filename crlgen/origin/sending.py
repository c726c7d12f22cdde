"""Sends files by the kernel: their octets never pass through this process (sendfile).

Event loops refuse it (uvloop) or do it for sockets of their own alone. So a second descriptor of the connection's
socket is polled here, while the transport has nothing to write.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

PART: Final = 1 << 20
"""Octets of one call, so that a fast reader of a large file leaves turns to others."""
STALL: Final = 60.0
"""Seconds that a client may take nothing."""
_FLUSH: Final = 0.005


async def send(transport: asyncio.WriteTransport, file: int, offset: int, count: int) -> None:
    """Sends octets [offset, offset + count) of an open file (its descriptor) after what the transport was given.

    Raises `ConnectionResetError` when the client is gone or takes nothing for a minute, or the file became shorter.
    """
    sock: socket.socket = transport.get_extra_info("socket")
    descriptor = os.dup(sock.fileno())
    try:
        await _flushed(transport)
        while count:
            if transport.is_closing():
                raise ConnectionResetError("the client is gone")
            try:
                sent = os.sendfile(descriptor, file, offset, min(count, PART))
            except BlockingIOError:
                await _writable(descriptor)
                continue
            if not sent:
                raise ConnectionResetError("the file became shorter while it was sent")
            offset, count = offset + sent, count - sent
            await asyncio.sleep(0)
    except OSError as error:
        transport.abort()
        raise ConnectionResetError(str(error)) from error
    finally:
        os.close(descriptor)


async def _flushed(transport: asyncio.WriteTransport) -> None:
    """Waits until the header has left; most often it has by the next turn of the loop."""
    async with asyncio.timeout(STALL):
        await asyncio.sleep(0)
        while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110 - transports tell nobody
            await asyncio.sleep(_FLUSH)


async def _writable(descriptor: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        async with asyncio.timeout(STALL):
            await ready.wait()
    finally:
        loop.remove_writer(descriptor)
