"""Acts: who did what, when. Append-only (F1, F3, F7); each is written in the transaction of what it tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quash.store.database import Connection

Subject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Act:
    """One act; `at` is Unix seconds, `subject` holds JSON values: names and serials as text, never a secret."""

    id: int
    at: int
    actor: str
    action: str
    subject: dict[str, Any]


async def record(conn: Connection, *, at: int, actor: str, action: str, subject: Subject) -> int:
    """Writes one act and returns its id. Its subject is not sent back: that of a mass revocation names a thousand."""
    act_id = await conn.fetchval(
        "insert into act (at, actor, action, subject) values ($1, $2, $3, $4) returning id",
        at,
        actor,
        action,
        dict(subject),
    )
    return int(act_id)


async def record_many(
    conn: Connection, *, at: int, actor: str, action: str, subjects: Sequence[Subject]
) -> Sequence[Act]:
    """Writes one act for each subject. They come back with their ids in no promised order: match them by subject."""
    rows = await conn.fetch(
        "insert into act (at, actor, action, subject) select $1, $2, $3, unnest($4::jsonb[])"
        " returning id, at, actor, action, subject",
        at,
        actor,
        action,
        [dict(subject) for subject in subjects],
    )
    return [Act(**row) for row in rows]


async def page(
    conn: Connection, *, actor: str | None, action: str | None, since: int | None, before: int | None, limit: int
) -> list[Act]:
    """Acts below an id, newest first; None: of anybody, of any kind, from the beginning, from the newest on."""
    rows = await conn.fetch(
        "select id, at, actor, action, subject from act where ($1::text is null or actor = $1)"
        " and ($2::text is null or action = $2) and ($3::bigint is null or at >= $3)"
        " and ($4::bigint is null or id < $4) order by id desc limit $5",
        actor,
        action,
        since,
        before,
        limit,
    )
    return [Act(**row) for row in rows]


async def get(conn: Connection, act_id: int) -> Act | None:
    row = await conn.fetchrow("select id, at, actor, action, subject from act where id = $1", act_id)
    return Act(**row) if row else None
