"""Starts the processes in order, restarts those that end, stops all of them; holds the OCSP listening socket.

It has no key and no database. The listening socket is opened once and never closed while the service runs: workers
come and go, the connections queued on it stay. Children end with the supervisor, even when it is killed: each asks the
kernel for that (`die_with`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock

SUPERVISOR_PID = "QUASH_SUPERVISOR_PID"
LISTEN_FD = "QUASH_LISTEN_FD"
INSTANCE = "QUASH_INSTANCE"

_BACKLOG = 4096
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds before a restart, doubled each time
_SETTLED = 30.0  # a child that ran this long starts again without a pause
_STOP_WITHIN = 15.0  # seconds from the signal to SIGKILL


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound, listening TCP socket; raises `listen.taken` when somebody else has the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise QuashError(
            "listen.taken", f"cannot listen on {host}:{port}: {error.strerror}", Kind.UNAVAILABLE
        ) from None
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


@dataclass(frozen=True)
class Child:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    pass_fds: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    spawn_arguments: Mapping[str, Any] = field(default_factory=dict)
    """More keyword arguments of `subprocess.Popen`, for example another user."""
    foundation: bool = False
    """The other children need it: it is stopped when they have ended."""
    log: Path | None = None
    """Takes the child's output; none: the supervisor's own stderr."""


class Supervisor:
    """Keeps children running until `stop`; `started` is called with a name each time one starts.

    Every child inherits the descriptors `inherited`, beside its own.
    """

    def __init__(
        self,
        clock: Clock,
        log: Any,
        started: Callable[[str, int], None] = lambda _name, _pid: None,
        *,
        inherited: tuple[int, ...] = (),
    ) -> None:
        self._clock = clock
        self._inherited = inherited
        self._log = log
        self._started = started
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._children: dict[str, Child] = {}
        self._stopping = False
        self.restarts: dict[str, int] = {}

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._running.items()}

    async def start(self, child: Child, ready: Callable[[], Awaitable[None]] | None = None) -> None:
        """Starts a child and waits for `ready`, which may raise; the child is kept running from now on."""
        self._children[child.name] = child
        self.restarts[child.name] = 0
        self._tasks[child.name] = asyncio.create_task(self._keep(child), name=child.name)
        if ready is not None:
            await ready()

    async def stop(self) -> None:
        """Stops the children: all at once, but those that the others need (`foundation`) after them."""
        self._stopping = True
        for foundation in (False, True):
            group = [child for child in self._children.values() if child.foundation is foundation]
            await asyncio.gather(*map(self._stop_child, group))
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _stop_child(self, child: Child) -> None:
        process = self._running.get(child.name)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(child.stop_signal)
        try:
            async with asyncio.timeout(_STOP_WITHIN):
                await process.wait()
        except TimeoutError:
            self._log.warning("supervisor.killed", child=child.name)
            process.kill()
            await process.wait()

    async def _keep(self, child: Child) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping:
            began = self._clock.monotonic()
            process = await self._spawn(child)
            status = await process.wait()
            self._running.pop(child.name, None)
            if self._stopping:
                return
            if self._clock.monotonic() - began > _SETTLED:
                pause = _FIRST_PAUSE
            self._log.warning("supervisor.child_ended", child=child.name, status=status, restart_in=pause)
            self.restarts[child.name] += 1
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        environment = {**os.environ, **child.environment, SUPERVISOR_PID: str(os.getpid()), INSTANCE: child.name}
        output: Any = child.log.open("ab") if child.log is not None else None
        try:
            process = await asyncio.create_subprocess_exec(
                *child.command,
                env=environment,
                pass_fds=(*child.pass_fds, *self._inherited),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                start_new_session=True,  # a Ctrl-C in the terminal reaches the supervisor alone, which stops in order
                **child.spawn_arguments,
            )
        finally:
            if output is not None:
                output.close()
        self._running[child.name] = process
        self._started(child.name, process.pid)
        return process
