"""`make bench-crl`: CRLs of many entries, against pyca's builder and `openssl ca -gencrl` in the same run.

Ours is the real thing: PostgreSQL, the CRL builder's and the CA signer's processes, the gate, the publish folder;
from the commit of one more revocation until the new file is there. Two kinds of rounds alternate: "one more" as it
comes, and "full", where everything is read from the database again, as after a regularly scheduled CRL; at last one
"restart", from the start of both processes, what Python needs for that included, until the next CRL is out. The peers
start from serials in memory (pyca) or from an index file (openssl), and read, compare and publish nothing.

Certificates and their revocations are loaded by COPY, with ready-made entries: loading is not what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from loadtest import page
from loadtest.system import QUASH, REPOSITORY, free_ports
from quash.pki.crl import entry
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.database import SCHEMA, Connection, connect_once
from quash.store.embedded import EmbeddedPostgres
from quash.store.roles import OWNER

_ISSUER = "tls-dv"
_NOT_AFTER = 2_000_000_000
_REASONS = (0, 1, 3, 4, 5)  # `openssl ca` does not know privilegeWithdrawn
_ONE_MORE, _FULL, _RESTART = "Quash, one more", "Quash, full", "Quash, first after a restart"
_PYCA = "pyca's builder"
_LARGE = 500_000  # from here on, openssl runs once


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of wall clock and of CPU, all processes together; peak resident megabytes of the largest process."""

    wall: float
    cpu: float
    memory: float


def revoked(count: int) -> list[tuple[int, int, int]]:
    """(serial, Unix seconds, reason): dates of three months, mixed."""
    now = int(time.time())
    return [
        (1 << 120 | hash((n, "serial")) & (1 << 60) - 1 | n << 64, now - n * 7919 % 7_776_000, _REASONS[n % 5])
        for n in range(count)
    ]


# The peers, each in a process of its own.


def pyca(count: int, folder: Path) -> float:
    """CPU seconds from serials to octets. The list is handed over whole: adding one by one copies it each time."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Bench")])
    rows = revoked(count)
    flags = {int(reason): x509.CRLReason(x509.ReasonFlags(text)) for reason, text in _PYCA_REASONS.items()}
    before = time.process_time()
    entries = []
    for serial, at, reason in rows:
        entry = x509.RevokedCertificateBuilder(serial, datetime.fromtimestamp(at, UTC).replace(tzinfo=None))
        if reason:
            entry = entry.add_extension(flags[reason], critical=False)
        entries.append(entry.build())
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    builder = x509.CertificateRevocationListBuilder(name, now, now + timedelta(days=4), [], entries)
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    body = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    (folder / "pyca.crl").write_bytes(body)
    return time.process_time() - before


_PYCA_REASONS = {1: "keyCompromise", 3: "affiliationChanged", 4: "superseded", 5: "cessationOfOperation"}
_OPENSSL_REASONS = {0: "", **{reason: f",{text}" for reason, text in _PYCA_REASONS.items()}}


def openssl(count: int, folder: Path) -> float:
    """CPU seconds of `openssl ca -gencrl` over an index of so many revoked certificates."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
         "/CN=Bench", "-days", "10", "-keyout", folder / "ca.key", "-out", folder / "ca.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    lines = []
    for serial, at, reason in revoked(count):
        text = f"{serial:x}"
        when = time.strftime("%y%m%d%H%M%SZ", time.gmtime(at))
        padded = "0" * (len(text) % 2) + text.upper()
        lines.append(f"R\t330518033320Z\t{when}{_OPENSSL_REASONS[reason]}\t{padded}\tunknown\t/CN=x\n")
    (folder / "index.txt").write_text("".join(lines))
    (folder / "crlnumber").write_text("01\n")
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/index.txt\ncrlnumber={folder}/crlnumber\ndefault_md=sha256\n"
        f"default_crl_days=4\nunique_subject=no\ncertificate={folder}/ca.pem\nprivate_key={folder}/ca.key\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        ["openssl", "ca", "-gencrl", "-config", folder / "ca.cnf", "-out", folder / "openssl.crl"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


_PEERS = {_PYCA: pyca, "openssl ca -gencrl": openssl}


