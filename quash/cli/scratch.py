"""A scratch deployment: `quash up` with throw-away keys in a folder that goes with it, holding somebody else's serials.

Nothing of the deployment it imitates is used but numbers: no key, no token, no bucket, no database, no address.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from quash.errors import Kind, QuashError
from quash.pki.rules import DAY
from quash.pki.serials import parse_serial
from quash.runtime.config import Config, Issuer
from quash.runtime.state import State
from quash.store import certificates, crls, issuers
from quash.store.database import SCHEMA, Connection, connect_once
from quash.store.roles import OWNER

_ROOT: Final = "rehearsal-root"
_LISTENERS: Final = ("responder", "crl_origin", "issuer", "admin", "intake", "metrics")
_READY_WITHIN: Final = 300.0  # seconds
_STOPPED_WITHIN: Final = 90.0
_NICE: Final = "10"  # the live deployment has the right of way
_COPY: Final = 50_000
_COLUMNS: Final = (
    *("issuer_id", "serial", "state", "profile", "spki_sha256", "not_before", "not_after", "shard", "bucket"),
    "created_at",
)


class Scratch:
    """Up inside the block of `with`. `of`: the deployment whose numbers it has; `names`: of its issuers."""

    def __init__(self, folder: Path, of: Config, names: Sequence[str]) -> None:
        self.state = State(folder / "var")
        self.ports = dict(zip(_LISTENERS, _free_ports(len(_LISTENERS)), strict=True))
        self.config = folder / "rehearsal.toml"
        self.config.write_text(_toml(of, names), encoding="utf-8")
        self.overrides = [f"{name}.port={port}" for name, port in self.ports.items()]
        self._log = folder / "up.log"

    @property
    def _arguments(self) -> list[str]:
        sets = [word for each in self.overrides for word in ("--set", each)]
        return ["--config", str(self.config), "--state", str(self.state.root), *sets]

    def __enter__(self) -> Scratch:
        command = ["nice", "-n", _NICE, sys.executable, "-m", "quash.cli.main", "up", *self._arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while not re.search(r"^ready ", said := self._log.read_text(errors="replace"), re.MULTILINE):
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = f"the scratch system did not start: {said[-1000:]}"
                raise QuashError("rehearsal.not_started", text, Kind.INTERNAL)
            time.sleep(0.2)

    def _stop(self) -> None:
        """Its children end with it, also when it has to be killed."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    async def connect(self) -> Connection:
        """As the owner of its database."""
        return await connect_once(Config(), self.state, OWNER)

    async def metric(self, name: str) -> float:
        """A counter, summed over processes and labels."""
        return await asyncio.to_thread(self._metric, name)

    def _metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line))


async def load(conn: Connection, lines: Iterable[str]) -> int:
    """Adds certificates, each a line `issuer serial`, as imports whose keys are all different; returns how many."""
    known = {each.name: each for each in await issuers.all_issuers(conn)}
    now, count = int(time.time()), 0
    rows: list[tuple[Any, ...]] = []
    for line in lines:
        name, text = line.split()
        issuer, serial = known[name], parse_serial(text)
        shard = certificates.shard_of(serial, issuer.shard_count) if issuer.shard_count else None
        bucket_of = certificates.bucket_of_foreign if issuer.kind == "imported" else certificates.bucket_of
        bucket = bucket_of(serial, issuer.bucket_count)
        ends = now + 90 * DAY
        rows.append((issuer.id, serial, "imported", name, secrets.token_bytes(32), now, ends, shard, bucket, now))
        count += 1
        if len(rows) == _COPY:
            await _copy(conn, rows)
            rows = []
    await _copy(conn, rows)
    await conn.execute("analyze certificate", timeout=600)
    return count


async def _copy(conn: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    await conn.copy_records_to_table("certificate", schema_name=SCHEMA, columns=_COLUMNS, records=rows, timeout=600)


async def all_published(conn: Connection) -> bool:
    """Whether every scope's CRL shows all that is revoked."""
    return all(state.dirty_since is None for state in await crls.states(conn))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _toml(of: Config, names: Sequence[str]) -> str:
    """The numbers that decide how long everything takes, and CAs of the same names with keys of the same kinds."""
    known: Mapping[str, Issuer] = {each.name: each for each in of.issuers}
    text = f"""[issuance]
require_validation = false
[ct]
required = false
[[lint.exempt]]
code = "cabf.internal_domain_name"
message = 'Internal domain name: "127\\.0\\.0\\.1"'
[responder]
workers = {of.responder.workers}
[admin]
sibling_batch = {of.admin.sibling_batch}
mass_limit = {1 << 40}
[presign]
workers = {of.presign.workers}
buckets = {of.presign.buckets}
validity = {of.presign.validity}
refresh_every = {of.presign.refresh_every}
[crl]
coalesce = {of.crl.coalesce}
"""
    text += _issuer(_ROOT, "root", "ec-p384", "ec-p256", 0, 3650)
    for name in names:
        own = known.get(name)
        key, signer = (own.key, own.ocsp_signer.key) if own else ("ec-p256", "ec-p256")
        text += _issuer(name, "sub-ca", key, signer, own.shards if own else 0, 1000)
    return text


def _issuer(name: str, kind: str, key: str, signer: str, shards: int, days: int) -> str:
    below = f'parent = "{_ROOT}"\npolicy = "dv"\nshards = {shards}\n' if kind == "sub-ca" else ""
    return f"""[[issuers]]
name = "{name}"
kind = "{kind}"
key = "{key}"
subject = {{ C = "TN", O = "Rehearsal", CN = "Rehearsal {name[:50]}" }}
days = {days}
{below}ocsp_signer = {{ key = "{signer}" }}
"""
