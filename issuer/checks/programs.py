"""Programs of others, run with limits that hold whatever they do, and with nothing of ours but what they are given.

A program is the leader of a session of its own, so that what it started ends with it. asyncio's own `wait` and
`communicate` return only once every pipe is closed, which a grandchild may never do; here nothing waits for a pipe
past the limit. And it is started by `subprocess`, not by the loop: uvloop leaves files open that a library opened for
anybody, such as a token's.

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
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final

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
    with TemporaryDirectory(prefix="quash-", ignore_cleanup_errors=True) as empty, _file_of(given) as stdin:
        process = subprocess.Popen(  # noqa: ASYNC220 - see above; it takes a millisecond
            (*_limits(seconds, memory), *command),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=True,
            cwd=empty,
            env=dict(_ENVIRONMENT),
        )
        try:
            async with asyncio.timeout(seconds):
                return await _listen(process, most)
        except BaseException:
            await _kill(process)
            raise


@contextlib.contextmanager
def _file_of(given: bytes) -> Iterator[int]:
    """Without a name or a disk: nobody waits for a program that does not read it."""
    with open(os.memfd_create("given"), "w+b") as file:
        file.write(given)
        file.seek(0)
        yield file.fileno()


async def _listen(process: subprocess.Popen[bytes], most: int) -> tuple[int, bytes]:
    """Its exit status and what it printed, when it has ended and all of that is here. Raises TooMuchError."""
    loop = asyncio.get_running_loop()
    transport, printed = await loop.connect_read_pipe(lambda: _Printed(loop, most), process.stdout)
    try:
        if not await asyncio.shield(printed.whole):
            raise TooMuchError
        return await _exit(process), bytes(printed.output)
    finally:
        transport.close()


async def _exit(process: subprocess.Popen[bytes]) -> int:
    loop = asyncio.get_running_loop()
    exited = asyncio.Event()
    number = os.pidfd_open(process.pid)
    loop.add_reader(number, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(number)
        os.close(number)
    _kill_group(process)  # what it started and left behind
    return process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Of its session: the number stays taken while any of it runs, or nobody has asked how it ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        _kill_group(process)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await _exit(process)


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


class _Printed(asyncio.Protocol):
    """Keeps at most `most` octets of what is printed; `whole`: all of it is here, or it was too much."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self.output = bytearray()
        self.whole: asyncio.Future[bool] = loop.create_future()
        self._most = most

    def data_received(self, data: bytes) -> None:
        if not self.whole.done():
            self.output += data
            if len(self.output) > self._most:
                self.whole.set_result(False)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.whole.done():
            self.whole.set_result(True)
