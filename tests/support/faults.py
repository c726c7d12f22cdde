"""Kills, stops and continues the processes of a running system, and says what must hold of it whatever died."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from cryptography import x509

from loadtest.system import System
from quash.errors import Kind, QuashError
from quash.pki.serials import format_serial
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.database import Connection, connect_once, translated
from quash.store.roles import OWNER
from tests.support.clients import Key, Stranger, Told

T = TypeVar("T")

_PROCESSES = (
    *("postgres", "ca-signer", "presigner", "follower", "issuer", "admin", "intake", "jobs", "ledger"),
    *("crl-builder", "crl-origin", "ct-log", "responder-1"),
)
RESPONDERS = ("responder-1", "responder-2")
VICTIMS = {**{name: (name,) for name in _PROCESSES}, "responders": RESPONDERS}
"""What is killed together, by the name of the case."""
_WITHIN = 60.0

_ROWS = """
select i.name as issuer, c.serial, c.state, c.der, r.reason, l.der as signed, s.path as crl,
       b.spki_sha256 is not null as blocked
from certificate c
join issuer i on i.id = c.issuer_id
left join lateral (
    select reason from revocation r where r.issuer_id = c.issuer_id and r.serial = c.serial
    order by version desc limit 1
) r on true
left join signing_log l on l.issuer_id = c.issuer_id and l.serial = c.serial and l.kind = 'certificate'
left join crl_scope s on s.issuer_id = c.issuer_id and coalesce(s.shard, -1) = coalesce(c.shard, -1)
left join blocked_key b on b.spki_sha256 = c.spki_sha256
"""
_UNSETTLED = """
select 'order ' || id::text || ' ' || state as what from certificate_order where state in ('pending', 'ready')
union all
select 'serial ' || encode(serial, 'hex') || ' ' || state from certificate c where state = 'reserved'
   and not exists (select from revocation r where r.issuer_id = c.issuer_id and r.serial = c.serial)
union all
select 'job ' || id::text from job where state = 'running'
"""
_SIGNED_TWICE = """
select issuer_id, serial, kind from signing_log where serial is not null group by 1, 2, 3 having count(distinct der) > 1
"""


async def until(what: str, look: Callable[[], Awaitable[T]], seconds: float = _WITHIN) -> T:
    """Looks until it finds something, and returns that; fails with `what` and the last look."""
    deadline = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < deadline, f"not after {seconds} s: {what} ({found!r})"
        await asyncio.sleep(0.02)
    return found


class Records:
    """The owner's look at the database. Use as a context manager.

    It keeps one connection and takes another one, as soon as it can be had, whenever the server was killed.
    """

    def __init__(self, system: System) -> None:
        self._state = State(system.state)
        self._conn: Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: Any) -> None:
        if self._conn is not None:
            self._conn.terminate()

    async def connect(self) -> Connection:
        """A connection of the caller's own."""
        conn = await until("the database takes a connection", self._try_to_connect)
        assert conn is not None
        return conn

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        async def look() -> list[list[Any]]:
            self._conn = self._conn or await self.connect()
            try:
                with translated():
                    return [await self._conn.fetch(sql, *values)]
            except QuashError:
                self._conn.terminate()
                self._conn = None
                return []

        return (await until("the database answers", look))[0]

    async def _try_to_connect(self) -> Connection | None:
        try:
            return await connect_once(Config(), self._state, OWNER)
        except QuashError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            return None


async def pid_of(system: System, name: str) -> int:
    """Of a child; waits for one that the supervisor is about to start again."""

    async def look() -> int | None:
        return system.children().get(name)

    pid = await until(f"{name} runs", look)
    assert pid is not None
    return pid


async def send(system: System, names: Iterable[str], sig: signal.Signals) -> None:
    for name in names:
        os.kill(await pid_of(system, name), sig)


