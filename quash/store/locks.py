"""Advisory locks that decide races between issuing and revoking. They belong to a session: keep the connection.

A session that dies drops its locks, so whoever acts under one commits on the same connection: a lost lock is then a
lost commit, never a second holder's mistake. No transaction needs to be open while a lock is held. Take them in the
order order, kill switch, operators, key. Behind a pooler they need session pooling.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from quash.errors import QuashError
from quash.store.database import Connection, is_lost, locks_of, owe, paid, translated


def _key(kind: str, name: bytes) -> int:
    """A lock number of 64 bits; a chance collision makes two things wait for each other and nothing worse."""
    digest = hashlib.sha256(b"quash.lock." + kind.encode() + b":" + name).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


SPKI_LOCK = """
('x' || encode(substr(sha256('quash.lock.spki:'::bytea || coalesce(c.spki_sha256,
    sha256(convert_to(c.issuer_id || ':', 'UTF8') || c.serial))), 1, 8), 'hex'))::bit(64)::bigint
"""
"""The number of `spki_lock` in SQL, of a certificate `c`: for its key, or for itself where nobody knows the key."""


@asynccontextmanager
async def spki_lock(conn: Connection, spki_sha256: bytes) -> AsyncIterator[None]:
    """Excludes issuing for a public key against blocking it, by SHA-256 of its SPKI.

    Issuing holds it from its last look at the blocked keys until the certificate is committed; blocking holds it from
    before its transaction until after the commit. So blocking sees the certificate as a sibling (C8), or issuing sees
    the key blocked (C9): never neither.
    """
    key = _key("spki", spki_sha256)
    async with _having(conn, (key, False)):
        await conn.execute("select pg_advisory_lock($1)", key)
        yield


@asynccontextmanager
async def kill_switch_lock(conn: Connection, *, stop: bool) -> AsyncIterator[None]:
    """Excludes signing (shared, `stop=False`) against throwing the kill switch (`stop=True`), of any issuer (G21).

    When a stop has committed under the lock, nothing that was under way will still be signed.
    """
    shared = "" if stop else "_shared"
    key = _key("kill-switch", b"")
    async with _having(conn, (key, not stop)):
        await conn.execute(f"select pg_advisory_lock{shared}($1)", key)
        yield


async def switch_lock(conn: Connection, issuer_id: int) -> None:
    """Whoever orders a new OCSP signer of this issuer sees who did before; until the end of the transaction."""
    await conn.execute("select pg_advisory_xact_lock($1)", _key("switch", str(issuer_id).encode()))


@asynccontextmanager
async def operators_lock(conn: Connection) -> AsyncIterator[None]:
    """Changes of who may do what follow each other: of two that leave too few officers, one is refused (F9)."""
    key = _key("operators", b"")
    async with _having(conn, (key, False)):
        await conn.execute("select pg_advisory_lock($1)", key)
        yield


@asynccontextmanager
async def signing_locks(conn: Connection, spki_sha256: bytes) -> AsyncIterator[None]:
    """`kill_switch_lock` (shared) and `spki_lock`, in this order, with one question: what issuing holds to sign."""
    kill_switch, key = _key("kill-switch", b""), _key("spki", spki_sha256)
    async with _having(conn, (kill_switch, True), (key, False)):
        await conn.execute(
            "with first as materialized (select pg_advisory_lock_shared($1)) select pg_advisory_lock($2) from first",
            kill_switch,
            key,
        )
        yield


@asynccontextmanager
async def locks_to_sign(conn: Connection, spki_sha256: bytes) -> AsyncIterator[tuple[int, int]]:
    """Yields the numbers of `signing_locks`, for the question of the block that takes them and looks.

    That is `quash.store.issuing.obstacles`.
    """
    kill_switch, key = _key("kill-switch", b""), _key("spki", spki_sha256)
    async with _having(conn, (kill_switch, True), (key, False)):
        yield kill_switch, key


@asynccontextmanager
async def try_order_lock(conn: Connection, order_id: UUID) -> AsyncIterator[bool]:
    """Yields whether this session alone works on the order; it does not wait."""
    key = _key("order", order_id.bytes)
    async with _having(conn, (key, False)):
        alone = await conn.fetchval("select pg_try_advisory_lock($1)", key)
        if not alone:
            not_taken(conn, key)
        yield alone


TAKING = "alone as materialized (select pg_advisory_lock({}))"
TRYING = "alone as materialized (select pg_try_advisory_lock({}) as alone)"
"""The part of a statement that takes the lock whose number `order_lock` yields, or tries to (then see `not_taken`)."""


def not_taken(conn: Connection, key: int) -> None:
    """Another session has the lock: there is nothing to give back."""
    with suppress(ValueError):
        locks_of(conn).remove((key, False))


@asynccontextmanager
async def order_lock(conn: Connection, order_id: UUID) -> AsyncIterator[int]:
    """Yields the number of the order's lock, for the statement of the block that takes it with what it writes.

    A statement that makes the order has its lock before anybody else sees that there is such an order.
    """
    key = _key("order", order_id.bytes)
    async with _having(conn, (key, False)):
        yield key


UNLOCKING = """
kept as materialized (select k, pg_advisory_xact_lock(k) from unnest({exclusive}::bigint[]) k),
kept_shared as materialized (select k, pg_advisory_xact_lock_shared(k) from unnest({shared}::bigint[]) k)
"""
UNLOCKED = """
(select count(pg_advisory_unlock(k)) from kept), (select count(pg_advisory_unlock_shared(k)) from kept_shared)
"""
"""The parts of a statement that gives back all locks of its session (`held`) at its commit, and not a moment earlier.

Each lock becomes the transaction's before it stops being the session's: so nobody gets it before the commit is seen.
"""


def held(conn: Connection) -> tuple[list[int], list[int]]:
    """The numbers of the locks that a session has: exclusive ones, and shared ones."""
    locks = locks_of(conn)
    return [key for key, shared in locks if not shared], [key for key, shared in locks if shared]


def given_back(conn: Connection) -> None:
    """To be called when a statement with `UNLOCKING` has ended well."""
    locks_of(conn).clear()


@asynccontextmanager
async def _having(conn: Connection, *locks: tuple[int, bool]) -> AsyncIterator[None]:
    """For a block that begins by taking locks (number, and whether shared); they are given back at its end.

    They are asked for inside: when the question is cut off between two, what was taken is given back all the same.
    """
    owe(conn)
    locks_of(conn).extend(locks)
    try:
        yield
    finally:
        await _release(conn, locks)


async def _release(conn: Connection, locks: Sequence[tuple[int, bool]]) -> None:
    """A lost connection holds nothing; and its error must not hide the one that ended the work, or a cancellation."""
    if is_lost(conn):
        return
    mine = locks_of(conn)
    left = [each for each in locks if each in mine]
    with suppress(QuashError), translated():
        if left:
            unlock = ", ".join(f"pg_advisory_unlock{'_shared' * left[n][1]}(${n + 1})" for n in range(len(left)))
            await conn.execute(f"select {unlock}", *(key for key, _ in left))
            for each in left:
                mine.remove(each)
        paid(conn)
