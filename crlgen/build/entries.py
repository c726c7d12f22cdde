"""The entries of one scope, kept encoded, so that one more revocation costs one more entry.

A set belongs to a snapshot of the database (`covers`) and to the regular CRL whose passing lets expired entries go
(B13). Revocations that came since are appended; an upgrade, or a new regular CRL, has the whole set read again.
"""

from __future__ import annotations

from dataclasses import dataclass

from quash.store import crls
from quash.store.database import Pool, acquire


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


async def current(pool: Pool, scope: crls.Scope, regular: crls.Crl | None, known: EntrySet | None) -> EntrySet:
    """What the scope's CRL must list now; `known` is the last set, if any.

    One read-only transaction, over before anything is signed.
    """
    async with acquire(pool) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        covers = await crls.snapshot(conn)
        number = regular.number if regular else None
        if known is not None and known.regular == number:
            changes = await crls.changes(conn, scope, known.covers)
            if all(version == 1 for version, _ in changes):
                added = [entry for _, entry in changes]
                expected = await crls.total(conn, scope) - known.gone
                encoded = b"".join((known.encoded, *added))
                return EntrySet(covers, number, encoded, known.count + len(added), expected, known.gone)
        found = await crls.listing(conn, scope, regular)
        expected = await crls.total(conn, scope) - found.gone
        return EntrySet(covers, number, found.encoded, found.count, expected, found.gone)
