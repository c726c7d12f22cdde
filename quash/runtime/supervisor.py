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
from types import MappingProxyType
from typing import Any

from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock

SUPERVISOR_PID = "QUASH_SUPERVISOR_PID"
LISTEN_FD = "QUASH_LISTEN_FD"
INSTANCE = "QUASH_INSTANCE"
HEALTH_SOCKET = "QUASH_HEALTH_SOCKET"
CPU = "QUASH_CPU"

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


def inherited_or_own(host: str, port: int) -> socket.socket:
    """The listening socket that a supervisor or a socket unit handed over, else one as `listening_socket` makes it."""
    if LISTEN_FD in os.environ:
        return socket.socket(fileno=int(os.environ[LISTEN_FD]))
    return listening_socket(host, port)


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
        self._held: dict[str, asyncio.Event] = {}
        self._leaving: set[asyncio.Task[None]] = set()
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

    async def replace(
        self, name: str, environment: Mapping[str, str], ready: Callable[[], Awaitable[None]], *, within: float
    ) -> None:
        """Starts another process of a child, with more `environment`, and once `ready` stops the one before.

        So there is never one less. Raises `supervisor.not_replaced`, when the new one ends or is not ready `within`
        seconds: it is stopped, and the one before goes on.
        """
        child = self._children[name]
        new = await self._spawn(child, environment)
        try:
            await self._until_ready(child, new, ready, within)
        except BaseException:
            await self._end(child, new)
            raise
        before, leaving = self._running.get(name), self._tasks[name]
        self._running[name] = new
        self._started(name, new.pid)
        self._tasks[name] = asyncio.create_task(self._keep(child, new), name=name)
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        if before is not None:
            await self._end(child, before)

    async def _until_ready(
        self, child: Child, new: asyncio.subprocess.Process, ready: Callable[[], Awaitable[None]], within: float
    ) -> None:
        waits = [asyncio.ensure_future(ready()), asyncio.ensure_future(new.wait())]
        try:
            await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
            if not waits[0].done() or waits[1].done():
                raise QuashError(
                    "supervisor.not_replaced", f"a new {child.name} did not get ready: see its log", Kind.UNAVAILABLE
                )
            await waits[0]
        finally:
            for wait in waits:
                wait.cancel()

    async def hold(self, name: str) -> None:
        """Stops a child, which is not started again before `resume`."""
        self._held.setdefault(name, asyncio.Event())
        await self._stop_child(self._children[name])

    def resume(self, name: str) -> None:
        """Lets a child that is held start again."""
        if name in self._held:
            self._held.pop(name).set()

    async def stop(self) -> None:
        """Stops the children: all at once, but those that the others need (`foundation`) after them."""
        self._stopping = True
        for foundation in (False, True):
            group = [child for child in self._children.values() if child.foundation is foundation]
            await asyncio.gather(*map(self._stop_child, group))
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_STOP_WITHIN)
        tasks = [*self._tasks.values(), *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stop_child(self, child: Child) -> None:
        process = self._running.get(child.name)
        if process is not None:
            await self._end(child, process)

    async def _end(self, child: Child, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
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

    async def _keep(self, child: Child, process: asyncio.subprocess.Process | None = None) -> None:
        """Starts a child whenever it ends; the first time it is `process` where that is given."""
        pause = _FIRST_PAUSE
        while not self._stopping:
            if child.name in self._held:
                await self._held[child.name].wait()
            began = self._clock.monotonic()
            if process is None:
                process = await self._spawn(child)
                if self._tasks[child.name] is not asyncio.current_task():
                    await self._end(child, process)  # replaced meanwhile
                    return
                self._running[child.name] = process
                self._started(child.name, process.pid)
            status = await process.wait()
            if self._running.get(child.name) is not process:
                return  # replaced
            del self._running[child.name]
            process = None
            if self._stopping:
                return
            if child.name in self._held:
                self._log.warning("supervisor.held", child=child.name, status=status)
                continue
            if self._clock.monotonic() - began > _SETTLED:
                pause = _FIRST_PAUSE
            self._log.warning("supervisor.child_ended", child=child.name, status=status, restart_in=pause)
            self.restarts[child.name] += 1
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _spawn(self, child: Child, more: Mapping[str, str] = MappingProxyType({})) -> asyncio.subprocess.Process:
        own = {SUPERVISOR_PID: str(os.getpid()), INSTANCE: child.name}
        environment = {**os.environ, **child.environment, **own, **more}
        output: Any = child.log.open("ab") if child.log is not None else None
        try:
            return await asyncio.create_subprocess_exec(
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
