"""The feed: what nodes apply, append-only, in partitions of time. `quash.cache.layout` knows the payloads.

Written by the presigner alone, each batch in one transaction that also compares its lease's fence; read by followers
with `quash.store.news`. Partitions are made ahead of time and dropped by functions of the owner (0002_feed.sql), so the
presigner itself may neither create nor drop a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from quash.store.database import SCHEMA, Connection

URGENT, BULK = 0, 1
_FEW = 4
"""Rows that are appended by one prepared statement; a COPY is parsed each time, and its hint is another one."""


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


async def append(conn: Connection, rows: Sequence[FeedRow], written_at: int) -> None:
    """Appends rows and queues the hint; the caller's transaction makes them visible all at once.

    Raises asyncpg's CheckViolationError when no partition holds `written_at`.
    """
    if len(rows) <= _FEW:
        await conn.execute(
            "with added as (insert into feed (written_at, lane, kind, issuer_id, payload)"
            " select $1, r.lane, r.kind, r.issuer_id, r.payload"
            " from unnest($2::smallint[], $3::text[], $4::smallint[], $5::bytea[])"
            " with ordinality as r (lane, kind, issuer_id, payload, number) order by r.number)"
            " select pg_notify('feed', '')",
            written_at,
            [row.lane for row in rows],
            [row.kind for row in rows],
            [row.issuer_id for row in rows],
            [row.payload for row in rows],
        )
        return
    await conn.copy_records_to_table(
        "feed",
        schema_name=SCHEMA,
        columns=("written_at", "lane", "kind", "issuer_id", "payload"),
        records=[(written_at, row.lane, row.kind, row.issuer_id, row.payload) for row in rows],
    )
    await conn.execute("select pg_notify('feed', '')")


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
