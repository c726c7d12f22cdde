"""The entries of one scope, kept encoded, so that one more revocation costs one more entry.

A set belongs to a snapshot of the database (`covers`) and to the regular CRL whose passing lets expired entries go
(B13). Revocations that came since are appended; an upgrade, or a new regular CRL, has the whole set read again.
"""

from __future__ import annotations

from dataclasses import dataclass

from quash.store import crl_entries, crls
from quash.store.database import Connection, Pool, acquire


@dataclass(frozen=True, slots=True)
class EntrySet:
    """`encoded`: whole entries joined. `expected`: how many there are by the database's own count at `covers`.

    `gone`: revoked certificates of the scope that need no entry any more; `regular`: the number of the regular CRL
    that decided so.
    """

    covers: str
    regular: int | None
    encoded: bytes
    count: int
    expected: int
    gone: int


_COUNTED_EACH_TIME = 200_000
"""Entries up to which all are counted for each CRL: more than B21 lets a CRL have. Counting a million costs a tenth of
their CRL, and a second where the table was not vacuumed; there the new ones are counted, and all of them whenever what
is published is compared with the database (at start, every hour) and after the gate refused."""


async def _total(conn: Connection, scope: crls.Scope, known: EntrySet | None) -> int:
    """How many certificates of the scope were ever revoked, by the database's own count."""
    if known is None or known.count <= _COUNTED_EACH_TIME:
        return await crl_entries.total(conn, scope)
    return known.expected + known.gone + await crl_entries.count_new(conn, scope, known.covers)


async def current(pool: Pool, scope: crls.Scope, regular: crls.Crl | None, known: EntrySet | None) -> EntrySet:
    """What the scope's CRL must list now; `known` is the last set, if any.

    One read-only transaction, over before anything is signed.
    """
    async with acquire(pool) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        covers = await crl_entries.snapshot(conn)
        number = regular.number if regular else None
        if known is not None and known.regular == number:
            added = await crl_entries.added(conn, scope, known.covers)
            if not added.upgrades:
                expected = await _total(conn, scope, known) - known.gone
                encoded = known.encoded + added.encoded
                return EntrySet(covers, number, encoded, known.count + added.count, expected, known.gone)
        return await read_all(conn, scope, regular, covers, known)


async def read_all(
    conn: Connection, scope: crls.Scope, regular: crls.Crl | None, covers: str, known: EntrySet | None = None
) -> EntrySet:
    """The whole set, in the caller's transaction, whose snapshot is `covers`. Without `known` all are counted too."""
    found = await crl_entries.listing(conn, scope, regular)
    expected = await _total(conn, scope, known) - found.gone
    return EntrySet(covers, regular.number if regular else None, found.encoded, found.count, expected, found.gone)
