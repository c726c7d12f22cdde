"""Programs of others, run with a limit on time and on output that holds whatever they do.

A program is the leader of a session of its own, so that what it started ends with it. asyncio's own `wait` and
`communicate` return only once every pipe is closed, which a grandchild may never do; here nothing waits for a pipe
past the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from typing import Final, cast

_STDIN: Final = 0
_GRACE: Final = 1
"""Seconds for the kernel to end what was killed; later it is collected unseen."""


class TooMuchError(Exception):
    """It printed more than it may."""


async def run(command: Sequence[str], given: bytes, *, seconds: float, most: int) -> tuple[int, bytes]:
    """Exit status and standard output of a program that is given these octets at its standard input.

    Raises OSError (it does not start), TimeoutError, TooMuchError; it and what it started are killed then.
    """
    loop = asyncio.get_running_loop()
    transport, talk = await loop.subprocess_exec(
        lambda: _Talk(loop, most), *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
    )
    try:
        stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(_STDIN))
        stdin.write(given)
        stdin.close()  # after what is written
        async with asyncio.timeout(seconds):
            await talk.end()
    except BaseException:
        await _kill(transport, talk)
        raise
    finally:
        transport.close()
    return cast(int, transport.get_returncode()), bytes(talk.output)


async def _kill(transport: asyncio.SubprocessTransport, talk: _Talk) -> None:
    """The whole session's group: its number stays taken while any of it runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(transport.get_pid(), signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await asyncio.shield(talk.exited)


class _Talk(asyncio.SubprocessProtocol):
    """Keeps at most `most` octets of what is printed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self.output = bytearray()
        self.whole: asyncio.Future[bool] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()
        self._most = most

    async def end(self) -> None:
        """Returns when it has ended and all that it printed is here. Raises TooMuchError."""
        if not await asyncio.shield(self.whole):
            raise TooMuchError
        await asyncio.shield(self.exited)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if not self.whole.done():
            self.output += data
            if len(self.output) > self._most:
                self.whole.set_result(False)

    def pipe_connection_lost(self, fd: int, _error: Exception | None) -> None:
        if fd != _STDIN and not self.whole.done():
            self.whole.set_result(True)

    def process_exited(self) -> None:
        self.exited.set_result(None)
