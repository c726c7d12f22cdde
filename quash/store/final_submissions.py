"""Final certificates on their way into logs (E6): since T3 (`quash.store.issuing`), until one has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from quash.store.database import Connection

FIRST_PAUSE: Final = 60
"""Seconds between the first attempts; also how long one attempt may take before another process makes the next."""
LONGEST_PAUSE: Final = 3600


@dataclass(frozen=True, slots=True)
class Due:
    """One certificate (`der`) to submit now; `not_after` in Unix seconds."""

    issuer_id: int
    serial: bytes
    der: bytes
    not_after: int


async def claim(conn: Connection, now: int, limit: int) -> Sequence[Due]:
    """At most `limit` that are due, oldest first. No other claim returns them before their pause is over.

    The pause doubles from FIRST_PAUSE to LONGEST_PAUSE with each attempt. No log takes an expired certificate.
    """
    rows = await conn.fetch(
        "with due as (select s.issuer_id, s.serial, c.der, c.not_after from final_submission s"
        " join certificate c using (issuer_id, serial)"
        " where s.logged_at is null and s.next_at <= $1 and c.not_after >= $1"
        " order by s.next_at limit $2 for update of s skip locked)"
        " update final_submission s set attempts = attempts + 1,"
        " next_at = $1 + least($4::bigint, $3::bigint << least(attempts, 16)) from due"
        " where (s.issuer_id, s.serial) = (due.issuer_id, due.serial)"
        " returning due.issuer_id, due.serial, due.der, due.not_after",
        now,
        limit,
        FIRST_PAUSE,
        LONGEST_PAUSE,
    )
    return [Due(**row) for row in rows]


async def set_logged(conn: Connection, at: int, logged: Sequence[tuple[int, bytes, bytes]]) -> None:
    """Logs have these: (issuer id, serial, log id) each. The first log that is told stays."""
    await conn.execute(
        "update final_submission s set logged_at = $1, log_id = l.log_id"
        " from unnest($2::smallint[], $3::bytea[], $4::bytea[]) as l (issuer_id, serial, log_id)"
        " where s.issuer_id = l.issuer_id and s.serial = l.serial and s.logged_at is null",
        at,
        *map(list, zip(*logged, strict=True)),
    )


async def oldest(conn: Connection, now: int) -> int | None:
    """When the oldest unexpired certificate was added that no log has yet; None: all are logged."""
    at: int | None = await conn.fetchval(
        "select s.added_at from final_submission s join certificate c using (issuer_id, serial)"
        " where s.logged_at is null and c.not_after >= $1 order by s.added_at limit 1",
        now,
    )
    return at