def peer(name: str, count: int) -> Cost:
    """Runs one peer in a process of its own."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.crl", "--peer", name, "--sizes", str(count)],
        cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    return Cost(time.perf_counter() - started, said["cpu"], said["memory"])


def _be_peer(name: str, count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="quash-bench-") as folder:
        cpu = _PEERS[name](count, Path(folder))
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"cpu": cpu, "memory": (peaks[1] if name.startswith("openssl") else peaks[0]) / 1024}))


# Ours.


class Ours:
    """The CRL builder and the CA signer (`pids`), and a database with as many revocations as wanted."""

    def __init__(self, state: State, conn: Connection, postgres: int) -> None:
        self._state = state
        self._conn = conn
        self.pids: Sequence[int] = ()
        self._postgres = postgres
        self._count = 0
        self._file = state.crl / f"{_ISSUER}.crl"

    async def grow(self, count: int) -> None:
        """Revokes until there are `count`, and waits for their CRL."""
        before = self._seen()
        await self._load(revoked(count)[self._count :])
        self._count = count
        await self._published(before)
        published = "select max(entries) from crl where published_at is not null"
        while await self._conn.fetchval(published) < count:  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.5)
        # As autovacuum leaves a table some minutes after a mass revocation; it must not run while we measure.
        await self._conn.execute("vacuum analyze revocation", timeout=600)
        await asyncio.sleep(5)

    async def one_more(self, *, full: bool) -> Cost:
        """One more revocation; `full`: as the first one after a regularly scheduled CRL, which reads everything."""
        if full:
            await self._conn.execute("update crl set scheduled = true where published_at is not null")
        cost = await self._measured(self._cpu())
        await asyncio.sleep(2 * cost.wall + 1)  # the builder rests for twice what a CRL took
        return cost

    async def restarted(self) -> Cost:
        """The first CRL of processes that were started this moment."""
        return await self._measured(self._cpu(_children(self._postgres)))

    async def _measured(self, cpu: float) -> Cost:
        """One more revocation; `cpu` was spent before."""
        issuer = await self._conn.fetchval("select id from issuer where name = $1", _ISSUER)
        self._count += 1
        serial = ((1 << 56) + self._count).to_bytes(8, "big") + b"one more"
        before, started = self._seen(), time.perf_counter()
        await self._insert(issuer, serial)
        await self._published(before)
        wall = time.perf_counter() - started
        await asyncio.sleep(0.5)
        return Cost(wall, self._cpu() - cpu, max(map(_peak, self.pids)))

    async def _load(self, rows: Sequence[tuple[int, int, int]]) -> None:
        """Many (serial, Unix seconds, reason), in transactions of 50,000 as a mass revocation leaves behind."""
        issuer = await self._conn.fetchval("select id from issuer where name = $1", _ISSUER)
        certificate = ("issuer_id", "serial", "state", "profile", "not_after", "bucket", "created_at")
        revocation = (
            "issuer_id",
            "serial",
            "version",
            "reason",
            "revoked_at",
            "recorded_at",
            "act_id",
            "entry",
            "not_after",
        )
        for start in range(0, len(rows), 50_000):
            octets = [(n.to_bytes(16, "big"), at, reason) for n, at, reason in rows[start : start + 50_000]]
            async with self._conn.transaction():
                act = await self._act()
                await self._copy(
                    "certificate",
                    certificate,
                    [(issuer, each[0], "imported", "bench", _NOT_AFTER, 0, 0) for each in octets],
                )
                await self._copy(
                    "revocation",
                    revocation,
                    [
                        (issuer, serial, 1, reason, at, 0, act, entry(serial, at, reason), _NOT_AFTER)
                        for serial, at, reason in octets
                    ],
                )
        await self._conn.execute("select pg_notify('crl', '')")

    async def _copy(self, table: str, columns: Sequence[str], records: Sequence[tuple[object, ...]]) -> None:
        await self._conn.copy_records_to_table(table, schema_name=SCHEMA, columns=columns, records=records, timeout=600)

    async def _insert(self, issuer: int, serial: bytes) -> None:
        async with self._conn.transaction():
            await self._conn.execute(
                "insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)"
                f" values ($1, $2, 'imported', 'bench', {_NOT_AFTER}, 0, 0)",
                issuer,
                serial,
            )
            await self._conn.execute(
                "insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id)"
                " values ($1, $2, 1, 4, $3, 0, $4)",
                issuer,
                serial,
                int(time.time()),
                await self._act(),
            )
            await self._conn.execute("select pg_notify('crl', '')")

    async def _act(self) -> int:
        made: int = await self._conn.fetchval(
            "insert into act (at, actor, action, subject) values (0, 'bench', 'revoke', '{}') returning id"
        )
        return made

    def _seen(self) -> tuple[int, int]:
        with contextlib.suppress(FileNotFoundError):
            found = self._file.stat()
            return found.st_ino, found.st_mtime_ns
        return 0, 0

    async def _published(self, before: tuple[int, int]) -> None:
        deadline = time.monotonic() + 300
        while self._seen() == before:
            if time.monotonic() > deadline:
                raise RuntimeError("no new CRL for five minutes: look at crl-builder.log")
            await asyncio.sleep(0.002)

    def _cpu(self, only: Sequence[int] | None = None) -> float:
        """Of the builder, the CA signer and the database's processes, those that ended too; or of some children."""
        mine = (*self.pids, *_children(self._postgres)) if only is None else only
        return sum(map(_spent, (*mine, self._postgres))) / os.sysconf("SC_CLK_TCK")


