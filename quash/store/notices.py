"""Notices: what is told to whom, and how each attempt went. Append-only, so that what was said stays said (C6, C17)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class Notice:
    """`channel`: mail or webhook. `recipient`: an address, or the account of a subscriber. `at`: Unix seconds."""

    id: int
    at: int
    case_id: int | None
    template: str
    channel: str
    recipient: str
    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A notice and how it stands: `sent_at` None: not yet; `tries` so far, `last` said what went wrong."""

    notice: Notice
    sent_at: int | None
    tries: int
    last: str


_COLUMNS = "id, at, case_id, template, channel, recipient, subject, body"
_TRIES = """
 from notice n cross join lateral (
    select min(a.at) filter (where a.sent) as sent_at, count(*) as tries, max(a.at) as tried_at,
        coalesce((array_agg(a.detail order by a.id desc))[1], '') as last
    from notice_attempt a where a.notice_id = n.id) t
"""


async def add(
    conn: Connection,
    *,
    at: int,
    case_id: int | None,
    template: str,
    channel: str,
    recipient: str,
    subject: str,
    body: str,
    once: str | None = None,
) -> bool:
    """Queues a notice; False: one with this `once` was queued before."""
    new = await conn.fetchval(
        "insert into notice (at, case_id, template, channel, recipient, subject, body, once)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (once) do nothing returning true",
        at,
        case_id,
        template,
        channel,
        recipient,
        subject,
        body,
        once,
    )
    return bool(new)


async def due(
    conn: Connection, now: int, *, first_pause: int, longest_pause: int, give_up: int, limit: int
) -> list[Notice]:
    """Those to be tried now, oldest first: after n failures a pause of first_pause * 2^n seconds; given up after."""
    rows = await conn.fetch(
        f"select {_COLUMNS} {_TRIES} where sent_at is null and at > $1::bigint - $4::bigint"
        " and (tries = 0 or tried_at + least($2::bigint * 2 ^ least(tries - 1, 20), $3::bigint) <= $1)"
        " order by id limit $5",
        now,
        first_pause,
        longest_pause,
        give_up,
        limit,
    )
    return [Notice(**row) for row in rows]


async def record(conn: Connection, notice_id: int, at: int, *, sent: bool, detail: str) -> None:
    await conn.execute(
        "insert into notice_attempt (notice_id, at, sent, detail) values ($1, $2, $3, $4)", notice_id, at, sent, detail
    )


async def of_case(conn: Connection, case_id: int) -> list[Standing]:
    """The notices of a case, oldest first."""
    rows = await conn.fetch(f"select {_COLUMNS}, sent_at, tries, last {_TRIES} where case_id = $1 order by id", case_id)
    return [_standing(row) for row in rows]


async def unsent(conn: Connection) -> int:
    count = await conn.fetchval(
        "select count(*) from notice n where not exists"
        " (select from notice_attempt a where a.notice_id = n.id and a.sent)"
    )
    return int(count)


def _standing(row: Any) -> Standing:
    fields = dict(row)
    rest = {name: fields.pop(name) for name in ("sent_at", "tries", "last")}
    return Standing(Notice(**fields), **rest)
