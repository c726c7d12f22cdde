"""A worker of the responder as a process of its own, over a cache that the test writes."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quash.cache.writer import Changes, LmdbWriter
from quash.runtime.state import State
from tests.support.ocsp_issuer import OcspIssuer
from tests.unit.serve.in_memory import Pair, make_pair, own_loop

GOOD, REVOKED, MISSING = b"\x10\x01", b"\x10\x02", b"\x10\x03"

WORKER = """
import socket, sys
from pathlib import Path
import uvloop
from quash.runtime.config import Config
from quash.runtime.process import Process, run
from quash.runtime.state import State
from responder.serve.main import main
listen = socket.socket(fileno=int(sys.argv[2]))
config = Config.model_validate_json(sys.argv[4])
uvloop.run(run(Process(sys.argv[3], config, State(Path(sys.argv[1])), listen=listen), main))
"""


def start_worker(state: State, listen: socket.socket, name: str, **limits: Any) -> subprocess.Popen[bytes]:
    """A worker on a socket that the test holds, as the supervisor does; `limits` are keys of `responder`."""
    config = json.dumps({"responder": limits})
    command = [sys.executable, "-c", WORKER, str(state.root), str(listen.fileno()), name, config]
    log = (state.root / f"{name}.log").open("wb")
    return subprocess.Popen(command, pass_fds=[listen.fileno()], stdout=log, stderr=log)


@dataclass
class Served:
    """`url`: without a slash at the end. `now`: when the records were signed, Unix time."""

    state: State
    writer: LmdbWriter
    issuer: OcspIssuer
    listen: socket.socket
    worker: subprocess.Popen[bytes]
    now: int

    @property
    def port(self) -> int:
        port: int = self.listen.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def publish(self, serial: bytes, revoked: tuple[int, int] | None = None) -> None:
        """Puts a record into the cache."""
        self.apply(records=[(1, serial, self.issuer.record(serial, self.now, revoked=revoked))])

    def apply(self, **changes: Any) -> None:
        """One commit, with a new heartbeat."""
        self.writer.apply(Changes(heartbeat=int(time.time()), complete=True, **changes))

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def exchange(self, request: bytes) -> bytes:
        """Sends octets and reads until the server closes."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)

    def ask_worker(self, path: str, name: str = "responder-1") -> bytes:
        """What a worker's own health endpoint answers, header and all."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.state.run / f"{name}.health"))
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return read_all(connection)

    def readiness(self, name: str = "responder-1") -> dict[str, Any]:
        """What it says of its readiness."""
        result: dict[str, Any] = json.loads(self.ask_worker("/readyz", name).partition(b"\r\n\r\n")[2])
        return result

    def wait_ready(self, ready: bool = True, name: str = "responder-1") -> None:
        """Waits until a worker's readiness is as wanted."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if self.readiness(name)["ready"] is ready:
                    return
            except OSError:
                assert self.worker.poll() is None, (self.state.root / "responder-1.log").read_text()
            time.sleep(0.05)
        raise AssertionError(f"not ready={ready} in time: {self.readiness(name)}")


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


@contextlib.contextmanager
def serving(folder: Path, **limits: Any) -> Iterator[Served]:
    """A ready worker with an issuer and its signer; one record good, one revoked."""
    now = int(time.time())
    state = State(folder)
    issuer = OcspIssuer(starts=now - 86_400)
    writer = LmdbWriter(state.cache)
    with socket.create_server(("127.0.0.1", 0)) as listen:
        worker = start_worker(state, listen, "responder-1", **limits)
        served = Served(state, writer, issuer, listen, worker, now)
        try:
            served.apply(issuers=[issuer.row], templates=[issuer.template_row])
            served.publish(GOOD)
            served.publish(REVOKED, (1, now - 3600))
            served.wait_ready()
            yield served
        finally:
            if worker.poll() is None:
                os.kill(worker.pid, signal.SIGKILL)
            worker.wait(10)
            writer.environment.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One worker for the tests of a module, which leave it and the two records as they are."""
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def asked(worker: Served) -> Served:
    """The module's worker, with a heartbeat of now."""
    worker.apply()
    return worker


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Served]:
    """A worker for one test."""
    with serving(tmp_path) as served:
        yield served


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """The same site twice, in memory: with the fast path and without."""
    with own_loop() as loop:
        yield loop.run_until_complete(make_pair(loop))


@pytest.fixture(scope="module", autouse=True)
def _no_task_is_left() -> Iterator[None]:
    """A connection whose task never ends is a leak in a server that runs for months."""
    left: list[str] = []

    class Noted(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            left.append(record.getMessage())

    noted, logger = Noted(logging.ERROR), logging.getLogger("asyncio")
    logger.addHandler(noted)
    yield
    gc.collect()  # which is when asyncio tells of them
    logger.removeHandler(noted)
    assert not left
