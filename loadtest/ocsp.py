"""`make bench-ocsp`: cached OCSP answers by GET, against the best that can be done with the same bytes.

Contestants, one after the other in each round, each alone on one pinned core, with wrk on another one:
  * fast: a responder worker; full: the same without its fast path;
  * constant: an event loop's protocol that writes the same octets unread to whatever arrives;
  * nginx: the same answers as static files, open files cached, access log off.
Judged by CPU time of the server per request, since that holds on a machine that does other things as well; each ratio
is the median of those of the rounds. Before the rounds every contestant's answers are verified.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import uvloop

from loadtest.pki import BenchIssuer, fill
from loadtest.system import free_ports
from quash.pki.certid import CertIdHash
from quash.pki.ocsp_request import build_request
from quash.pki.ocsp_response import verify_response
from quash.runtime.state import State

REPOSITORY = Path(__file__).parents[1]
DOCUMENT = REPOSITORY / "docs" / "performance.md"
_BEGIN, _END = "<!-- make bench-ocsp -->", "<!-- end of make bench-ocsp -->"
BUDGETS = {"nginx": 1.0, "constant": 0.45}  # CPU of the contestant over ours, at least (design, section 8)
SERVER_CORE, CLIENT_CORE = "0", "1"
_VERIFIED = 20
_TICKS = os.sysconf("SC_CLK_TCK")

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
_NGINX = """
daemon off; worker_processes 1; %(user)s pid %(folder)s/nginx.pid; error_log %(folder)s/nginx.log;
events { worker_connections 512; }
http {
  access_log off; default_type application/ocsp-response; sendfile off; tcp_nodelay on; keepalive_requests 1000;
  open_file_cache max=%(files)d inactive=1h; open_file_cache_valid 1h;
  client_body_temp_path %(folder)s/t1; proxy_temp_path %(folder)s/t2; fastcgi_temp_path %(folder)s/t3;
  uwsgi_temp_path %(folder)s/t4; scgi_temp_path %(folder)s/t5;
  server { listen 127.0.0.1:%(port)d; root %(folder)s/files; expires 30m; }
}
"""


@dataclass
class Contestant:
    """`command` makes the server's, given a port. `paths`: of the requests, answered by `bodies` in that order."""

    name: str
    command: Callable[[int], Sequence[str]]
    paths: list[str]
    bodies: list[bytes]
    seconds: list[float] = field(default_factory=list)
    """CPU seconds of the server per request, by round."""
    rates: list[float] = field(default_factory=list)
    """Requests per second of wall time, by round."""


class Constant(asyncio.Protocol):
    """Writes one answer for every segment that arrives."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]

    def data_received(self, _: bytes) -> None:
        self.write(self.answer)


async def serve_constant(port: int, answer: bytes) -> None:
    Constant.answer = answer
    await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port)
    await asyncio.Event().wait()


def contestants(folder: Path, count: int) -> list[Contestant]:
    """All four, on a new state with `count` certificates."""
    state = State(folder / "var")
    issuer = BenchIssuer(int(time.time()))
    asked = [
        build_request(issuer.cert_id(serial, random.choice((CertIdHash.SHA1, CertIdHash.SHA256))))
        for serial in fill(state.cache, issuer, count)
    ]
    paths = ["/tls-dv/" + quote(base64.b64encode(der), safe="") for der in asked]
    common = ["--config", str(REPOSITORY / "config" / "demo.toml"), "--state", str(state.root)]
    common += ["--set", "responder.fresh_seconds=7200"]  # nobody writes heartbeats

    def worker(*more: str) -> Callable[[int], Sequence[str]]:
        command = [sys.executable, "-m", "quash.cli.main", "serve", "responder", *common]
        return lambda port: [*command, *(part for s in (*more, f"responder.port={port}") for part in ("--set", s))]

    fast = Contestant("fast", worker(), paths, [])
    with running(fast) as server:
        answers = [fetch(server.port, path) for path in paths]
    fast.bodies = [body for _, body in answers]
    for body, der in list(zip(fast.bodies, asked, strict=True))[:_VERIFIED]:
        parsed = verify_response(body, issuer.row.certificate)
        assert parsed.cert_id is not None
        assert build_request(parsed.cert_id) == der
    full = Contestant("full", worker("responder.fast_path=false"), paths, fast.bodies)
    (folder / "constant").write_bytes(answers[0][0] + fast.bodies[0])
    constant = Contestant(
        "constant",
        lambda port: [sys.executable, "-m", "loadtest.ocsp", "--serve", str(port), str(folder / "constant")],
        paths,
        [fast.bodies[0]] * count,
    )
    return [fast, full, constant, nginx(folder, asked, fast.bodies)]


def nginx(folder: Path, asked: Sequence[bytes], bodies: list[bytes]) -> Contestant:
    """Each answer a file, named so that requests are as long as the others."""
    names = ["tls-dv/" + base64.urlsafe_b64encode(der).decode().rstrip("=") for der in asked]
    (folder / "files" / "tls-dv").mkdir(parents=True)
    for name, body in zip(names, bodies, strict=True):
        (folder / "files" / name).write_bytes(body)

    def command(port: int) -> Sequence[str]:
        settings = {"folder": folder, "port": port, "files": len(names) + 100}
        settings["user"] = "user root;" if os.geteuid() == 0 else ""  # else its worker could not read our folder
        (folder / "nginx.conf").write_text(_NGINX % settings)
        return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "nginx.log")]

    return Contestant("nginx", command, [f"/{name}" for name in names], bodies)


@dataclass
class Server:
    """A contestant that runs."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu(self) -> float:
        """CPU seconds so far, of the process and its children."""
        return sum(_cpu(pid) for pid in (self.process.pid, *_children(self.process.pid)))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def running(contestant: Contestant) -> Iterator[Server]:
    """Starts it on its core and waits until it answers; ends it by its pid."""
    (port,) = free_ports(1)
    command = ["taskset", "-c", SERVER_CORE, *contestant.command(port)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not _answers(port, contestant.paths[0]):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{contestant.name} does not start: {' '.join(command)}")
            time.sleep(0.05)
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int, path: str) -> bool:
    with contextlib.suppress(OSError):
        fetch(port, path)
        return True
    return False


