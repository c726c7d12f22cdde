"""Blocked keys, by the SHA-256 of their SPKI: once blocked, for ever (C9). Append-only.

Block under `quash.store.locks.spki_lock`, or a certificate for the key may be on its way past the check.
"""

from __future__ import annotations

from quash.store.database import Connection


async def block(conn: Connection, spki_sha256: bytes, *, reason: str, added_at: int, act_id: int) -> bool:
    """Blocks a key; False: it is blocked already, and the first reason and act stay."""
    added = await conn.fetchval(
        "insert into blocked_key (spki_sha256, reason, added_at, act_id) values ($1, $2, $3, $4)"
        " on conflict (spki_sha256) do nothing returning true",
        spki_sha256,
        reason,
        added_at,
        act_id,
    )
    return bool(added)


async def is_blocked(conn: Connection, spki_sha256: bytes) -> bool:
    return bool(await conn.fetchval("select exists (select from blocked_key where spki_sha256 = $1)", spki_sha256))
