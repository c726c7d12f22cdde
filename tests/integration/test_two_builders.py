"""Two CRL builder processes, one of them stopped and continued by signals at the worst moment (B7)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loadtest.system import QUASH, REPOSITORY, free_ports
from quash.pki.crl import read_crl, serial_of
from quash.pki.serials import new_serial
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.runtime.supervisor import INSTANCE
from quash.store import revocations
from quash.store.database import Connection, connect_once
from quash.store.embedded import EmbeddedPostgres
from quash.store.roles import CRL_BUILDER, OWNER
from tests.support.postgres import folder_for_servers

ISSUER = "tls-ov"


@dataclass
class Machines:
    """A database, a CA signer and any number of builders, each a process."""

    state: State
    conn: Connection
    arguments: list[str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, verb: str) -> None:
        with (self.state.root / f"{name}.log").open("wb") as log:
            command = [*QUASH, "serve", verb, *self.arguments]
            environment = {**os.environ, INSTANCE: name}  # two of one kind have two health sockets
            self.processes[name] = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    async def revoke(self) -> bytes:
        serial, now = new_serial(), int(time.time())
        async with self.conn.transaction():
            issuer = await self.conn.fetchval("select id from issuer where name = $1", ISSUER)
            await self.conn.execute(
                "insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)"
                " values ($1, $2, 'imported', 'x', $3, 0, 0)", issuer, serial, now + 86_400,
            )  # fmt: skip
            act = await self.conn.fetchval(
                "insert into act (at, actor, action, subject) values (0, 'test', 'revoke', '{}') returning id"
            )
            await revocations.add(self.conn, [revocations.Revocation(issuer, serial, 1, 4, now, now, None, act)])
        return serial

    def listed(self) -> tuple[int, set[bytes]]:
        """Number and serials of the published CRL."""
        file = self.state.crl / f"{ISSUER}.crl"
        if not file.exists():
            return 0, set()
        crl = read_crl(file.read_bytes())
        return crl.number, {serial_of(entry) for entry in crl.entries}

    async def shows(self, *serials: bytes) -> int:
        async with asyncio.timeout(180):
            while not set(serials) <= self.listed()[1]:  # noqa: ASYNC110 - other processes have no event
                await asyncio.sleep(0.02)
        return self.listed()[0]

    async def end_sessions(self) -> None:
        """What a lost network or an operator does to the builder that holds the lease."""
        conn = await connect_once(Config(), self.state, CRL_BUILDER)
        await conn.execute(
            "select pg_terminate_backend(pid, 5000) from pg_locks join pg_stat_activity using (pid)"
            " where locktype = 'advisory' and granted and usename = current_user"
        )
        await conn.close()

    async def newest(self) -> tuple[int, bool]:
        """The newest number taken, and whether its CRL was signed."""
        row = await self.conn.fetchrow(
            "select number, sha256 is not null as signed from crl join issuer i on i.id = issuer_id"
            " where i.name = $1 order by number desc limit 1", ISSUER,
        )  # fmt: skip
        return int(row["number"]), row["signed"]


@contextlib.contextmanager
def postgres(state: State) -> Iterator[None]:
    with EmbeddedPostgres(state).run():
        yield


@pytest.fixture
async def machines() -> AsyncIterator[Machines]:
    with folder_for_servers() as folder:
        state = State(Path(folder) / "var")
        ports = zip(("responder.port", "crl_origin.port"), free_ports(2), strict=True)
        settings = [part for name, port in ports for part in ("--set", f"{name}={port}")]
        arguments = ["--config", str(REPOSITORY / "config/demo.toml"), "--state", str(state.root), *settings]
        await asyncio.to_thread(subprocess.run, [*QUASH, "init", "--quiet", *arguments], cwd=REPOSITORY, check=True)
        with postgres(state):
            conn = await connect_once(Config(), state, OWNER)
            found = Machines(state, conn, arguments)
            found.start("signer", "ca-signer")
            try:
                yield found
            finally:
                for process in found.processes.values():
                    if process.poll() is None:
                        os.kill(process.pid, signal.SIGCONT)
                        process.kill()
                        process.wait()
                await conn.close()


@pytest.mark.long
async def test_stopped_builder_that_wakes_up_publishes_nothing_twice(machines: Machines) -> None:
    """Stopped while its CRL is being signed, and outlived by its lease, a builder finds everything done by the other.

    Numbers rise, none is published twice, nothing is lost; and it takes over again when the other one is killed.
    """
    machines.start("first", "crl-builder")
    one = await machines.revoke()
    await machines.shows(one)
    number, _ = await machines.newest()
    machines.start("second", "crl-builder")
    await asyncio.sleep(3)  # it stands by
    machines.signal("signer", signal.SIGSTOP)
    two = await machines.revoke()
    async with asyncio.timeout(180):
        while await machines.newest() != (number + 1, False):  # noqa: ASYNC110 - other processes have no event
            await asyncio.sleep(0.02)
    machines.signal("first", signal.SIGSTOP)  # it waits for the signature of number + 1
    machines.signal("signer", signal.SIGCONT)
    await asyncio.sleep(1)
    assert await machines.newest() == (number + 1, False)
    await machines.end_sessions()
    assert await machines.shows(one, two) == number + 2
    machines.signal("first", signal.SIGCONT)
    await asyncio.sleep(3)
    assert machines.listed() == (number + 2, {one, two})
    machines.signal("second", signal.SIGKILL)
    machines.processes.pop("second").wait()
    three = await machines.revoke()
    assert await machines.shows(one, two, three) > number + 2
    rows = await machines.conn.fetch(
        "select number, published_at is not null as out from crl join issuer i on i.id = issuer_id where i.name = $1"
        " order by number", ISSUER,
    )  # fmt: skip
    published = {int(row["number"]) for row in rows if row["out"]}
    assert number + 1 not in published
    assert {number, number + 2} <= published
    signed = await machines.conn.fetch("select number from signing_log where scope = 'full' and issuer_id <> 1")
    assert len({row["number"] for row in signed}) >= 3
