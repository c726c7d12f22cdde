"""`make bench-ocsp`: cached OCSP answers by GET, against the best that can be done with the same bytes.

Contestants, one after the other in each round, each alone on one pinned core, with wrk on another one:
  * fast: a responder worker; full: the same without its fast path;
  * constant: an event loop's protocol that writes the same octets unread to whatever arrives;
  * nginx: the same answers as static files, open files cached, access log off;
  * openssl: `openssl ocsp`, which signs each answer and ends each connection, asked by ab for one certificate by POST;
    wrk would hang it, and it listens everywhere, so both are in a network namespace of their own;
  * cfssl: `cfssl ocspserve` with the same answers, where cfssl 1.6 or newer is installed.
Judged by CPU time of the server per request, since that holds on a machine that does other things as well; each ratio
is the median of those of the rounds. Turns are short and many, since a virtual core has fast and slow seconds. Before
the rounds every contestant's answers are verified.
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
import shutil
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
from functools import partial
from pathlib import Path
from urllib.parse import quote

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from loadtest.pki import BenchIssuer, fill
from loadtest.system import free_ports
from quash.pki.certid import CertIdHash
from quash.pki.ocsp_request import build_request
from quash.pki.ocsp_response import verify_response
from quash.runtime.state import State
from quash.runtime.supervisor import INSTANCE

REPOSITORY = Path(__file__).parents[1]
DOCUMENT = REPOSITORY / "docs" / "performance.md"
_BEGIN, _END = "<!-- make bench-ocsp -->", "<!-- end of make bench-ocsp -->"
BUDGETS = {
    "nginx": 1.0,
    "constant": 0.45,
    "cfssl": 4.0,
}  # CPU of the contestant over ours, at least (design, section 8)
SERVER_CORE, CLIENT_CORE = "0", "1"
_VERIFIED = 20
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
    """All of them, on a new state with `count` certificates."""
    state = State(folder / "var")
    issuer = BenchIssuer(int(time.time()))
    serials = fill(state.cache, issuer, count)
    hashes = (CertIdHash.SHA1, CertIdHash.SHA256)
    asked = [build_request(issuer.cert_id(serial, random.choice(hashes))) for serial in serials]
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
    signing = openssl(folder, issuer, serials, asked[0])
    return [fast, nginx(folder, asked, fast.bodies), constant, full, signing, *cfssl(folder, asked, fast.bodies)]


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


def openssl(folder: Path, issuer: BenchIssuer, serials: Sequence[bytes], asked: bytes) -> Contestant:
    """With an index of all certificates, each of them good."""
    for name, der in (("ca", issuer.row.certificate), ("signer", issuer.signer_row.certificate)):
        (folder / f"{name}.pem").write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    (folder / "signer.key").write_bytes(issuer.signer_key())
    rows = (f"V\t491231235959Z\t\t{serial.hex().upper()}\tunknown\t/CN={serial.hex()}\n" for serial in serials)
    (folder / "index.txt").write_text("".join(rows))
    (folder / "asked.der").write_bytes(asked)
    files = {"index": "index.txt", "CA": "ca.pem", "rsigner": "signer.pem", "rkey": "signer.key"}
    options = " ".join(f"-{option} {folder / name}" for option, name in files.items())

    def command(port: int) -> Sequence[str]:
        serve = f"exec openssl ocsp -port {port} {options} -rmd sha256 -resp_key_id -ndays 2"
        return ["unshare", "-rn", "sh", "-c", f"ip link set lo up && {serve}"]

    return Contestant("openssl", command, [], [], folder / "asked.der")


def cfssl_version() -> tuple[int, ...]:
    """Of the one that is installed; empty when none is."""
    if not shutil.which("cfssl"):
        return ()
    said = subprocess.run(["cfssl", "version"], capture_output=True, text=True, check=True).stdout
    numbers = re.search(r"\d+(\.\d+)+", said)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def cfssl(folder: Path, asked: Sequence[bytes], bodies: list[bytes]) -> list[Contestant]:
    """None where it is not installed, or older than 1.6: Debian 12's 1.2 answers 400 to every GET."""
    if cfssl_version() < (1, 6):
        return []
    (folder / "responses").write_text("\n".join(base64.b64encode(body).decode() for body in bodies))
    serve = ["cfssl", "ocspserve", "-address", "127.0.0.1", "-loglevel", "5", "-responses", str(folder / "responses")]
    paths = ["/" + quote(base64.b64encode(der), safe="") for der in asked]
    return [Contestant("cfssl", lambda port: [*serve, "-port", str(port)], paths, bodies)]


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
    for number in random.sample(range(len(contestant.paths)), _VERIFIED):
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


