"""Buckets: fixed slices of an issuer's serials, the unit of refresh and of dropping feed partitions.

A refresh writes to the bucket's row alone, never to a row per certificate, so that a cycle over millions leaves no dead
tuples behind. `pass_xmin` is the xmin of a snapshot that was taken before the pass read anything: a feed row of a
transaction below it was committed before, so what the pass fed says at least as much (see `feed.drop_partition`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quash.store.database import Connection

CLOCK_SLACK = 10
"""Seconds by which two presigners' clocks may differ without anything being wrong: twice what each may from ours."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket; `due_at` in Unix seconds, `bucket_count` that of its issuer."""

    issuer_id: int
    bucket: int
    due_at: int
    bucket_count: int


async def add(conn: Connection, issuer_id: int, bucket_count: int, due_at: int) -> None:
    """Makes the buckets of a new issuer; those that exist stay as they are."""
    await conn.execute(
        "insert into bucket (issuer_id, bucket, due_at) select $1, b, $3 from generate_series(0, $2 - 1) as b"
        " on conflict do nothing",
        issuer_id,
        bucket_count,
        due_at,
    )


async def due(conn: Connection, now: int, limit: int, without_issuers: Iterable[int] = ()) -> list[Bucket]:
    """Buckets that have been due longest, all of one issuer; `without_issuers` are left out."""
    rows = await conn.fetch(
        "with oldest as (select issuer_id from bucket where due_at <= $1 and issuer_id <> all($3::smallint[])"
        " order by due_at, issuer_id limit 1)"
        " select b.issuer_id, b.bucket, b.due_at, i.bucket_count from bucket b join oldest using (issuer_id)"
        " join issuer i on i.id = b.issuer_id where b.due_at <= $1 order by b.due_at, b.bucket limit $2",
        now,
        limit,
        list(without_issuers),
    )
    return [Bucket(**row) for row in rows]


async def mark_due(conn: Connection, keys: Iterable[tuple[int, int]], now: int) -> None:
    """Makes buckets (issuer id, bucket) due now, those that were due before at their older time."""
    issuer_ids, numbers = [], []
    for issuer_id, bucket in sorted(keys):
        issuer_ids.append(issuer_id)
        numbers.append(bucket)
    await conn.execute(
        "update bucket b set due_at = least(b.due_at, $3)"
        " from unnest($1::smallint[], $2::integer[]) as k (issuer_id, bucket)"
        " where b.issuer_id = k.issuer_id and b.bucket = k.bucket",
        issuer_ids,
        numbers,
        now,
    )


async def mark_due_after_set_back(conn: Connection, now: int) -> int:
    """Makes everything due that was signed by a clock which was set back since; returns how many buckets.

    Nodes refused those answers for good, as from the future; and no pass of the future excuses one that is due now.
    News leave no trace per bucket: when the presigner's position in the outbox is of the future, all buckets are due.
    """
    return len(
        await conn.fetch(
            "update bucket set due_at = least(due_at, $1), passed_at = null, pass_xmin = null"
            " where passed_at > $2 or exists"
            " (select from reader_position where reader like 'presign-%' and updated_at > $2) returning 1",
            now,
            now + CLOCK_SLACK,
        )
    )


async def snapshot_xmin(conn: Connection) -> int:
    """The xmin of a snapshot taken now, outside of any transaction: every transaction below it has ended."""
    return int(await conn.fetchval("select pg_snapshot_xmin(pg_current_snapshot())"))


async def finish_pass(
    conn: Connection, bucket: Bucket, *, passed_at: int, pass_xmin: int, due_at: int, signer_id: int | None
) -> None:
    """Records a complete pass that began at `passed_at`; in the transaction of its last feed rows, or a later one.

    `signer_id`: who signed, or the oldest of those who did; None: nobody could, and nothing was to be signed.
    """
    await conn.execute(
        "update bucket set passed_at = $3, pass_xmin = $4, due_at = $5, signer_id = $6"
        " where issuer_id = $1 and bucket = $2",
        bucket.issuer_id,
        bucket.bucket,
        passed_at,
        pass_xmin,
        due_at,
        signer_id,
    )


async def oldest_pass(conn: Connection) -> int | None:
    """When the bucket with the oldest answers was passed, or has waited for its first pass: to alarm by (A4)."""
    value = await conn.fetchval("select min(coalesce(passed_at, due_at)) from bucket")
    return None if value is None else int(value)
