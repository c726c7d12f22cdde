"""What lies in the publish folder, compared with what the database says was published."""

from __future__ import annotations

import asyncio
import hashlib

from crlgen.build import entries, metrics
from crlgen.build.schedule import Memory
from crlgen.build.terms import terms_of
from crlgen.publish.folder import Publisher
from crlgen.publish.with_copy import WithCopy
from quash.errors import Kind, QuashError
from quash.pki import crl_gate
from quash.pki.algorithms import verify
from quash.pki.crl import cut_entries, read_crl, serial_of
from quash.pki.crl_gate import Published, Terms
from quash.pki.serials import format_serial
from quash.runtime.clock import Clock
from quash.store import crl_entries, crls
from quash.store.database import Pool, acquire

LOST_REVOCATIONS = "crl.database_lost_revocations"
MISSING_REVOCATIONS = "crl.revocations_missing"
_NAMED = 20  # serials in the text of an alarm


async def look(pool: Pool, publisher: Publisher, clock: Clock, state: crls.ScopeState, memory: Memory) -> bool:
    """Reads a scope's file into `memory`; True when a CRL was found published that the database did not know was.

    That is what a crash between publishing and recording leaves: the record is completed. A file that is not the
    published CRL is an alarm, and `memory.good` false makes a new one due; where the key is offline, the caller judges.
    While it is readable and our own it still counts as published, so that nothing on it gets lost.
    """
    found = await publisher.get(state.scope.path)
    memory.looked_at = clock.monotonic()
    memory.seen = (found[1] if found else None, state.newest.number if state.newest else 0)
    digest = await _digest(found[0]) if found else b""
    known = next((crl for crl in (state.published, state.newest) if crl and crl.sha256 == digest), None)
    memory.good = known is not None
    if not memory.good and state.published is not None and not state.offline:
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
        crl = crl_gate.read(body, terms)
    except QuashError:
        return  # damaged or foreign: what is remembered of the last good one, if anything, still counts
    if memory.published is None or crl.number >= memory.published.number:
        memory.published = Published(crl.number, crl.this_update, crl.revoked, len(crl.entries))


async def keep_copy(publisher: Publisher, state: crls.ScopeState, memory: Memory) -> None:
    """Has the copy in the folder, if one is kept there, say what is published: it was damaged, or a crash came between.

    Cheap while neither changed; read again whenever the published file is. The published one is looked at first.
    """
    published, path = state.published, state.scope.path
    if not isinstance(publisher, WithCopy) or not memory.good or published is None:
        return
    tag = await publisher.copy.head(path)
    if memory.copied == (tag, memory.seen):
        return
    there = await publisher.copy.get(path)
    if there is None or await _digest(there[0]) != published.sha256:
        found = await publisher.truth.get(path)
        if found is None or await _digest(found[0]) != published.sha256:
            return  # the next step looks at it
        tag = await publisher.copy.put(path, found[0], there[1] if there else None)
    memory.copied = (tag, memory.seen)


async def _digest(body: bytes) -> bytes:
    return (await asyncio.to_thread(hashlib.sha256, body)).digest()


async def compare(pool: Pool, state: crls.ScopeState, memory: Memory) -> None:
    """Holds what is published against the database, both ways.

    An entry that the database does not know as revoked raises `crl.database_lost_revocations`. A revocation that the
    published CRL covers and does not show is an alarm with its serial, in `memory.lacks` until a comparison finds it
    shown, and sets `memory.differs`, so that a new CRL is made. So does a snapshot whose transactions are not all over:
    after a failover a new transaction may bear a number that the snapshot calls done.
    """
    if memory.published is None:
        return
    published, scope = memory.published, state.scope
    async with acquire(pool) as conn:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            listing = await entries.read_all(conn, scope, state.regular, await crl_entries.snapshot(conn))
            news = [] if state.published is None else await crl_entries.changes(conn, scope, state.published.covers)
        settled = state.published is not None and await crl_entries.is_past(conn, state.published.covers)
        extra, absent = await asyncio.to_thread(_differences, published.entries, listing.encoded)
        missing = await crl_entries.unrevoked(conn, scope.issuer_id, extra)
        stray = set(extra) - set(absent) - await crl_entries.may_go(conn, scope, state.regular, extra)
    if missing:
        raise _lost(scope.path, missing)
    new = {serial_of(entry) for _, entry in news}
    unseen = [serial for serial in absent if serial not in new]
    memory.lacks = ""
    if unseen:
        metrics.ALARMS.labels(MISSING_REVOCATIONS).inc()
        named = ", ".join(serial.hex() for serial in unseen[:_NAMED])
        memory.lacks = f"{MISSING_REVOCATIONS}: {len(unseen)} revocations that it should show: {named}"
    memory.differs = bool(unseen or stray) or not settled
    memory.entries = listing  # all was just read: the next CRL goes on from here


async def check_misfit(pool: Pool, publisher: Publisher, state: crls.ScopeState, memory: Memory) -> None:
    """Holds a file against the database that is signed by the issuer but does not fit the scope as the database has it.

    A database restored from before its URLs moved does not know them, and would take the file for a foreign one.
    Raises `crl.database_lost_revocations`.
    """
    found = await publisher.get(state.scope.path) if memory.published is None else None
    if found is None:
        return
    async with acquire(pool) as conn:
        terms = await terms_of(conn, state.scope)
        serials = await asyncio.to_thread(_signed_serials, found[0], terms)
        missing = await crl_entries.unrevoked(conn, state.scope.issuer_id, serials)
    if missing:
        raise _lost(state.scope.path, missing)


def _signed_serials(body: bytes, terms: Terms) -> list[bytes]:
    """The serials of a CRL by this issuer, of whatever scope; none of another's or a damaged one."""
    try:
        crl = read_crl(body)
        verify(terms.spki, terms.algorithm, terms.algorithm.decode(crl.signature), crl.tbs)
    except QuashError:
        return []
    return _serials(crl.revoked)


def _lost(path: str, missing: list[bytes]) -> QuashError:
    named = ", ".join(format_serial(serial) for serial in sorted(missing)[:_NAMED])
    return QuashError(
        LOST_REVOCATIONS,
        f"{path} lists {len(missing)} serials that the database does not know as revoked: bring it up to date"
        f" before anything is signed. They are {named}{', ...' if len(missing) > _NAMED else ''}",
        Kind.CONFLICT,
    )


def _differences(published: bytes, listed: bytes) -> tuple[list[bytes], list[bytes]]:
    """The serials of entries that only the first, and only the second has.

    What was appended to the published entries costs a comparison of memory; else two sets are made.
    """
    if listed.startswith(published):
        return [], _serials(listed[len(published) :])
    first, second = set(cut_entries(published)), set(cut_entries(listed))
    return list(map(serial_of, first - second)), list(map(serial_of, second - first))


def _serials(joined: bytes) -> list[bytes]:
    return [serial_of(entry) for entry in cut_entries(joined)]
