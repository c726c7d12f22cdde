"""`make bench-mass`: a mass revocation on a running system, every stage timed; by default that of March 2020.

Certificates are pre-loaded by COPY (as imports: without DER), answered `good`, then revoked by the commands that
operators use: `quash revoke --issued-between --preview`, `quash job start`, `quash approve`. A stage is over when what
it makes is there: revocations in the database, records in the feed, records in the node's cache, every scope's CRL
published. Single revocations are made beside it. CPU is of all processes of the system, from /proc.

The budgets (design, section 8): three times what a bare sign loop on all cores needs for two signatures of each, 300
octets of cache a certificate, single revocations seen within 2 s, and in their CRL of 100,000 entries within 10 s
(p99). The exit status is 1 beyond one of them; of fewer certificates, what does not grow with them weighs too much.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import secrets
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from loadtest import page, revocations
from loadtest.api import client
from loadtest.bulk import issue, revoke
from loadtest.mass_report import MARCH_2020, Measured, missed, table
from loadtest.processes import Processes
from loadtest.system import REPOSITORY, System
from quash.pki.serials import new_serial
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store import certificates, issuers, outbox
from quash.store.database import SCHEMA, Connection, connect_once
from quash.store.roles import OWNER

_ISSUER = "tls-dv"
_IN_SHARD = 100_000  # B21: a CRL below 150,000 entries
_IN_BUCKET = 3000
_DAY = 86_400
_POLL = 1.0  # seconds, at first: every look is a scrape of all processes
_ACCURACY = 0.01  # of the time that has passed, so that looking costs a long run no more than it must
_PAUSE = 0.2
_SIGNATURES = 50_000
_SIGNED, _APPLIED = "quash_presign_records_total", "quash_follower_records_applied_total"


def config_with(folder: Path, shards: int) -> Path:
    """The demo with so many CRL shards."""
    text = (REPOSITORY / "config" / "demo.toml").read_text(encoding="utf-8")
    made = folder / "mass.toml"
    made.write_text(re.sub(r"^shards = \d+$", f"shards = {shards}", text, flags=re.MULTILINE), encoding="utf-8")
    return made


def bare() -> float:
    """CPU seconds of one P-256 signature by the library alone, while every core makes them."""
    cores, spawned = os.cpu_count() or 1, multiprocessing.get_context("spawn")
    with spawned.Manager() as manager, ProcessPoolExecutor(cores, spawned) as pool:
        return statistics.mean(pool.map(_sign, [manager.Barrier(cores)] * cores, [_SIGNATURES] * cores))


def _sign(together: threading.Barrier, count: int) -> float:
    key, octets, scheme = ec.generate_private_key(ec.SECP256R1()), secrets.token_bytes(220), ec.ECDSA(hashes.SHA256())
    together.wait()
    began = time.process_time()
    for _ in range(count):
        key.sign(octets, scheme)
    return (time.process_time() - began) / count


async def preload(conn: Connection, count: int, issued: int) -> None:
    """Pre-loads certificates of the issuer and has them answered."""
    issuer = await issuers.find_by_name(conn, _ISSUER)
    assert issuer is not None
    now = int(time.time())

    def rows(some: int) -> Iterator[tuple[Any, ...]]:
        for _ in range(some):
            serial = new_serial()
            shard = certificates.shard_of(serial, issuer.shard_count)
            bucket = certificates.bucket_of(serial, issuer.bucket_count)
            key = secrets.token_bytes(32)
            yield issuer.id, serial, "imported", _ISSUER, key, issued, now + 60 * _DAY, shard, bucket, now

    names = ("issuer_id", "serial", "state", "profile", "spki_sha256", "not_before", "not_after", "shard", "bucket")
    for begin in range(0, count, 50_000):
        await conn.copy_records_to_table(
            "certificate",
            schema_name=SCHEMA,
            columns=(*names, "created_at"),
            records=rows(min(50_000, count - begin)),
            timeout=600,
        )
    await conn.execute("analyze certificate", timeout=600)
    await outbox.add_buckets(conn, issuer.id, range(issuer.bucket_count))


def metric(system: System, name: str) -> float:
    """A counter, summed over its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{system.ports['metrics']}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line))