def measure(all_: Sequence[Contestant], folder: Path, options: argparse.Namespace) -> None:
    """Rounds in which the order rotates; every server runs all the time, idle but for its turn."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(contestant)) for contestant in all_]
        scripts = [script(folder, contestant.name, contestant.paths, options.zipf) for contestant in all_]
        turns = [
            partial(load, server.port, lua, options.seconds, options.connections)
            if contestant.paths
            else partial(post, server, contestant.posted, options.signed)
            for contestant, server, lua in zip(all_, servers, scripts, strict=True)
        ]
        for contestant, server, take_turn in zip(all_, servers, turns, strict=True):
            check(contestant, server.port)
            warm = 0
            while warm < 2 * len(contestant.paths):  # every answer was asked for: memos, page cache, open files
                warm += take_turn()[0]
        for number in range(options.rounds):
            for turn in range(len(all_)):
                index = (number + turn) % len(all_)
                contestant, server = all_[index], servers[index]
                before = server.cpu()
                requests, rate = turns[index]()
                contestant.seconds.append((server.cpu() - before) / requests)
                contestant.rates.append(rate)
                print(f"round {number + 1}: {contestant.name:9} {rate:8.0f}/s {contestant.seconds[-1] * 1e6:6.1f} µs")
        for contestant, server in zip(all_, servers, strict=True):
            check(contestant, server.port)


def script(folder: Path, name: str, paths: Sequence[str], zipf: int = 0) -> Path:
    """wrk's: GETs of these paths in random order, again and again; or that many drawn from them by Zipf's law."""
    listed, lua = folder / f"{name}.paths", folder / f"{name}.lua"
    weights = [1 / rank for rank in range(1, len(paths) + 1)]
    drawn = random.choices(paths, weights, k=zipf) if zipf and paths else random.sample(paths, len(paths))
    listed.write_text("\n".join(drawn) + "\n")
    lua.write_text(_LUA % listed)
    return lua


def ratio(ours: Contestant, other: Contestant) -> float:
    """How many times our rate the other's would be on a full core, inverted: above 1, we are faster."""
    return statistics.median(b / a for a, b in zip(ours.seconds, other.seconds, strict=True))


def report(all_: Sequence[Contestant], options: argparse.Namespace) -> str:
    """Markdown."""
    ours = all_[0]
    mix = f"{options.zipf} drawn by Zipf's law" if options.zipf else "each as often"
    what = f"GETs of {options.certificates} certificates, {mix}, both hashes, {options.connections} connections"
    how = f"{options.rounds} rounds of {options.seconds:.0f} s, medians of CPU time"
    lines = [
        f"`make bench-ocsp`, {datetime.now(UTC):%Y-%m-%d}: {what}; {how}; {machine()}.",
        "",
        "| server | CPU per request | requests/s of that core | requests/s seen | ours against it (budget) |",
        "|---|---|---|---|---|",
    ]
    labels = {"fast": "responder", "full": "responder, full path alone", "constant": "constant octets, nothing read"}
    labels |= {
        "nginx": "nginx, static files",
        "openssl": "openssl ocsp, signing each answer (by ab)",
        "cfssl": f"cfssl {'.'.join(map(str, cfssl_version()))} ocspserve",
    }
    for each in all_:
        cpu, rate = statistics.median(each.seconds), statistics.median(each.rates)
        budget = f" (≥ {BUDGETS[each.name]})" if each.name in BUDGETS else ""
        against = f"{ratio(ours, each):.2f}{budget}" if each is not ours else ""
        label = labels[each.name]
        lines.append(f"| {label} | {cpu * 1e6:.1f} µs | {1 / cpu:.0f} | {rate:.0f} | {against} |")
    if "cfssl" not in [each.name for each in all_]:
        lines += ["", "cfssl 1.6 or newer is not installed on this machine: its ocspserve was not measured."]
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
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--certificates", type=int, default=10_000)
    parser.add_argument("--signed", type=int, default=300, help="requests of a turn of openssl")
    parser.add_argument("--zipf", type=int, default=0, help="draw so many requests by Zipf's law, as traffic is")
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
