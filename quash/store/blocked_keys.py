"""Blocked keys, by the SHA-256 of their SPKI: once blocked, for ever (C9). Append-only; notes may be added.

Block under `quash.store.locks.spki_lock`, or a certificate for the key may be on its way past the check. Whoever blocks
many at once does without: each is news, and the sweep that follows finds what was reserved before the commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quash.store import stolen_signers
from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class BlockedKey:
    """Why, when (Unix seconds) and by which act a key was blocked."""

    spki_sha256: bytes
    reason: str
    added_at: int
    act_id: int


_COLUMNS = "spki_sha256, reason, added_at, act_id"
_KEY_COMPROMISE = 1


async def block(conn: Connection, spki_sha256: bytes, *, reason: str, added_at: int, act_id: int) -> bool:
    """Blocks a key; False: it is blocked already, and the first reason and act stay."""
    return await block_many(conn, [spki_sha256], reason=reason, added_at=added_at, act_id=act_id) > 0


async def block_many(conn: Connection, spki_sha256: Sequence[bytes], *, reason: str, added_at: int, act_id: int) -> int:
    """Blocks keys and, at commit, hints the sweep; returns how many were not blocked before.

    With the key of an OCSP signer goes the order to replace it.
    """
    async with conn.transaction():
        rows = await conn.fetch(
            f"insert into blocked_key ({_COLUMNS}) select unnest($1::bytea[]), $2, $3, $4"
            " on conflict (spki_sha256) do nothing returning spki_sha256",
            list(spki_sha256),
            reason,
            added_at,
            act_id,
        )
        if rows:
            await stolen_signers.replace(conn, {row["spki_sha256"] for row in rows}, at=added_at, cause=act_id)
        await conn.execute("select pg_notify('job', '')")
    return len(rows)


async def is_blocked(conn: Connection, spki_sha256: bytes) -> bool:
    return bool(await conn.fetchval("select exists (select from blocked_key where spki_sha256 = $1)", spki_sha256))


async def get(conn: Connection, spki_sha256: bytes) -> BlockedKey | None:
    row = await conn.fetchrow(f"select {_COLUMNS} from blocked_key where spki_sha256 = $1", spki_sha256)
    return BlockedKey(**row) if row else None


async def page(conn: Connection, after: bytes, limit: int) -> list[BlockedKey]:
    """Blocked keys above a hash, in the order of their hashes."""
    rows = await conn.fetch(
        f"select {_COLUMNS} from blocked_key where spki_sha256 > $1 order by spki_sha256 limit $2", after, limit
    )
    return [BlockedKey(**row) for row in rows]


async def add_note(conn: Connection, spki_sha256: bytes, *, at: int, note: str, act_id: int) -> None:
    """Annotates a blocked key. Raises a foreign-key violation when it is not blocked."""
    await conn.execute(
        "insert into blocked_key_note (spki_sha256, at, note, act_id) values ($1, $2, $3, $4)",
        spki_sha256,
        at,
        note,
        act_id,
    )


async def notes(conn: Connection, spki_sha256: bytes) -> list[tuple[int, str, str]]:
    """(at, actor, note), oldest first."""
    rows = await conn.fetch(
        "select n.at, a.actor, n.note from blocked_key_note n join act a on a.id = n.act_id"
        " where n.spki_sha256 = $1 order by n.id",
        spki_sha256,
    )
    return [(row["at"], row["actor"], row["note"]) for row in rows]


async def still_certified(conn: Connection, spki_sha256: Sequence[bytes], unexpired_at: int) -> list[bytes]:
    """Those of these keys that an unexpired certificate has which is not revoked for their compromise."""
    rows = await conn.fetch(
        "select distinct c.spki_sha256 from certificate c where c.spki_sha256 = any($1::bytea[]) and c.not_after >= $2"
        " and not exists (select from revocation r where r.issuer_id = c.issuer_id and r.serial = c.serial"
        " and r.reason = $3)",
        list(spki_sha256),
        unexpired_at,
        _KEY_COMPROMISE,
    )
    return [row["spki_sha256"] for row in rows]


async def certified_keys(conn: Connection, unexpired_at: int, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
    """(SHA-256 of the SPKI, a certificate in DER) of the keys of unexpired certificates, in the order of the hashes."""
    rows = await conn.fetch(
        "select distinct on (spki_sha256) spki_sha256, der from certificate"
        " where spki_sha256 > $1 and not_after >= $2 and der is not null order by spki_sha256 limit $3",
        after,
        unexpired_at,
        limit,
    )
    return [(row["spki_sha256"], row["der"]) for row in rows]
