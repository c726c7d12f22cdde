"""Worker processes for slow checks: one that takes too long is killed and replaced, and delays nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import orjson
from prometheus_client import Counter, Gauge

from issuer.checks.worker import PREFIX, encode
from quash.errors import Kind, QuashError

_COMMAND: Final = (sys.executable, "-m", "issuer.checks.worker")
_MAX_REPLY: Final = 1 << 20
_PAUSE: Final = 1.0  # seconds between attempts to start a worker that dies at its start

_KILLED = Counter("quash_check_workers_killed_total", "Worker processes that died or took too long", ["task"])
_IDLE = Gauge("quash_check_workers_idle", "Worker processes that wait for a task")


PRIVATE: Final = "private"
"""Argument of the task `key`: it is of a private PKI."""


class Runner(Protocol):
    """Runs a task of `issuer.checks.tasks`; raises what it raises, or `checks.timeout`, `checks.died`."""

    async def run(self, task: str, argument: str, octets: bytes) -> Any: ...


class Inline:
    """A `Runner` without processes, for tools and tests that check one thing at a time."""

    async def run(self, task: str, argument: str, octets: bytes) -> Any:
        return _task(task, argument, octets)


class Threaded:
    """A `Runner` in threads of this process: for explicit commands and the CA signer, whose keys are few."""

    async def run(self, task: str, argument: str, octets: bytes) -> Any:
        return await asyncio.to_thread(_task, task, argument, octets)


def _task(task: str, argument: str, octets: bytes) -> Any:
    from issuer.checks.tasks import TASKS  # noqa: PLC0415 - linters take two seconds to load

    return TASKS[task](argument, octets)


class _Worker:
    """One child process, busy with at most one task."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str]) -> _Worker:
        """Raises EOFError when it dies before it is ready."""
        process = await asyncio.create_subprocess_exec(
            *command, str(os.getpid()), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        worker = cls(process)
        try:
            await worker._receive()
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def alive(self) -> bool:
        """It may have ended while it had nothing to do."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        return self._process.returncode is None and not self._process.stdin.is_closing()

    async def ask(self, header: dict[str, Any], octets: bytes) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        self._process.stdin.write(encode(header, octets))
        await self._process.stdin.drain()
        return await self._receive()

    async def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        text, octets = PREFIX.unpack(await self._process.stdout.readexactly(PREFIX.size))
        if text > _MAX_REPLY or octets:
            raise EOFError
        reply: dict[str, Any] = orjson.loads(await self._process.stdout.readexactly(text))
        return reply

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Workers:
    """`size` worker processes. `timeout`: seconds that one task may take in a worker; waiting for one is not counted.

    A task that takes longer is refused (`checks.timeout`): whoever sends such a key or name would do so again.
    """

    def __init__(self, timeout: float, command: Sequence[str] = _COMMAND) -> None:
        self._timeout = timeout
        self._command = command
        self._idle: asyncio.Queue[_Worker] = asyncio.LifoQueue()  # the busiest has the most at hand
        self._starting: set[asyncio.Task[None]] = set()
        self._all: set[_Worker] = set()

    @classmethod
    @asynccontextmanager
    async def running(cls, size: int, timeout: float, command: Sequence[str] = _COMMAND) -> AsyncIterator[Workers]:
        """Starts them beside the caller, who need not wait; ends them on the way out."""
        workers = cls(timeout, command)
        try:
            for _ in range(size):
                workers._start()
            yield workers
        finally:
            for task in workers._starting:
                task.cancel()
            await asyncio.gather(*workers._starting, return_exceptions=True)
            for worker in workers._all:
                await worker.kill()

    @property
    def ready(self) -> bool:
        """Whether at least one is warm: before that, tasks wait for seconds."""
        return bool(self._all)

    async def run(self, task: str, argument: str, octets: bytes) -> Any:
        """See `Runner`."""
        worker = await self._take()
        usable = False
        try:
            async with asyncio.timeout(self._timeout):
                reply = await worker.ask({"task": task, "argument": argument}, octets)
            usable = True
        except TimeoutError:
            raise QuashError(
                "checks.timeout", f"checking this took longer than {self._timeout:g} s ({task})", Kind.REFUSED
            ) from None
        except (OSError, EOFError, ValueError):
            raise QuashError(
                "checks.died", f"a worker died while checking ({task}): try again", Kind.UNAVAILABLE
            ) from None
        finally:
            if usable:
                self._give_back(worker)
            else:  # also when the caller was cancelled: the worker is in the middle of something
                self._lose(worker, task)
        if "error" in reply:
            raise QuashError(reply["error"], reply["message"], Kind(reply["kind"]))
        return reply["result"]

    async def _take(self) -> _Worker:
        """Waits for an idle one; one that somebody ended meanwhile is no order's fault, and is replaced."""
        while not (worker := await self._idle.get()).alive:
            self._lose(worker, "none")
        _IDLE.set(self._idle.qsize())
        return worker

    def _lose(self, worker: _Worker, task: str) -> None:
        _KILLED.labels(task).inc()
        self._all.discard(worker)
        self._start(worker)

    def _give_back(self, worker: _Worker) -> None:
        self._idle.put_nowait(worker)
        _IDLE.set(self._idle.qsize())

    def _start(self, instead_of: _Worker | None = None) -> None:
        task = asyncio.create_task(self._replace(instead_of))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _replace(self, old: _Worker | None) -> None:
        if old is not None:
            await old.kill()
        while True:
            try:
                worker = await _Worker.start(self._command)
            except (OSError, EOFError, ValueError):
                await asyncio.sleep(_PAUSE)
                continue
            self._all.add(worker)
            self._give_back(worker)
            return
