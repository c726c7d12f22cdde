"""What lies in the publish folder, compared with what the database says was published."""

from __future__ import annotations

import asyncio
import hashlib

from crlgen.build import gate, metrics
from crlgen.build.gate import Published, Terms
from crlgen.build.schedule import Memory
from crlgen.build.terms import terms_of
from crlgen.publish.folder import Publisher
from quash.errors import Kind, QuashError
from quash.pki.crl import cut_entries, serial_of
from quash.runtime.clock import Clock
from quash.store import crls
from quash.store.database import Pool, acquire

LOST_REVOCATIONS = "crl.database_lost_revocations"


async def look(pool: Pool, publisher: Publisher, clock: Clock, state: crls.ScopeState, memory: Memory) -> bool:
    """Reads a scope's file into `memory`; True when a CRL was found published that the database did not know was.

    That is what a crash between publishing and recording leaves: the record is completed. A file that is not the
    published CRL is an alarm, and `memory.good` false makes a new one due. While it is readable and our own it still
    counts as published, so that nothing on it gets lost.
    """
    found = await publisher.get(state.scope.path)
    memory.looked_at = clock.monotonic()
    memory.seen = (found[1] if found else None, state.newest.number if state.newest else 0)
    digest = hashlib.sha256(found[0]).digest() if found else b""
    known = next((crl for crl in (state.published, state.newest) if crl and crl.sha256 == digest), None)
    memory.good = known is not None
    if not memory.good and state.published is not None:
        metrics.ALARMS.labels("crl.file_damaged" if found else "crl.file_missing").inc()
    if found and (known is None or memory.published is None or memory.published.number != known.number):
        async with acquire(pool) as conn:
            terms = await terms_of(conn, state.scope)
        await asyncio.to_thread(_remember, found[0], terms, memory)
    if known is not None:
        metrics.standing(state.scope, known)
    if known is None or known.published_at is not None:
        return False
    async with acquire(pool) as conn:
        await crls.published(conn, state.scope, known.number, int(clock.now()))
    return True


def _remember(body: bytes, terms: Terms, memory: Memory) -> None:
    try:
        crl = gate.read(body, terms)
    except QuashError:
        return  # damaged or foreign: what is remembered of the last good one, if anything, still counts
    if memory.published is None or crl.number >= memory.published.number:
        memory.published = Published(crl.number, crl.this_update, crl.revoked, len(crl.entries))


async def compare(pool: Pool, state: crls.ScopeState, memory: Memory) -> None:
    """Holds what is published against the database, both ways.

    An entry that the database does not know as revoked raises `crl.database_lost_revocations`. Another number of
    entries sets `memory.differs`, so that a new CRL is made; so does a snapshot whose transactions are not all over,
    since after a failover a new transaction may bear a number that the snapshot calls done.
    """
    if memory.published is None:
        return
    published, scope = memory.published, state.scope
    serials = await asyncio.to_thread(_serials, published.entries)
    async with acquire(pool) as conn:
        missing = await crls.unrevoked(conn, scope.issuer_id, serials)
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            gone = (await crls.listing(conn, scope, state.regular)).gone
            expected = await crls.total(conn, scope) - gone
        settled = state.published is not None and await crls.is_past(conn, state.published.covers)
    if missing:
        raise QuashError(
            LOST_REVOCATIONS,
            f"{scope.path} lists {len(missing)} serials that the database does not know as revoked, the first "
            f"{missing[0].hex()}: bring the database up to date before anything is signed",
            Kind.CONFLICT,
        )
    memory.differs = expected != published.count or not settled


def _serials(entries: bytes) -> list[bytes]:
    return [serial_of(entry) for entry in cut_entries(entries)]
