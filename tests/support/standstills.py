"""Moments between two steps of a flow, held still: processes are stopped, or tables locked against writers.

No product code knows of them. A process that is stopped (SIGSTOP) leaves a step half done for everybody else; a table
that is locked holds a transaction open in the middle. Each function below takes a stage, sends the stage's request and
returns once the flow stands exactly there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

from loadtest.system import System
from quash.cache.layout import decode_record, record_key
from quash.cache.reader import LmdbReader
from quash.store.database import Connection
from quash.store.roles import ADMIN, CA_SIGNER, CRL_BUILDER, ISSUING, JOBS, PRESIGNER
from tests.support.clients import Key, Stranger
from tests.support.faults import RESPONDERS, Records, pid_of, until

_WAITS = """
select from pg_locks l join pg_stat_activity a using (pid)
where not l.granted and l.relation = $2::text::regclass and a.usename = $1
"""
_FED = """
select from feed f, certificate c join issuer i on i.id = c.issuer_id
where i.name = $1 and c.serial = $2 and f.kind = 'records' and f.id > $3 and position(c.serial in f.payload) > 0
"""


@dataclass
class Stage:
    """A system, and one request to it. Use as a context manager: whatever happens, everything goes on at its end.

    `subject`: the certificate that the request is about, None while there is none. `version`: of the record that it
    leads to, 0 for good.
    """

    system: System
    records: Records
    request: Callable[[], Coroutine[Any, Any, Any]]
    subject: Callable[[], Awaitable[Key | None]]
    version: int
    _stopped: dict[str, int] = field(default_factory=dict)
    _locks: list[Connection] = field(default_factory=list)
    _task: asyncio.Task[Any] | None = None
    _fed_before: int = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.resume()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def begin(self) -> None:
        """Sends the request; its client asks again when the process that it asked dies."""
        (row,) = await self.records.fetch("select coalesce(max(id), 0) as id from feed")
        self._fed_before = row["id"]
        self._task = asyncio.create_task(self.request())

    async def answer(self) -> Any:
        """What the client got in the end."""
        assert self._task is not None
        return await self._task

    async def stop(self, *names: str) -> None:
        for name in names:
            self._stopped[name] = await pid_of(self.system, name)
            os.kill(self._stopped[name], signal.SIGSTOP)

    def go_on(self, *names: str) -> None:
        for name in names:
            with contextlib.suppress(ProcessLookupError):  # it was the victim
                os.kill(self._stopped.pop(name), signal.SIGCONT)

    def end(self, name: str) -> None:
        """Kills a process that stands; its supervisor starts another."""
        os.kill(self._stopped.pop(name), signal.SIGKILL)

    async def lock(self, table: str) -> None:
        """Lets nobody write to a table."""
        conn = await self.records.connect()
        self._locks.append(conn)
        await conn.execute("begin")
        await conn.execute(f"lock table {table} in share mode")

    async def resume(self) -> None:
        """All that stands goes on."""
        while self._locks:
            self._locks.pop().terminate()
        self.go_on(*list(self._stopped))

    async def until_blocked(self, role: str, table: str) -> None:
        """Until a transaction of that role waits to write to a locked table."""
        await until(f"{role} waits for {table}", lambda: self.records.fetch(_WAITS, role, table))

    async def until_certificate(self, condition: str) -> None:
        """Until the row of the certificate is as the SQL says."""
        await self._until_row("certificate", condition)

    async def until_ready(self) -> None:
        """Until the certificate of the order is committed."""
        await self._until_row("certificate_order", "state = 'ready'")

    async def _until_row(self, table: str, condition: str) -> None:
        async def look() -> list[Any]:
            key = await self.subject()
            return await self.records.fetch(f"select from {table} where serial = $1 and {condition}", key and key[1])

        await until(f"{table}: {condition}", look)

    async def until_fed(self) -> None:
        """Until the feed holds the new record."""

        async def look() -> list[Any]:
            key = await self.subject()
            return await self.records.fetch(_FED, *key, self._fed_before) if key else []

        await until("the feed has the record", look)

    async def until_applied(self) -> None:
        """Until the node's cache holds the new record, whoever serves it."""
        ids = {row["name"]: row["id"] for row in await self.records.fetch("select id, name from issuer")}
        reader = LmdbReader(self.system.state / "cache")

        async def look() -> bool:
            key = await self.subject()
            reader.state()
            record = reader.get(record_key(ids[key[0]], key[1])) if key else None
            return record is not None and decode_record(record).version == self.version

        try:
            await until("the cache has the record", look)
        finally:
            reader.close()

    async def until_good(self) -> None:
        """Until strangers are told `good`."""

        async def look() -> bool:
            key = await self.subject()
            return key is not None and await stranger.ask_both(key) == {"good"}

        async with Stranger(self.system) as stranger:
            await until("the public answer", look)


Standstill = Callable[[Stage], Awaitable[None]]


# Flow 1. Up to the first answers it is about the precertificate.


