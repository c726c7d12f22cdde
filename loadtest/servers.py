"""Servers that a benchmark compares: started on a core of their own, loaded from another one, their CPU time read."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.system import REPOSITORY, free_ports
from quash.runtime.supervisor import INSTANCE

SERVER_CORE, CLIENT_CORE = "0", "1"
VERIFIED = 20
_STARTS_WITHIN = 120.0  # seconds
_LUA = """
local requests, at = {}, 0
init = function()
  for path in io.lines("%s") do requests[#requests + 1] = wrk.format("GET", path) end
end
request = function()
  at = at %% #requests + 1
  return requests[at]
end
"""


@dataclass
class Contestant:
    """`command` makes the server's, given a port. `paths`: of the requests, answered by `bodies` in that order; without
    any, the server is asked by ab, in its own network namespace, with the OCSP request in the file `posted`."""

    name: str
    command: Callable[[int], Sequence[str]]
    paths: list[str]
    bodies: list[bytes]
    posted: Path = Path()
    seconds: list[float] = field(default_factory=list)
    """CPU seconds of the server per request, by round."""
    rates: list[float] = field(default_factory=list)
    """Requests per second of wall time, by round."""


@dataclass
class Server:
    """A contestant that runs."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu(self) -> float:
        """CPU seconds so far, of the process and its children."""
        return sum(_cpu(pid) for pid in (self.process.pid, *_children(self.process.pid)))


def _cpu(pid: int) -> float:
    """Of all threads; the scheduler counts nanoseconds, where `stat` has ticks of ten milliseconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def running(contestant: Contestant) -> Iterator[Server]:
    """Starts it on its core and waits until it answers; ends it by its pid."""
    (port,) = free_ports(1)
    command = ["taskset", "-c", SERVER_CORE, *contestant.command(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, INSTANCE: f"bench-{contestant.name}"},  # two workers of one state have two names
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + _STARTS_WITHIN
            while not _answers(contestant, Server(process, port)):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{contestant.name} does not start: {log.read().decode()}")
                time.sleep(0.05)
            yield Server(process, port)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(contestant: Contestant, server: Server) -> bool:
    with contextlib.suppress(OSError, RuntimeError):
        if contestant.paths:
            fetch(server.port, contestant.paths[0])
        else:
            post(server, contestant.posted, 1)
        return True
    return False


def fetch(port: int, path: str) -> tuple[bytes, bytes]:
    """(header as sent, body) of one GET."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        fields = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items() if name != "Connection")
        return f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode(), answer.read()


def check(contestant: Contestant, port: int) -> None:
    """Some of its answers are the octets they should be; of who signs anew, ab sees to it that all are answered."""
    if not contestant.paths:
        return
    for number in random.sample(range(len(contestant.paths)), VERIFIED):
        if fetch(port, contestant.paths[number])[1] != contestant.bodies[number]:
            raise RuntimeError(f"{contestant.name} answers {contestant.paths[number]} with other octets")


def load(port: int, script: Path, seconds: float, connections: int) -> tuple[int, float]:
    """(requests, per second) of one run of wrk; every answer must have come and be 200."""
    done = subprocess.run(
        [
            *("taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s"),
            *("-s", str(script)),
            f"http://127.0.0.1:{port}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    errors = re.search(r"Non-2xx.*|Socket errors: .*timeout [1-9].*", done.stdout)
    requests, rate = re.search(r"(\d+) requests in", done.stdout), re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
    if errors or not requests or not rate or not int(requests[1]):
        raise RuntimeError(done.stdout)
    return int(requests[1]), float(rate[1])


def post(server: Server, file: Path, count: int) -> tuple[int, float]:
    """(requests, per second) of one run of ab, in the server's network namespace.

    One connection at a time: openssl spins for ever when one is closed that brought no request.
    """
    inside = ["nsenter", "-t", str(server.process.pid), "-U", "-n", "--preserve-credentials"]
    client = ["taskset", "-c", CLIENT_CORE, "ab", "-q", "-l", "-n", str(count), "-c", "1", "-p", str(file)]
    url = ["-T", "application/ocsp-request", f"http://127.0.0.1:{server.port}/"]
    done = subprocess.run([*inside, *client, *url], capture_output=True, text=True, check=False, timeout=120)
    said = dict(re.findall(r"^(.+?):\s+([\d.]+)", done.stdout, re.MULTILINE))
    if done.returncode or int(said["Complete requests"]) != count or "Non-2xx responses" in said:
        raise RuntimeError(done.stdout + done.stderr)
    return count, float(said["Requests per second"])


def script(folder: Path, name: str, paths: Sequence[str], zipf: int = 0) -> Path:
    """wrk's: GETs of these paths in random order, again and again; or that many drawn from them by Zipf's law."""
    listed, lua = folder / f"{name}.paths", folder / f"{name}.lua"
    weights = [1 / rank for rank in range(1, len(paths) + 1)]
    drawn = random.choices(paths, weights, k=zipf) if zipf and paths else random.sample(paths, len(paths))
    listed.write_text("\n".join(drawn) + "\n")
    lua.write_text(_LUA % listed)
    return lua
