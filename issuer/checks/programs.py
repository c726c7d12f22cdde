"""Programs of others, run with limits that hold whatever they do, and with nothing of ours but what they are given.

A program is the leader of a session of its own, so that what it started ends with it. asyncio's own `wait` and
`communicate` return only once every pipe is closed, which a grandchild may never do; here nothing waits for a pipe
past the limit.

Whoever runs one may have CA keys: it inherits no file, no variable and no folder of that process (ADR 8 says what else
there is, and why not more). Two programs of util-linux set the limits before it starts; doing so in Python between fork
and exec may hang a process with threads, and a Python of its own takes ten times as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from math import ceil
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final, cast

_STDIN: Final = 0
_GRACE: Final = 1
"""Seconds for the kernel to end what was killed; later it is collected unseen."""
_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
)
_LARGEST_FILE: Final = 1 << 20
_OPEN_FILES: Final = 64


class TooMuchError(Exception):
    """It printed more than it may."""


async def run(command: Sequence[str], given: bytes, *, seconds: float, most: int, memory: int) -> tuple[int, bytes]:
    """Exit status and standard output of a program that is given these octets at its standard input.

    `command` begins with its path. `memory`: octets of address space. Raises OSError (util-linux is missing),
    TimeoutError, TooMuchError; it and what it started are killed then.
    """
    with TemporaryDirectory(prefix="quash-", ignore_cleanup_errors=True) as empty:
        return await _run((*_limits(seconds, memory), *command), given, empty, seconds, most)


async def _run(command: Sequence[str], given: bytes, folder: str, seconds: float, most: int) -> tuple[int, bytes]:
    loop = asyncio.get_running_loop()
    transport, talk = await loop.subprocess_exec(
        lambda: _Talk(loop, most),
        *command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,
        close_fds=True,
        cwd=folder,
        env=dict(_ENVIRONMENT),
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


def _limits(seconds: float, memory: int) -> tuple[str, ...]:
    """What stands before a command so that it starts with limits, gains no rights and ends with us."""
    wanted = {
        "core": (resource.RLIMIT_CORE, 0),
        "cpu": (resource.RLIMIT_CPU, ceil(seconds) + 1),
        "as": (resource.RLIMIT_AS, memory),
        "fsize": (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        "nofile": (resource.RLIMIT_NOFILE, _OPEN_FILES),
    }
    given = (f"--{name}={_at_most(limit, value)}" for name, (limit, value) in wanted.items())
    return ("prlimit", *given, "setpriv", "--no-new-privs", "--pdeathsig=KILL", "--")


def _at_most(limit: int, value: int) -> int:
    """Nobody may raise a limit that is lower already."""
    _, highest = resource.getrlimit(limit)
    return value if highest == resource.RLIM_INFINITY else min(value, highest)


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