async def kill(system: System, victim: str) -> None:
    """kill -9 of a victim by its name in VICTIMS, and returns once the kernel has taken it away."""
    pids = [await pid_of(system, name) for name in VICTIMS[victim]]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    async def gone() -> bool:
        return not any(pid in pids for pid in system.children().values())

    await until(f"{victim} is dead", gone)


def processes_of(system: System) -> dict[int, str]:
    """Every process that works on the state folder, the supervisor's children's children too: pid to command line."""
    mark, found = os.fsencode(system.state), {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            # PostgreSQL's own children write over their command line; who has a key shows its folder to root alone.
            if mark in command or os.fsencode(os.readlink(entry / "cwd")).startswith(mark):
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


async def assert_everything_holds(
    system: System, records: Records, told: Told, keys: Collection[Key] | None = None
) -> None:
    """The promises, of every answer that was given and every certificate in the database:

    who was told something finds it so; every serial is answered for both CertID hashes, `revoked` when it is revoked
    and `good` otherwise; every CRL lists its revoked certificates and no other; no serial was signed twice differently.
    `keys`: the responder is asked for these alone.
    """
    await asyncio.to_thread(system.wait_ready, _WITHIN)
    await _settle(records)
    rows = {(row["issuer"], row["serial"]): row for row in await records.fetch(_ROWS)}
    _assert_told(told, rows)
    for row in rows.values():
        assert row["state"] == "issued" or row["reason"] is not None, dict(row)
        assert row["signed"] in (None, row["der"]) or row["state"] != "issued", dict(row)
        assert not row["blocked"] or row["reason"] is not None, f"a blocked key's certificate stands: {dict(row)}"
    assert await records.fetch(_SIGNED_TWICE) == []
    await _assert_answered(system, {key: rows[key]["reason"] is not None for key in (rows if keys is None else keys)})
    await _assert_listed(system, rows)


async def _settle(records: Records) -> None:
    async def look() -> bool:
        unsettled[:] = [row["what"] for row in await records.fetch(_UNSETTLED)]
        return not unsettled

    unsettled: list[str] = []
    try:
        await until("everything is finished", look)
    except AssertionError:
        raise AssertionError(f"never finished: {unsettled}") from None


def _assert_told(told: Told, rows: dict[Key, Any]) -> None:
    for key, der in told.issued.items():
        assert key in rows, f"handed out and forgotten: {key}"
        assert rows[key]["der"] == der, f"another certificate was handed out: {key}"
    for key, reason in told.revoked.items():
        assert rows[key]["reason"] is not None, f"acknowledged and not revoked: {key} {reason}"


async def _assert_answered(system: System, revoked: dict[Key, bool]) -> None:
    async with Stranger(system) as stranger:

        async def check(key: Key) -> None:
            expected = {"revoked" if revoked[key] else "good"}
            said: set[str] = set()

            async def look() -> bool:
                nonlocal said
                said = await stranger.ask_both(key)
                return said == expected

            try:
                await until("the answer", look)
            except AssertionError:
                raise AssertionError(f"{key[0]} {format_serial(key[1])}: {said}, not {expected}") from None

        await asyncio.gather(*map(check, revoked))


async def _assert_listed(system: System, rows: dict[Key, Any]) -> None:
    expected: dict[str, set[int]] = defaultdict(set)
    for (_, serial), row in rows.items():
        assert row["crl"] is not None, dict(row)
        expected[row["crl"]] |= {int.from_bytes(serial, "big")} if row["reason"] is not None else set()
    async with aiohttp.ClientSession() as session:
        for path, serials in expected.items():
            look = partial(_lists, session, f"{system.crl}/{path}", serials)
            await until(f"{path} lists what is revoked, and nothing else", look)


async def _lists(session: aiohttp.ClientSession, url: str, serials: set[int]) -> bool:
    async with session.get(url) as response:
        assert response.status == 200
        crl = x509.load_der_x509_crl(await response.read())
    return {entry.serial_number for entry in crl} == serials