def fetch(port: int, path: str) -> tuple[bytes, bytes]:
    """(header as sent, body) of one GET."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        fields = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items() if name != "Connection")
        return f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode(), answer.read()


def check(contestant: Contestant, port: int) -> None:
    """Some of its answers are the octets they should be."""
    for number in random.sample(range(len(contestant.paths)), _VERIFIED):
        if fetch(port, contestant.paths[number])[1] != contestant.bodies[number]:
            raise RuntimeError(f"{contestant.name} answers {contestant.paths[number]} with other octets")


def load(port: int, script: Path, seconds: float, connections: int) -> tuple[int, float]:
    """(requests, per second) of one run of wrk; every answer must have come and be 200."""
    done = subprocess.run(
        [
            *("taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(script)),
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


def measure(all_: Sequence[Contestant], folder: Path, options: argparse.Namespace) -> None:
    """Rounds in which the order rotates; every server runs all the time, idle but for its turn."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(contestant)) for contestant in all_]
        scripts = [_script(folder, contestant) for contestant in all_]
        for contestant, server, script in zip(all_, servers, scripts, strict=True):
            check(contestant, server.port)
            warm = 0
            while warm < 2 * len(contestant.paths):  # every answer was asked for: memos, page cache, open files
                warm += load(server.port, script, 1, options.connections)[0]
        for number in range(options.rounds):
            for turn in range(len(all_)):
                index = (number + turn) % len(all_)
                contestant, server = all_[index], servers[index]
                before = server.cpu()
                requests, rate = load(server.port, scripts[index], options.seconds, options.connections)
                contestant.seconds.append((server.cpu() - before) / requests)
                contestant.rates.append(rate)
                print(f"round {number + 1}: {contestant.name:9} {rate:8.0f}/s {contestant.seconds[-1] * 1e6:6.1f} µs")
        for contestant, server in zip(all_, servers, strict=True):
            check(contestant, server.port)


def _script(folder: Path, contestant: Contestant) -> Path:
    listed, script = folder / f"{contestant.name}.paths", folder / f"{contestant.name}.lua"
    listed.write_text("\n".join(random.sample(contestant.paths, len(contestant.paths))) + "\n")
    script.write_text(_LUA % listed)
    return script


def ratio(ours: Contestant, other: Contestant) -> float:
    """How many times our rate the other's would be on a full core, inverted: above 1, we are faster."""
    return statistics.median(b / a for a, b in zip(ours.seconds, other.seconds, strict=True))


def report(all_: Sequence[Contestant], options: argparse.Namespace) -> str:
    """Markdown."""
    ours = all_[0]
    what = f"GETs of {options.certificates} certificates, both hashes, {options.connections} connections"
    how = f"{options.rounds} rounds of {options.seconds:.0f} s, medians of CPU time"
    lines = [
        f"`make bench-ocsp`, {datetime.now(UTC):%Y-%m-%d}: {what}; {how}; {machine()}.",
        "",
        "| server | CPU per request | requests/s of that core | requests/s seen | ours against it (budget) |",
        "|---|---|---|---|---|",
    ]
    labels = {"fast": "responder", "full": "responder, full path alone", "constant": "constant octets, nothing read"}
    for each in all_:
        cpu, rate = statistics.median(each.seconds), statistics.median(each.rates)
        budget = f" (≥ {BUDGETS[each.name]})" if each.name in BUDGETS else ""
        against = f"{ratio(ours, each):.2f}{budget}" if each is not ours else ""
        label = labels.get(each.name, "nginx, static files")
        lines.append(f"| {label} | {cpu * 1e6:.1f} µs | {1 / cpu:.0f} | {rate:.0f} | {against} |")
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores, kernel, versions."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip().split(" ")[-1]
    processor = model[1] if model else platform.machine()
    software = f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, {version}"
    return f"{processor}, {os.cpu_count()} cores, {software}; load average {os.getloadavg()[0]:.1f}"


def write(text: str) -> None:
    """Replaces this benchmark's part of the document, or appends it."""
    body = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else "# Performance\n"
    head, begin, rest = body.partition(_BEGIN)
    tail = rest.partition(_END)[2] if begin else "\n"
    if not begin:
        head = f"{head.rstrip()}\n\n## OCSP answers\n\n"
    DOCUMENT.write_text(f"{head}{_BEGIN}\n{text}\n{_END}{tail}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--certificates", type=int, default=10_000)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "FILE"), help="be the contestant `constant`")
    options = parser.parse_args(arguments)
    if options.serve:
        uvloop.run(serve_constant(int(options.serve[0]), Path(options.serve[1]).read_bytes()))
        return
    with tempfile.TemporaryDirectory(prefix="quash-bench-") as name:
        folder = Path(name)
        all_ = contestants(folder, options.certificates)
        measure(all_, folder, options)
    text = report(all_, options)
    print(text)
    if options.write:
        write(text)
    missed = [each.name for each in all_ if each.name in BUDGETS and ratio(all_[0], each) < BUDGETS[each.name]]
    if missed:
        sys.exit(f"below the budget against: {', '.join(missed)}")


if __name__ == "__main__":
    main()
