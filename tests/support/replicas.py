"""A primary and a standby on two machines: the standby in a network namespace of its own, where root may make one."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shlex
import shutil
import subprocess
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.embedded import SUPERUSER, EmbeddedPostgres
from quash.store.passwords import read_password
from quash.store.service_user import service_user
from quash.store.setup import set_up

_CLONE_NEWNET = 0x40000000
# A lost peer is noticed within seconds, here by both.
SETTINGS = {
    "fsync": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "wal_sender_timeout": "2s",
    "wal_receiver_timeout": "2s",
    "wal_retrieve_retry_interval": "200ms",
    "wal_receiver_status_interval": "1s",
}


class Link(Protocol):
    """The way from the standby's machine to the primary's."""

    listen: str
    """Where the primary listens."""
    conninfo: str
    """Where the standby finds it: host and port."""

    def enter(self) -> None:
        """Called in a process that is about to become the standby's."""

    def cut(self) -> None: ...

    def mend(self) -> None: ...


class Namespaces:
    """A pair of virtual Ethernet devices, one of them in a network namespace; a cut takes the device down."""

    def __init__(self, number: int) -> None:
        self._name, self._near, self._far = f"quash-{number}", f"qn{number}", f"qf{number}"
        net = f"10.{200 + number % 50}.{number // 50 % 250}"
        self.listen, self._address = f"{net}.1", f"{net}.2"
        self.conninfo = f"host={self.listen} port=5432"

    def make(self) -> None:
        """Raises CalledProcessError where that is not allowed."""
        self._ip("netns", "add", self._name)
        self._ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._name)
        self._ip("addr", "add", f"{self.listen}/24", "dev", self._near)
        self._ip("link", "set", self._near, "up")
        self._ip("-n", self._name, "addr", "add", f"{self._address}/24", "dev", self._far)
        for device in (self._far, "lo"):
            self._ip("-n", self._name, "link", "set", device, "up")

    def remove(self) -> None:
        """What there is of it."""
        for what in (("link", "del", self._near), ("netns", "del", self._name)):
            subprocess.run(["ip", *what], check=False, capture_output=True)

    def enter(self) -> None:
        fd = os.open(f"/run/netns/{self._name}", os.O_RDONLY)
        if ctypes.CDLL(None).setns(fd, _CLONE_NEWNET) != 0:
            raise OSError("setns")
        os.close(fd)

    def cut(self) -> None:
        self._ip("link", "set", self._near, "down")

    def mend(self) -> None:
        self._ip("link", "set", self._near, "up")

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Proxy:
    """The same on loopback, where nobody may make a namespace: a cut ends the connections, and takes no more."""

    def __init__(self, number: int) -> None:
        self.listen = f"127.{1 + number % 250}.{number // 250 % 250}.1"
        self._connections: set[asyncio.StreamWriter] = set()
        self._open = True

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.conninfo = f"host=127.0.0.1 port={self._server.sockets[0].getsockname()[1]}"

    def enter(self) -> None: ...

    def cut(self) -> None:
        self._open = False
        for writer in self._connections:
            writer.close()

    def mend(self) -> None:
        self._open = True

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.close()
            return
        inner, outer = await asyncio.open_connection(self.listen, 5432)
        self._connections |= {writer, outer}
        await asyncio.gather(_pump(reader, outer), _pump(inner, writer), return_exceptions=True)
        self._connections -= {writer, outer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
    finally:
        writer.close()


class OneMachineWarning(UserWarning):
    """A test of two machines ran on one, because nobody may make a network namespace here."""


@contextlib.asynccontextmanager
async def a_link(*, loopback: bool = False) -> AsyncIterator[Link]:
    """Namespaces where they can be made, and unless loopback is asked for.

    Where they cannot, as in a container without the capability, the test report tells so (`OneMachineWarning`).
    """
    namespaces = Namespaces(os.getpid())
    if not loopback and (why := _not_made(namespaces)):
        warnings.warn(f"loopback in place of network namespaces: {why}", OneMachineWarning, stacklevel=2)
        loopback = True
    if loopback:
        proxy = Proxy(os.getpid())
        await proxy.start()
        yield proxy
        return
    try:
        yield namespaces
    finally:
        namespaces.remove()


def _not_made(namespaces: Namespaces) -> str:
    """Why the namespaces could not be made, and then nothing of them is left; "": they are there."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    try:
        namespaces.make()
    except subprocess.CalledProcessError as error:
        namespaces.remove()
        return f"{shlex.join(error.cmd)}: {error.stderr.decode().strip()}"
    return ""


class Server:
    """A server that can be killed."""

    def __init__(self, state: State, settings: Mapping[str, str], enter: Callable[[], None] = lambda: None) -> None:
        self.state = state
        self.postgres = EmbeddedPostgres(state, settings={**SETTINGS, **settings})
        self._enter = enter
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> dict[str, Any]:
        arguments = self.postgres.spawn_arguments()
        become = arguments["preexec_fn"]

        def preexec() -> None:
            self._enter()
            become()

        return {**arguments, "preexec_fn": preexec}

    def start(self) -> None:
        with self.postgres.log.open("ab") as log:
            process = subprocess.Popen(self.postgres.command(), stdout=log, stderr=log, **self.spawn())
        self._process = process
        self.postgres.wait_ready(lambda: process.poll() is None)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def admin(self, sql: str, *values: Any) -> Any:
        """One value, as the superuser."""
        conn = await asyncpg.connect(
            host=str(self.postgres.socket_folder),
            user=SUPERUSER,
            password=read_password(self.state, SUPERUSER),
            database="postgres",
        )
        try:
            return await conn.fetchval(sql, *values)
        finally:
            await conn.close()

    def url(self, *others: Server) -> str:
        """Of a database there; with `others`, on whichever of them takes writes."""
        hosts = ",".join(str(each.postgres.socket_folder) for each in (self, *others))
        ports = ",".join(["5432"] * (1 + len(others)))
        wanted = "&target_session_attrs=read-write" if others else ""
        return f"postgresql:///quash?host={hosts}&port={ports}{wanted}"


@dataclass
class Pair:
    """A primary, which acknowledges a commit only once the standby has it, and the standby."""

    primary: Server
    standby: Server
    link: Link

    def over_the_link(self) -> str:
        """Of the database on whichever takes writes, as the standby's machine comes to both."""
        host, port = (part.partition("=")[2] for part in self.link.conninfo.split())
        both = f"host={host},{self.standby.postgres.socket_folder}&port={port},5432"
        return f"postgresql:///quash?{both}&target_session_attrs=read-write"

    async def alone(self) -> None:
        """The standby becomes the primary, and waits for no other."""
        assert await self.standby.admin("select pg_promote()")
        await self.standby.admin("alter system set synchronous_standby_names to ''")
        await self.standby.admin("select pg_reload_conf()")

    async def caught_up(self) -> None:
        """Waits until the standby has replayed all that the primary committed."""
        lsn = await self.primary.admin("select pg_current_wal_flush_lsn()::text")
        async with asyncio.timeout(60):
            while not await self.standby.admin("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def a_pair(folder: Path, *, loopback: bool = False) -> AsyncIterator[Pair]:
    """Both, running and set up; the standby is made by `pg_basebackup` over the link."""
    async with a_link(loopback=loopback) as link:
        first, second = State(folder / "first"), State(folder / "second")
        primary = Server(first, {"listen_addresses": link.listen})
        standby = Server(second, {}, link.enter)
        try:
            _begin(primary)  # in this thread: servers end with the one that started them
            await set_up(Config(), first, FakeClock())
            await _copy(primary, standby, link)
            standby.start()
            # From now on no commit is acknowledged that only one machine has.
            await primary.admin("alter system set synchronous_standby_names to 'second'")
            await primary.admin("select pg_reload_conf()")
            yield Pair(primary, standby, link)
        finally:
            standby.kill()
            primary.kill()


def _begin(primary: Server) -> None:
    primary.postgres.initialise()
    with (primary.postgres.data / "pg_hba.conf").open("a") as hba:
        hba.writelines(f"host {what} all samenet scram-sha-256\n" for what in ("replication", "all"))
    primary.start()


async def _copy(primary: Server, standby: Server, link: Link) -> None:
    shutil.copytree(primary.state.secrets, standby.state.secrets, dirs_exist_ok=True)
    data = standby.postgres.data
    data.mkdir(mode=0o700)
    if (user := service_user()) is not None:
        user.own(data)
    password = read_password(primary.state, SUPERUSER)
    program = Path(primary.postgres.command()[0]).with_name("pg_basebackup")
    where = f"{link.conninfo} user={SUPERUSER} password={password} application_name=second"
    copy = [str(program), "-D", str(data), "-d", where, "-R", "-X", "stream", "-c", "fast", "--no-sync"]
    done = await asyncio.create_subprocess_exec(*copy, stderr=asyncio.subprocess.PIPE, **standby.spawn())
    _, said = await done.communicate()
    assert done.returncode == 0, said.decode()


def network_namespaces() -> Iterator[str]:
    """Of this run that are still there: a test removes what it makes."""
    if shutil.which("ip") is None:
        return
    said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    yield from (line.split()[0] for line in said.splitlines() if line.startswith(f"quash-{os.getpid()}"))
