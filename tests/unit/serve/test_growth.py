"""Ten million records cost a request little more than ten thousand, and a worker no memory (design, section 8).

Caches are filled by the cache's own writer with records whose signatures are random octets, which nothing here reads.
The large one takes 3 GB below the folder for temporary files, and is removed.
"""

from __future__ import annotations

import base64
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from loadtest import servers as bench
from loadtest.pki import VALIDITY, BenchIssuer
from quash.cache.layout import Record, encode_head
from quash.cache.writer import Changes, LmdbWriter
from quash.pki.certid import CertIdHash
from quash.pki.ocsp_reading import parse_response
from quash.pki.ocsp_request import build_request
from quash.runtime.state import State
from tests.unit.serve.conftest import WORKER

pytestmark = pytest.mark.long

FEW, MANY, SOME = 10_000, 10_000_000, 1_000_000
REQUESTS = 100_000  # drawn before the rounds; wrk goes round them
ROUNDS, SECONDS, CONNECTIONS = 5, 3.0, 32
SPREAD = 0x9E3779B97F4A7C15  # odd: a permutation of 64 bits that scatters
BATCH = 10_000
FREE = 8 << 30  # octets that must be free on the disk

FORGETFUL = """
from responder.serve import fast

class Forgetful(dict):
    def __setitem__(self, key, value):
        pass

forget = fast.FastPath._forget

def forget_for_ever(self):
    forget(self)
    for memo in ("_known", "_lines", "_made"):
        assert getattr(self, memo) == {}
        setattr(self, memo, Forgetful())

fast.FastPath._forget = forget_for_ever
"""


def serial(rank: int) -> bytes:
    """16 octets; neighbours in rank lie apart in the cache."""
    return b"\x41" + (rank * SPREAD % (1 << 64)).to_bytes(8, "big") + b"quashed"


def items(ranks: list[int], at: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Records of `good`, signed at `at` as it were."""
    head = encode_head(Record(0, None, 0, at, at + VALIDITY, 1, (b"r" * 64, b"s" * 64)))
    octets = os.urandom(len(ranks) + 128)
    return ((1, serial(rank), head + octets[place : place + 128]) for place, rank in enumerate(ranks))


def fill(folder: Path, issuer: BenchIssuer, count: int) -> LmdbWriter:
    """A complete cache. A region after the other, each in three commits and random order: the pages that a fill in
    random order makes, at a tenth of its writing."""
    writer = LmdbWriter(folder)
    writer.apply(Changes(issuers=[issuer.row], templates=[issuer.signer_row], heartbeat=issuer.now, complete=True))
    ranks = sorted(range(count), key=lambda rank: rank * SPREAD % (1 << 64))
    for at in range(0, count, 3 * BATCH):
        region = ranks[at : at + 3 * BATCH]
        random.shuffle(region)
        for part in range(3):
            writer.apply(Changes(records=items(region[part::3], issuer.now)))
    return writer


def paths(issuer: BenchIssuer, count: int) -> list[str]:
    """GETs by Zipf's law with exponent 1 over all certificates, by both hashes."""
    drawn = [int(count ** random.random()) - 1 for _ in range(REQUESTS)]
    asked = (build_request(issuer.cert_id(serial(rank), random.choice(list(CertIdHash)))) for rank in drawn)
    return ["/tls-dv/" + base64.b64encode(der).decode().replace("/", "%2F").replace("+", "%2B") for der in asked]


class Worker:
    """A responder worker over a cache, pinned, that remembers answers or not."""

    def __init__(self, name: str, state: State, memo: bool) -> None:
        self.listen = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listen.getsockname()[1]
        code = WORKER if memo else FORGETFUL + WORKER
        config = '{"responder": {"fresh_seconds": 7200}}'  # nobody writes heartbeats
        command = [sys.executable, "-c", code, str(state.root), str(self.listen.fileno()), name, config]
        self.process = subprocess.Popen(["taskset", "-c", bench.SERVER_CORE, *command], pass_fds=[self.listen.fileno()])
        self.server = bench.Server(self.process, self.port)

    def private(self) -> int:
        """Octets of memory that this process alone has, pages of the cache file apart: those are the kernel's cache."""
        total, counted = 0, True
        for line in Path(f"/proc/{self.process.pid}/smaps").read_text().splitlines():
            first, _, rest = line.partition(" ")
            if "-" in first and not first.endswith(":"):
                counted = not rest.endswith("responses.mdb")
            elif counted and first in ("Private_Clean:", "Private_Dirty:"):
                total += int(rest.split()[0]) * 1024
        return total

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.listen.close()


@contextmanager
def folder() -> Iterator[Path]:
    """Removed at once: pytest keeps its own folders for three runs."""
    with tempfile.TemporaryDirectory(prefix="quash-growth-") as name:
        assert shutil.disk_usage(name).free > FREE, f"{name}: {FREE >> 30} GB must be free (TMPDIR names another place)"
        yield Path(name)


def answered(port: int, path: str) -> None:
    """Waits for a worker; it answers `good`."""
    deadline = time.monotonic() + 120
    while True:
        try:
            parsed = parse_response(bench.fetch(port, path)[1])
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            continue
        assert parsed.status == (None, 0)
        return


def test_ten_million_records() -> None:
    """CPU per request at most 1.3 times that at ten thousand, nothing remembered; under 80 MB private memory, with all
    that is remembered."""
    issuer = BenchIssuer(int(time.time()))
    with folder() as place, ExitStack() as stack:
        workers, scripts = {}, {}
        for name, count, memo in (("few", FEW, False), ("many", MANY, False), ("remembering", MANY, True)):
            state = State(place / str(count))
            if not (state.cache / "responses.mdb").exists():
                fill(state.cache, issuer, count).environment.close()
            asked = paths(issuer, count)
            workers[name] = Worker(name, state, memo)
            stack.callback(workers[name].close)
            answered(workers[name].port, asked[0])
            scripts[name] = bench.script(place, name, asked)
            bench.load(workers[name].port, scripts[name], SECONDS, CONNECTIONS)
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(ROUNDS):
            for name in sorted(workers, reverse=bool(number % 2)):
                before = workers[name].server.cpu()
                requests, _ = bench.load(workers[name].port, scripts[name], SECONDS, CONNECTIONS)
                seconds[name].append((workers[name].server.cpu() - before) / requests)
        private = {name: worker.private() / 1e6 for name, worker in workers.items()}
        cpu = {name: statistics.median(each) * 1e6 for name, each in seconds.items()}
        told = ", ".join(f"{name}: {cpu[name]:.1f} µs, {private[name]:.0f} MB" for name in workers)
        sys.stdout.write(f"\n{told}\n")
        ratio = statistics.median(b / a for a, b in zip(seconds["few"], seconds["many"], strict=True))
        assert ratio <= 1.3, told
        assert max(private.values()) < 80, told


def test_pages_of_a_record_after_a_refresh_in_random_order() -> None:
    """At most 300 octets of used pages a certificate, whatever order a million of them were signed anew in."""
    issuer, count = BenchIssuer(int(time.time())), SOME
    with folder() as place:
        writer = fill(place, issuer, count)
        filled = writer.size().used / count
        ranks = random.sample(range(count), count)
        for at in range(0, count, BATCH):
            assert writer.apply(Changes(records=items(ranks[at : at + BATCH], issuer.now + 72_000))) == BATCH
        used = writer.size().used / count
        writer.environment.close()
        sys.stdout.write(f"\n{filled:.0f} octets a record once filled, {used:.0f} after the refresh\n")
        assert used <= 300