async def reached(began: float, done: Callable[[], Awaitable[bool]]) -> float:
    """Seconds from `began` until it is done."""
    while not await done():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(max(_POLL, _ACCURACY * (time.monotonic() - began)))
    return time.monotonic() - began


async def in_metric(system: System, name: str, least: float) -> bool:
    return await asyncio.to_thread(metric, system, name) >= least


async def published(conn: Connection, before: int) -> bool:
    """Whether every scope's CRL shows all that was revoked by transactions below `before`.

    Until it shows the newest of each scope, nobody looks at the rest, which are as many as were revoked.
    """
    return await _show(conn, before, 1) and await _show(conn, before, None)


async def _show(conn: Connection, before: int, newest: int | None) -> bool:
    """Whether the CRLs show so many of each scope; None: all."""
    shown = await conn.fetchval(
        "select not exists (select from crl_scope s cross join lateral (select covers from crl"
        "  where crl.issuer_id = s.issuer_id and crl.scope = s.scope and published_at is not null"
        "  order by number desc limit 1) c"
        " cross join lateral (select tx from revocation r where r.issuer_id = s.issuer_id"
        "  and coalesce(r.shard, -1) = coalesce(s.shard, -1)"
        "  and r.tx >= pg_snapshot_xmin(c.covers) and r.tx < $1 order by tx desc limit $2) r"
        " where not pg_visible_in_snapshot(r.tx, c.covers))",
        before,
        newest,
    )
    return bool(shown)


async def prepare(system: System, issued: int) -> dict[str, Any]:
    """The preview of the mass revocation."""
    first, last = (datetime.fromtimestamp(issued + step, UTC).isoformat() for step in (-60, 60))
    between = ("--issuer", _ISSUER, "--issued-between", first, last)
    return await _quash(system, "revoke --preview", *between, "--reason", "superseded", "--as", "officer")


async def start(system: System, job_id: int) -> None:
    """Starts it with two officers."""
    said = await _quash(system, "job start", str(job_id), "--as", "officer")
    if "proposed_by" in said:
        await _quash(system, "approve", str(said["id"]), "--sha256", said["sha256"], "--as", "officer2")


async def _quash(system: System, verb: str, *arguments: str) -> dict[str, Any]:
    done = await asyncio.to_thread(system.quash, verb, *arguments, "--json", timeout=3600)
    if done.status != 0:
        raise RuntimeError(done.err)
    said: dict[str, Any] = done.json
    return said


async def singles(session: Any, system: System, serials: list[str], until: asyncio.Event) -> list[float]:
    """Milliseconds of single revocations until each is visible on OCSP, until the event or the last serial."""
    times = []
    for serial in serials:
        if until.is_set():
            break
        times.append(await revoke(session, system, serial))
        await asyncio.sleep(_PAUSE)
    return times


