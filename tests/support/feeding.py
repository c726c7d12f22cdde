"""Feed rows of no presigner: what tests write stands without a lease."""

from __future__ import annotations

from collections.abc import Sequence

from quash.store.database import Connection
from quash.store.feed import FeedRow


async def append(conn: Connection, rows: Sequence[FeedRow], written_at: int) -> None:
    """Appends rows with their hint, in a transaction of the caller's if there is one."""
    await conn.executemany(
        "insert into feed (written_at, lane, kind, issuer_id, payload) values ($1, $2, $3, $4, $5)",
        [(written_at, row.lane, row.kind, row.issuer_id, row.payload) for row in rows],
    )
    await conn.execute("select pg_notify('feed', '')")
