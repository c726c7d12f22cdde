"""Answers to changes that named themselves, kept for a day, so that asking again changes nothing again."""

from __future__ import annotations

from dataclasses import dataclass

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a request: `status` and `body` are None while its outcome is not known."""

    request_sha256: bytes
    status: int | None
    body: bytes | None


async def begin(
    conn: Connection, operator: bytes, key: str, request_sha256: bytes, *, now: int, keep: int
) -> Kept | None:
    """None: it is new, and begun with this. What is older than `keep` seconds is forgotten.

    `operator`: its identity.
    """
    await conn.execute("delete from idempotent_request where at < $1", now - keep)
    new = await conn.fetchval(
        "insert into idempotent_request (operator, key, request_sha256, at) values ($1, $2, $3, $4)"
        " on conflict do nothing returning true",
        operator,
        key,
        request_sha256,
        now,
    )
    if new:
        return None
    row = await conn.fetchrow(
        "select request_sha256, status, body from idempotent_request where operator = $1 and key = $2", operator, key
    )
    return Kept(**row) if row else Kept(request_sha256, None, None)


async def forget(conn: Connection, operator: bytes, key: str) -> None:
    """As if it had not begun."""
    await conn.execute("delete from idempotent_request where operator = $1 and key = $2", operator, key)


async def finish(conn: Connection, operator: bytes, key: str, status: int, body: bytes) -> None:
    await conn.execute(
        "update idempotent_request set status = $3, body = $4 where operator = $1 and key = $2",
        operator,
        key,
        status,
        body,
    )
