"""Advisory locks that decide races between issuing and revoking. They belong to a session: keep the connection.

A session that dies drops its locks, so whoever acts under one commits on the same connection: a lost lock is then a
lost commit, never a second holder's mistake. No transaction needs to be open while a lock is held. Take them in the
order order, kill switch, operators, key. Behind a pooler they need session pooling.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from quash.errors import QuashError
from quash.store.database import Connection, is_lost, owe, paid, translated


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
    async with _held(conn, "pg_advisory_lock($1)", "pg_advisory_unlock($1)", _key("spki", spki_sha256)):
        yield


@asynccontextmanager
async def kill_switch_lock(conn: Connection, *, stop: bool) -> AsyncIterator[None]:
    """Excludes signing (shared, `stop=False`) against throwing the kill switch (`stop=True`), of any issuer (G21).

    When a stop has committed under the lock, nothing that was under way will still be signed.
    """
    shared = "" if stop else "_shared"
    key = _key("kill-switch", b"")
    async with _held(conn, f"pg_advisory_lock{shared}($1)", f"pg_advisory_unlock{shared}($1)", key):
        yield


@asynccontextmanager
async def operators_lock(conn: Connection) -> AsyncIterator[None]:
    """Changes of who may do what follow each other: of two that leave too few officers, one is refused (F9)."""
    async with _held(conn, "pg_advisory_lock($1)", "pg_advisory_unlock($1)", _key("operators", b"")):
        yield


@asynccontextmanager
async def signing_locks(conn: Connection, spki_sha256: bytes) -> AsyncIterator[None]:
    """`kill_switch_lock` (shared) and `spki_lock`, in this order, with one question: what issuing holds to sign.

    The question is asked inside: when it is cut off between the two, what it has is given back.
    """
    keys = _key("kill-switch", b""), _key("spki", spki_sha256)
    owe(conn)
    try:
        await conn.execute(
            "with first as materialized (select pg_advisory_lock_shared($1)) select pg_advisory_lock($2) from first",
            *keys,
        )
        yield
    finally:
        await _release(conn, "pg_advisory_unlock($2), pg_advisory_unlock_shared($1)", *keys)


@asynccontextmanager
async def try_order_lock(conn: Connection, order_id: UUID) -> AsyncIterator[bool]:
    """Yields whether this session alone works on the order; it does not wait."""
    key = _key("order", order_id.bytes)
    owe(conn)
    if not await conn.fetchval("select pg_try_advisory_lock($1)", key):
        paid(conn)
        yield False
        return
    try:
        yield True
    finally:
        await _release(conn, "pg_advisory_unlock($1)", key)


TAKING = "alone as materialized (select pg_advisory_lock({}))"
"""The part of a statement that takes the lock whose number `new_order_lock` yields."""


@asynccontextmanager
async def new_order_lock(conn: Connection, order_id: UUID) -> AsyncIterator[int]:
    """Yields the number of the order's lock, for the statement of the block that writes the order and takes it.

    So the block has the lock before anybody else sees that there is such an order.
    """
    key = _key("order", order_id.bytes)
    owe(conn)
    try:
        yield key
    finally:
        await _release(conn, "pg_advisory_unlock($1)", key)


@asynccontextmanager
async def _held(conn: Connection, lock: str, unlock: str, key: int) -> AsyncIterator[None]:
    owe(conn)
    await conn.execute(f"select {lock}", key)
    try:
        yield
    finally:
        await _release(conn, unlock, key)


async def _release(conn: Connection, unlock: str, *keys: int) -> None:
    """A lost connection holds nothing; and its error must not hide the one that ended the work, or a cancellation."""
    if not is_lost(conn):
        with suppress(QuashError), translated():
            await conn.execute(f"select {unlock}", *keys)
            paid(conn)
