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
from quash.runtime.state import State

_PR_SET_PDEATHSIG = 1


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

    @property
    def health_socket(self) -> Path:
        return self.state.run / f"{self.name}.health"


Main = Callable[[Process], Awaitable[None]]


def die_with(parent: int, sig: int = signal.SIGTERM) -> None:
    """Asks the kernel to end this process when its parent ends, killed or not (Linux); called in the child."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, sig)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), sig)


async def run(process: Process, main: Main) -> None:
    """Runs `main` until it returns, SIGTERM or SIGINT, with the process's health endpoint beside it."""
    configure(process.name)
    task = asyncio.ensure_future(main(process))
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, task.cancel)
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
    """`/livez`, `/readyz` and `/metrics` on the process's own Unix socket, which the supervisor reads."""

    async def handle(request: web.BaseRequest) -> web.Response:
        if request.path == "/metrics":
            return web.Response(body=generate_latest(), content_type="text/plain")
        if request.path == "/livez":
            return web.Response(text="ok")
        if request.path == "/readyz":
            body = orjson.dumps(process.health.report())
            return web.Response(body=body, content_type="application/json", status=200 if process.health.ready else 503)
        return web.Response(status=404)

    with contextlib.suppress(FileNotFoundError):
        process.health_socket.unlink()
    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.UnixSite(runner, str(process.health_socket)).start()
    try:
        yield
    finally:
        await runner.cleanup()
