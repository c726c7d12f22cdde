"""What every process has: configuration, state folder, clock, log, health and, for responders, a listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import generate_latest

from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock, SystemClock
from quash.runtime.config import Config
from quash.runtime.log import configure, logger
from quash.runtime.server_name import hide_versions
from quash.runtime.sockets import clear_socket
from quash.runtime.state import State

_PR_SET_PDEATHSIG = 1
_ENDS_WITHIN = 20  # seconds from the signal to the kernel's alarm, longer than a supervisor waits before it kills


class Health:
    """Named checks of one process: ready when there is at least one and every one is ok."""

    def __init__(self) -> None:
        self._checks: dict[str, tuple[bool, str]] = {}

    def set(self, check: str, ok: bool, detail: str = "") -> None:
        self._checks[check] = (ok, detail)

    @property
    def ready(self) -> bool:
        return bool(self._checks) and all(ok for ok, _ in self._checks.values())

    def report(self) -> dict[str, Any]:
        return {"ready": self.ready, "checks": {k: {"ok": ok, "detail": d} for k, (ok, d) in self._checks.items()}}


@dataclass
class Process:
    """Handed to the `main` of each process; everything else a process needs it opens itself."""

    name: str
    config: Config
    state: State
    clock: Clock = field(default_factory=SystemClock)
    listen: socket.socket | None = None
    health: Health = field(default_factory=Health)
    log: Any = field(default_factory=logger)
    read_config: Callable[[], Config] | None = None
    """What the files and `--set` say now; None where nobody could say, as in tests."""
    health_at: Path | None = None
    """Where the health endpoint is, if not at its usual place: while another process of that name is there."""

    @property
    def health_socket(self) -> Path:
        return self.health_at or self.state.run / f"{self.name}.health"


Main = Callable[[Process], Awaitable[None]]


def die_with(parent: int, sig: int = signal.SIGTERM) -> None:
    """Asks the kernel to end this process when its parent ends, killed or not (Linux); called in the child."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, sig)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), sig)


async def run(process: Process, main: Main) -> None:
    """Runs `main` until it returns, SIGTERM, SIGINT or SIGHUP, with the process's health endpoint beside it.

    Told to stop, it ends within 20 s whatever hangs: after a supervisor that was killed, nobody else would end it, and
    the next run waits for it.
    """
    configure(process.name)
    hide_versions()
    task = asyncio.ensure_future(main(process))

    def stop() -> None:
        task.cancel()
        signal.alarm(_ENDS_WITHIN)

    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(sig, stop)
    async with health_endpoint(process):
        try:
            await task
        except asyncio.CancelledError:
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise QuashError("listen.taken", f"{process.name}: {error.strerror}", Kind.UNAVAILABLE) from None


@contextlib.asynccontextmanager
async def health_endpoint(process: Process) -> Any:
    """`/livez`, `/readyz` and `/metrics` on the process's own Unix socket, which the supervisor reads.

    Afterwards the socket is gone, unless another process has taken its place: what is left behind is a crash.
    """

    async def handle(request: web.BaseRequest) -> web.Response:
        if request.path == "/metrics":
            return web.Response(body=generate_latest(), content_type="text/plain")
        if request.path == "/livez":
            return web.Response(text="ok")
        if request.path == "/readyz":
            body = orjson.dumps(process.health.report())
            return web.Response(body=body, content_type="application/json", status=200 if process.health.ready else 503)
        return web.Response(status=404)

    clear_socket(process.health_socket)
    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    path = process.health_socket
    await web.UnixSite(runner, str(path)).start()
    own = path.stat().st_ino
    try:
        yield
    finally:
        await runner.cleanup()
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == own:
                path.unlink()