def _spent(pid: int) -> int:
    """Clock ticks of a process and of its children that ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15]))
    return 0


def _children(parent: int) -> list[int]:
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with contextlib.suppress(OSError):
                if int((each / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(each.name))
    return found


def _peak(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")) / 1024


@contextlib.contextmanager
def _serving(folder: Path, arguments: list[str], name: str) -> Iterator[int]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([*QUASH, "serve", name, *arguments], cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


async def measure(folder: Path, sizes: Sequence[int], rounds: int) -> dict[tuple[int, str], list[Cost]]:
    """Costs by size and kind."""
    state = State(folder / "var")
    ports = zip(("responder.port", "crl_origin.port"), free_ports(2), strict=True)
    settings = [*(f"{name}={port}" for name, port in ports), "crl.coalesce=0"]
    arguments = ["--config", str(REPOSITORY / "config/demo.toml"), "--state", str(state.root)]
    arguments += [part for setting in settings for part in ("--set", setting)]
    await asyncio.to_thread(subprocess.run, [*QUASH, "init", "--quiet", *arguments], cwd=REPOSITORY, check=True)
    found: dict[tuple[int, str], list[Cost]] = {}

    def add(size: int, name: str, cost: Cost) -> None:
        found.setdefault((size, name), []).append(cost)

    with EmbeddedPostgres(state).run():
        conn = await connect_once(Config(), state, OWNER)
        postgres = int((state.pg / "data" / "postmaster.pid").read_text().split()[0])
        ours = Ours(state, conn, postgres)
        for size in sizes:
            with _both(folder, arguments) as ours.pids:
                await ours.grow(size)
                for _ in range(rounds):
                    add(size, _ONE_MORE, await ours.one_more(full=False))
                    add(size, _FULL, await ours.one_more(full=True))
                    for name in _PEERS:
                        if size < _LARGE or name == _PYCA or (size, name) not in found:
                            add(size, name, await asyncio.to_thread(peer, name, size))
            with _both(folder, arguments) as ours.pids:
                add(size, _RESTART, await ours.restarted())
        await conn.close()
    return found


@contextlib.contextmanager
def _both(folder: Path, arguments: list[str]) -> Iterator[list[int]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_serving(folder, arguments, name)) for name in ("ca-signer", "crl-builder")]


def report(found: dict[tuple[int, str], list[Cost]]) -> str:
    """A Markdown table: medians."""
    where = (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load average"
        f" {os.getloadavg()[1]:.1f} while measuring (so judge by CPU), {datetime.now(UTC):%Y-%m-%d}. Medians."
    )
    lines = [
        where,
        "",
        "| entries | what | CPU s | wall s | peak MB of the largest process | rounds |",
        "|---|---|---|---|---|---|",
    ]
    for (size, name), costs in found.items():
        cpu, wall, memory = (statistics.median(getattr(c, field) for c in costs) for field in ("cpu", "wall", "memory"))
        lines.append(f"| {size:,} | {name} | {cpu:.2f} | {wall:.2f} | {memory:.0f} | {len(costs)} |")
    for size in dict.fromkeys(size for size, _ in found):
        pyca_s, ours = (statistics.median(c.cpu for c in found[size, name]) for name in (_PYCA, _FULL))
        lines += ["", f"Full build of {size:,} against pyca's builder, by CPU: {pyca_s / ours:.1f} times (budget 10)."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 150_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are told")
    parser.add_argument("--full", action="store_true", help="ten rounds, for half an hour")
    parser.add_argument("--write", type=Path, help="also write the table into this page")
    parser.add_argument("--peer", choices=list(_PEERS), help=argparse.SUPPRESS)
    given: Any = parser.parse_args()
    if given.peer:
        _be_peer(given.peer, given.sizes[0])
        return
    with tempfile.TemporaryDirectory(prefix="quash-bench-", dir="/tmp") as folder:
        text = report(asyncio.run(measure(Path(folder), given.sizes, 10 if given.full else given.rounds)))
    print(text)
    if given.write:
        page.write(given.write, "bench-crl", text)


if __name__ == "__main__":
    main()
