"""News for the presigner, written in the very transaction that makes them, so that no crash comes between.

Whoever changes what OCSP must say adds a row here: a certificate whose status or DER changed, a bucket whose every
certificate did (an import, a mass revocation), an issuer or an OCSP signer that is new. Each function also queues the
hint, which PostgreSQL delivers at commit and never after a rollback; readers poll as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quash.store.database import Connection
from quash.store.news import Batch, NewsReader

URGENT, BULK = 0, 1
"""Lanes: revocations and new certificates; and work that may wait for them, such as imports."""


@dataclass(frozen=True, slots=True)
class News:
    """One row, of kind certificate (with `serial`), bucket (with `bucket`), issuer or signer."""

    kind: str
    issuer_id: int
    serial: bytes | None
    bucket: int | None


def reader(lane: int) -> NewsReader:
    """The presigner's reader of one lane, so that bulk news never stand before urgent ones."""
    columns = ("kind", "issuer_id", "serial", "bucket")
    return NewsReader("outbox", columns, f"presign-{lane}", where=f"lane = {int(lane)}")


def news(batch: Batch) -> list[News]:
    """The rows that such a reader found."""
    return [News(row["kind"], row["issuer_id"], row["serial"], row["bucket"]) for row in batch.rows]


async def add_certificates(conn: Connection, keys: Iterable[tuple[int, bytes]], *, lane: int = URGENT) -> None:
    """Certificates (issuer id, serial) whose status or DER changes with this transaction."""
    issuer_ids, serials = [], []
    for issuer_id, serial in keys:
        issuer_ids.append(issuer_id)
        serials.append(serial)
    await conn.execute(
        "with added as (insert into outbox (lane, kind, issuer_id, serial)"
        " select $1, 'certificate', k.issuer_id, k.serial"
        " from unnest($2::smallint[], $3::bytea[]) as k (issuer_id, serial))"
        " select pg_notify('outbox', '')",
        lane,
        issuer_ids,
        serials,
    )


async def add_buckets(conn: Connection, issuer_id: int, buckets: Iterable[int], *, lane: int = BULK) -> None:
    """Buckets in which any certificate may have changed: cheaper than one row a certificate from some thousands on."""
    await conn.execute(
        "insert into outbox (lane, kind, issuer_id, bucket) select $1, 'bucket', $2, b from unnest($3::integer[]) as b",
        lane,
        issuer_id,
        list(buckets),
    )
    await _hint(conn)


async def add_issuer(conn: Connection, issuer_id: int) -> None:
    """An issuer that is new or changed what nodes know of it: path, max-age, certificate."""
    await _add_kind(conn, "issuer", issuer_id)


async def add_signer(conn: Connection, issuer_id: int) -> None:
    """An OCSP signer of this issuer that is new or changed its state."""
    await _add_kind(conn, "signer", issuer_id)


async def prune(conn: Connection, lane: int, below: int, limit: int) -> int:
    """Deletes at most `limit` rows of a lane that its reader has left behind for good; returns how many."""
    result = await conn.execute(
        "delete from outbox where id in (select id from outbox where lane = $1 and tx < $2 order by tx limit $3)",
        lane,
        below,
        limit,
    )
    return int(result.rpartition(" ")[2])


async def _add_kind(conn: Connection, kind: str, issuer_id: int) -> None:
    await conn.execute("insert into outbox (lane, kind, issuer_id) values ($1, $2, $3)", URGENT, kind, issuer_id)
    await _hint(conn)


async def _hint(conn: Connection) -> None:
    await conn.execute("select pg_notify('outbox', '')")
