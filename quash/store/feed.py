"""The feed: what nodes apply, append-only, in partitions of time. `quash.cache.layout` knows the payloads.

Written by the presigner alone, each batch in one transaction that also compares its lease's fence; read by followers
with `quash.store.news`. Partitions are made ahead of time and dropped by functions of the owner (0002_feed.sql), so the
presigner itself may neither create nor drop a table.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import asyncpg

from quash.store.database import Connection
from quash.store.leases import HELD, Lease
from quash.store.news import NewsReader, Position

URGENT, BULK = 0, 1
# One statement: news come one by one, and a question costs more than what it asks for.
_WRITE = f"""
{HELD}, added as (
    insert into feed (written_at, lane, kind, issuer_id, payload)
    select $3, r.lane, r.kind, r.issuer_id, r.payload
    from held, unnest($4::smallint[], $5::text[], $6::smallint[], $7::bytea[])
        with ordinality as r (lane, kind, issuer_id, payload, number)
    order by r.number
), remembered as (
    insert into proven_certificate (issuer_id, serial)
    select k.issuer_id, k.serial from held, unnest($8::smallint[], $9::bytea[]) as k (issuer_id, serial)
    on conflict do nothing
), taken_up as (
    insert into reader_position (reader, system_id, position, updated_at)
    select $10, $11, $12, $3 from held where $10::text is not null
    on conflict (reader) do update
    set system_id = excluded.system_id, position = excluded.position, updated_at = excluded.updated_at
)
select pg_notify('feed', '') from held
"""


@dataclass(frozen=True, slots=True)
class FeedRow:
    """One row to append: records, template, issuer or heartbeat. `issuer_id` is None for rows of several issuers."""

    lane: int
    kind: str
    issuer_id: int | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition holds the rows with starts_at <= written_at < ends_at, in Unix seconds."""

    starts_at: int
    ends_at: int


async def write(
    conn: Connection,
    lease: Lease,
    rows: Sequence[FeedRow],
    written_at: int,
    *,
    proven: Collection[tuple[int, bytes]] = (),
    taken_up: tuple[str, Position] | None = None,
) -> None:
    """Appends rows with their hint, and what must stand exactly when they do, in one statement under the lease.

    `proven`: certificates (issuer id, serial) that were verified; the same again changes nothing. `taken_up`: a reader
    of news and how far it may go on. Raises `lease.lost`, and asyncpg's CheckViolationError when no partition holds
    `written_at`; then nothing stands.
    """
    reader, position = taken_up or (None, Position())
    await lease.write(
        conn,
        _WRITE,
        written_at,
        [row.lane for row in rows],
        [row.kind for row in rows],
        [row.issuer_id for row in rows],
        [row.payload for row in rows],
        [issuer_id for issuer_id, _ in proven],
        [serial for _, serial in proven],
        reader,
        position.history,
        position.tx,
    )


def news_reader(name: str, *, heaviest: int, where: str = "") -> NewsReader:
    """A node's reader, of all rows or of those `where`. `heaviest`: octets of payload that end a read."""
    return NewsReader(
        "feed",
        ("lane", "kind", "payload", "written_at"),
        name,
        where=where,
        in_order=bool(where),  # few of many rows: the planner would rather read and sort a whole backlog at each look
        stamp="written_at",
        weight="octet_length(payload)",
        heaviest=heaviest,
    )


async def partitions(conn: Connection) -> list[Partition]:
    """The partitions that exist, oldest first."""
    rows = await conn.fetch("select starts_at, ends_at from feed_partition order by starts_at")
    return [Partition(**row) for row in rows]


async def add_partition(conn: Connection, starts_at: int, ends_at: int) -> bool:
    """Makes the partition of a span of time; False when one begins there already."""
    return bool(await conn.fetchval("select feed_add_partition($1, $2)", starts_at, ends_at))


async def drop_partition(conn: Connection, starts_at: int, now: int) -> bool:
    """Drops a partition that is over and no longer needed; False when it is needed, or is being read this moment.

    Needed: some bucket has no complete pass whose snapshot began after the partition's last row (0002_feed.sql).
    """
    try:
        return bool(await conn.fetchval("select feed_drop_partition($1, $2)", starts_at, now))
    except asyncpg.LockNotAvailableError:
        return False


async def floor(conn: Connection) -> int:
    """Rows of transactions below this one may have been dropped: a follower that stands below it rebuilds."""
    return int(await conn.fetchval("select below from feed_floor"))


async def database_time(conn: Connection) -> float:
    """The database server's own clock, Unix seconds: to compare with ours, never to decide by."""
    return float(await conn.fetchval("select extract(epoch from clock_timestamp())::float8"))
