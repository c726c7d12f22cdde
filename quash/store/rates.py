"""What processes measured of themselves, for forecasts. Last words, not a history: Prometheus keeps that."""

from __future__ import annotations

from quash.store.database import Connection

SIGNING = "presign.bulk"
"""Records that presigner and its signing processes sign and feed in a second, when there is enough to do."""


async def keep(conn: Connection, name: str, per_second: float, now: int) -> None:
    """Replaces what was measured before; `now` in Unix seconds."""
    await conn.execute(
        "insert into measured_rate (name, per_second, measured_at) values ($1, $2, $3)"
        " on conflict (name) do update set per_second = $2, measured_at = $3",
        name,
        per_second,
        now,
    )


async def last(conn: Connection, name: str) -> float | None:
    """None: never measured."""
    found: float | None = await conn.fetchval("select per_second from measured_rate where name = $1", name)
    return found