async def accepted(stage: Stage) -> None:
    """The order is committed; T1 is under way."""
    await stage.lock("certificate")
    await stage.begin()
    await stage.until_blocked(ISSUING, "certificate")


async def reserved(stage: Stage) -> None:
    """T1 is committed; the CA signer was asked and has not read the request."""
    await stage.stop("ca-signer")
    await stage.begin()
    await stage.until_certificate("state = 'reserved'")


async def signed(stage: Stage) -> None:
    """The CA's signature exists in the signer's memory alone."""
    await stage.lock("signing_log")
    await stage.begin()
    await stage.until_blocked(CA_SIGNER, "signing_log")


async def logged(stage: Stage) -> None:
    """The signer has logged the precertificate and handed it over; T2 is under way."""
    await stage.lock("outbox")
    await stage.begin()
    await stage.until_blocked(ISSUING, "outbox")


async def precommitted(stage: Stage) -> None:
    """T2 is committed; the presigner has not heard of it."""
    await stage.stop("presigner")
    await stage.begin()
    await stage.until_certificate("state = 'precertificate'")


async def presigned(stage: Stage) -> None:
    """The answers are signed; the transaction that feeds them is under way. Of flow 2, too."""
    await stage.lock("reader_position")
    await stage.begin()
    await stage.until_blocked(PRESIGNER, "reader_position")


async def fed(stage: Stage) -> None:
    """The feed holds the record; no node has applied it. Of flow 2, too."""
    await stage.stop("follower")
    await stage.begin()
    await stage.until_fed()


async def applied(stage: Stage) -> None:
    """The cache holds the record; no worker has served it. Of flow 2, too."""
    await stage.stop(*RESPONDERS)
    await stage.begin()
    await stage.until_applied()


async def answered(stage: Stage) -> None:
    """Strangers are told `good`; no log has given an SCT."""
    await stage.stop("ct-log")
    await stage.begin()
    await stage.until_good()


async def finalised(stage: Stage) -> None:
    """The final TBS is committed; the CA signer was asked and has not read the request."""
    await answered(stage)
    await stage.stop("ca-signer")
    stage.go_on("ct-log")
    await stage.until_certificate("state = 'precertificate' and tbs is not null")


async def final_logged(stage: Stage) -> None:
    """The signer has logged the certificate and handed it over; T3 is under way."""
    await answered(stage)
    await stage.lock("outbox")
    stage.go_on("ct-log")
    await stage.until_blocked(ISSUING, "outbox")


async def ready(stage: Stage) -> None:
    """T3 is committed after an interruption; nothing is handed out before the public was asked once more."""
    await finalised(stage)  # that the public is told `good` does not say that the issuer has seen it: this does
    await stage.stop(*RESPONDERS)
    stage.end("ca-signer")
    await stage.until_ready()


# Flow 2, up to the CRL.


async def asked(stage: Stage) -> None:
    """The transaction that revokes is under way."""
    await stage.lock("revocation")
    await stage.begin()
    await stage.until_blocked(ADMIN, "revocation")


async def acknowledged(stage: Stage) -> None:
    """The revocation is committed and its client was told; the presigner has not heard of it."""
    await stage.stop("presigner")
    await stage.begin()
    await stage.answer()


async def job_begun(stage: Stage) -> None:
    """Client told, first siblings revoked; the job of the others is under way."""
    await stage.stop("jobs")
    await stage.begin()
    await stage.answer()
    await stage.lock("job")
    stage.go_on("jobs")
    await stage.until_blocked(JOBS, "job")


async def numbered(stage: Stage) -> None:
    """The CRL has its number; the CA signer was asked and has not read the request."""
    (before,) = await stage.records.fetch("select count(*) as crls from crl")
    await stage.stop("ca-signer")
    await stage.begin()
    more = "select from (select count(*) as crls from crl) as now where crls > $1"
    await until("a CRL has its number", lambda: stage.records.fetch(more, before["crls"]))


async def crl_signed(stage: Stage) -> None:
    """The CRL is signed and has passed the gate; it is not published."""
    await numbered(stage)
    await stage.lock("crl")
    stage.go_on("ca-signer")
    await stage.until_blocked(CRL_BUILDER, "crl")


ISSUING_STEPS: dict[Standstill, tuple[str, ...]] = {
    accepted: (),
    reserved: ("issuer",),
    signed: (),
    logged: ("postgres",),
    precommitted: ("presigner",),
    presigned: (),
    fed: ("follower",),
    applied: ("responders",),
    answered: ("ct-log",),
    finalised: ("ca-signer",),
    final_logged: (),
    ready: ("issuer",),
}
"""The standstills of flow 1, and who is killed there even when time is short."""
REVOKING_STEPS: dict[Standstill, tuple[str, ...]] = {
    asked: ("admin",),
    acknowledged: ("presigner", "postgres"),
    presigned: ("presigner",),
    fed: ("follower",),
    applied: (),
    job_begun: ("jobs",),
    numbered: ("crl-builder", "ca-signer"),
    crl_signed: (),
}
