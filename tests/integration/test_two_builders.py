"""Two CRL builders, or presigners, as processes: the holder of the lease stands still or is cut off, and comes back.

Really stopped by a signal, and really behind a network device that is taken down; nobody helps the other to the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
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
from quash.store.leases import SILENCE, STRAGGLING
from quash.store.roles import OWNER
from tests.support.postgres import folder_for_servers
from tests.support.replicas import Link, a_link

ISSUER = "tls-ov"


@dataclass
class Machines:
    """A database, a CA signer and any number of others, each a process; `link` is the network of a machine `remote`."""

    state: State
    conn: Connection
    arguments: list[str]
    link: Link
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, verb: str, *, remote: bool = False, state: Path | None = None) -> None:
        """`state`: a folder of its own, where one folder takes no second process of this kind."""
        where = dict(part.split("=") for part in self.link.conninfo.split())
        url = ["--set", f"database.url=postgresql://{where['host']}:{where['port']}/quash"] if remote else []
        if state is not None:
            shutil.copytree(self.state.root, state, ignore=shutil.ignore_patterns("pg", "run", "*.log"))
            socket_folder = EmbeddedPostgres(self.state).socket_folder
            url = ["--state", str(state), "--set", f"database.url=postgresql:///quash?host={socket_folder}&port=5432"]
        with (self.state.root / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [*QUASH, "serve", verb, *self.arguments, *url],
                cwd=REPOSITORY,
                env={**os.environ, INSTANCE: name},  # two of one kind have two health sockets
                stdout=log,
                stderr=log,
                preexec_fn=self.link.enter if remote else None,  # noqa: PLW1509 - it only enters a namespace
            )

    def fail(self, name: str, how: str) -> None:
        if how == "stopped":
            self.signal(name, signal.SIGSTOP)
        else:
            self.link.cut()

    def mend(self, name: str, how: str) -> None:
        if how == "stopped":
            self.signal(name, signal.SIGCONT)
        else:
            self.link.mend()

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

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

    async def published(self) -> None:
        """Waits until every scope has a CRL."""
        paths = [row["path"] for row in await self.conn.fetch("select path from crl_scope")]
        async with asyncio.timeout(60):
            while not all((self.state.crl / path).exists() for path in paths):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def has_lease(self, lease: str, fence: int = 0) -> int:
        """Waits for a holder with a greater fence, no longer than it takes the server to let go of a lost one."""
        async with asyncio.timeout(SILENCE + STRAGGLING + 20):
            while (found := await self.conn.fetchval("select fence from lease where name = $1", lease) or 0) <= fence:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return int(found)

    async def heartbeats(self) -> None:
        """Waits for a presigner that feeds."""
        newest = "select max(id) from feed where kind = 'heartbeat'"
        last = await self.conn.fetchval(newest) or 0
        async with asyncio.timeout(60):
            while (await self.conn.fetchval(newest) or 0) <= last + 1:  # noqa: ASYNC110 - other processes have no event
                await asyncio.sleep(0.1)

    async def newest(self) -> tuple[int, bool]:
        """The newest number taken, and whether its CRL was signed."""
        row = await self.conn.fetchrow(
            "select number, sha256 is not null as signed from crl join issuer i on i.id = issuer_id"
            " where i.name = $1 order by number desc limit 1", ISSUER,
        )  # fmt: skip
        return int(row["number"]), row["signed"]


@contextlib.contextmanager
def postgres(state: State, address: str) -> Iterator[None]:
    """Also on the link's address."""
    server = EmbeddedPostgres(state, settings={"listen_addresses": address})
    with (server.data / "pg_hba.conf").open("a") as hba:
        hba.write("host all all samenet scram-sha-256\n")
    with server.run():
        yield


@pytest.fixture
async def machines() -> AsyncIterator[Machines]:
    async with a_link() as link:
        with folder_for_servers() as folder:
            state = State(Path(folder) / "var")
            ports = zip(("responder.port", "crl_origin.port"), free_ports(2), strict=True)
            settings = [part for name, port in ports for part in ("--set", f"{name}={port}")]
            arguments = ["--config", str(REPOSITORY / "config/demo.toml"), "--state", str(state.root), *settings]
            await asyncio.to_thread(subprocess.run, [*QUASH, "init", "--quiet", *arguments], cwd=REPOSITORY, check=True)
            with postgres(state, link.listen):
                conn = await connect_once(Config(), state, OWNER)
                found = Machines(state, conn, arguments, link)
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
@pytest.mark.parametrize("how", ["stopped", "cut off"])
async def test_builder_that_was_away_publishes_nothing_twice(machines: Machines, how: str) -> None:
    """Lost while its CRL is being signed, and outlived by its lease, a builder finds everything done by the other.

    Numbers rise, none is published twice, nothing is lost (B7); and it takes over again when the other one is killed.
    """
    machines.start("signer", "ca-signer")
    machines.start("first", "crl-builder", remote=True)
    one = await machines.revoke()
    await machines.shows(one)
    fence = await machines.has_lease("crl-builder")
    number, _ = await machines.newest()
    machines.start("second", "crl-builder")
    await asyncio.sleep(3)  # it stands by
    machines.signal("signer", signal.SIGSTOP)
    two = await machines.revoke()
    async with asyncio.timeout(180):
        while await machines.newest() != (number + 1, False):  # noqa: ASYNC110 - other processes have no event
            await asyncio.sleep(0.02)
    machines.fail("first", how)  # it waits for the signature of number + 1
    machines.signal("signer", signal.SIGCONT)
    await machines.has_lease("crl-builder", fence)
    assert await machines.shows(one, two) == number + 2
    assert await machines.newest() == (number + 2, True)
    machines.mend("first", how)
    await asyncio.sleep(5)
    assert machines.listed() == (number + 2, {one, two})
    machines.kill("second")
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


@pytest.mark.long
@pytest.mark.parametrize("how", ["stopped", "cut off"])
async def test_presigner_that_was_away_is_replaced(machines: Machines, how: str) -> None:
    """The other one feeds as soon as the server has given the lease up; the first goes on when it is gone.

    Each has the published CRLs on its machine, since nothing is signed that was not held against them.
    """
    machines.start("signer", "ca-signer")
    machines.start("builder", "crl-builder")
    await machines.published()
    machines.start("first", "presigner", remote=True)
    await machines.heartbeats()
    fence = await machines.has_lease("presign")
    machines.start("second", "presigner", state=machines.state.root.with_name("second"))
    await asyncio.sleep(3)  # it stands by
    machines.fail("first", how)
    taken = await machines.has_lease("presign", fence)
    await machines.heartbeats()
    machines.mend("first", how)
    await asyncio.sleep(5)
    assert await machines.has_lease("presign") == taken
    machines.kill("second")
    assert await machines.has_lease("presign", taken) > taken
    await machines.heartbeats()