async def measure(system: System, count: int, single: int) -> Measured:
    """Raises when the cache does not have every certificate revoked in the end."""
    signatures, issued = [await asyncio.to_thread(bare)], int(time.time()) - 30 * _DAY
    conn = await connect_once(Config(), State(system.state), OWNER)
    async with client(system) as session:
        serials = await issue(session, system, 2 * single)
        idle = await singles(session, system, serials[:single], asyncio.Event())
        applied, signed = metric(system, _APPLIED), metric(system, _SIGNED)
        began = time.monotonic()
        await preload(conn, count, issued)
        loaded = time.monotonic() - began
        processes = Processes(system)
        answered = await reached(time.monotonic(), lambda: in_metric(system, _APPLIED, applied + count))
        answered_cpu = processes.spent().total()
        await conn.execute("vacuum (analyze) certificate", timeout=3600)
        began = time.monotonic()
        preview = await prepare(system, issued)
        previewed = time.monotonic() - began
        processes, began, over = Processes(system), time.monotonic(), asyncio.Event()
        await start(system, preview["id"])

        async def revoked() -> bool:
            return bool(await conn.fetchval("select state = 'done' from mass_job where id = $1", preview["id"]))

        async def listed() -> dict[str, float]:
            in_database = await reached(began, revoked)
            last = await conn.fetchval("select pg_snapshot_xmax(pg_current_snapshot())")
            in_crls = await reached(began, lambda: published(conn, last))
            return {"revoked in the database": in_database, "CRLs published": in_crls}

        async def answered_revoked() -> dict[str, float]:
            in_feed = await reached(began, lambda: in_metric(system, _SIGNED, signed + 2 * count))
            in_cache = await reached(began, lambda: in_metric(system, _APPLIED, applied + 2 * count))
            return {"signed, both hashes, in the feed": in_feed, "in the cache": in_cache}

        async def stages() -> dict[str, float]:
            found = await asyncio.gather(listed(), answered_revoked())
            over.set()
            return found[0] | found[1]

        times, busy = await asyncio.gather(stages(), singles(session, system, serials[single:], over))
    spent, peaks = processes.spent(), processes.peaks()
    conn.terminate()
    signatures.append(await asyncio.to_thread(bare))
    stats = await _quash(system, "cache stats")
    mine = next(each for each in stats["issuers"] if each["issuer"] == _ISSUER)
    if mine["revoked"] < count:
        raise RuntimeError(f"the cache has {mine['revoked']} revoked of {count}")
    compared = await comparison(system, count)
    listed_singly = (await revocations.measure(system, single))["crl_published_ms"] if single else []
    octets, signature = stats["used_bytes"] / stats["records"], statistics.mean(signatures)
    return Measured(
        count=count,
        signature=signature,
        loaded=loaded,
        answered=answered,
        answered_cpu=answered_cpu,
        previewed=previewed,
        stages=times,
        cpu=spent,
        peaks=peaks,
        octets=octets,
        compared=compared,
        idle=idle,
        busy=busy,
        listed=listed_singly,
        shards=shards_for(count),
    )


async def comparison(system: System, count: int) -> float:
    """Seconds until a presigner knows, before it leads, that the database holds all that the world was told."""
    command = [sys.executable, "-m", "responder.presign.compare", str(system.state)]
    process = await asyncio.create_subprocess_exec(*command, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE)
    said = json.loads((await process.communicate())[0])
    if min(said["entries"], said["answers"]) < count:
        raise RuntimeError(f"{said['entries']} CRL entries and {said['answers']} answers of {count} were compared")
    return float(said["seconds"])


def shards_for(count: int) -> int:
    return max(4, -(-count // _IN_SHARD))


def settings(folder: Path, count: int) -> tuple[str, tuple[str, ...]]:
    """Configuration and overrides of a system for so many certificates: B21 wants shards, urgent news small buckets."""
    buckets = min(65536, shards_for(count) * max(1, -(-count // (_IN_BUCKET * shards_for(count)))))
    return str(config_with(folder, shards_for(count))), (f"presign.buckets={buckets}", "admin.reads_per_minute=60000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=MARCH_2020, help="certificates")
    parser.add_argument("--single", type=int, default=100, help="single revocations, idle and at most beside it")
    parser.add_argument("--write", type=Path, help="also write the tables into this page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quash-bench-") as name:
        config, overrides = settings(Path(name), options.count)
        with System(Path(name), *overrides, config=config) as system:
            measured = asyncio.run(measure(system, options.count, options.single))
            text = table(measured)
            print(text, flush=True)  # at once: what follows may take a large database longer than we wait
            if options.write:
                page.write(options.write, "bench-mass", text)
    if options.count >= MARCH_2020 and (beyond := missed(measured)):
        sys.exit(f"beyond its budget: {'; '.join(beyond)}")


if __name__ == "__main__":
    main()
