"""Exemptions: two officers' decisions that mass revocations leave certificates out for a time. Append-only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from quash.store.database import Connection

Key = tuple[int, bytes]
"""(issuer id, serial)."""


@dataclass(frozen=True, slots=True)
class Exemption:
    """One certificate's; in force from `at` until `until`, or until `ended_at` when it was ended before. Unix seconds.

    `proposed_by` and `approved_by`: the two officers, as acts name them.
    """

    id: int
    issuer: str
    issuer_id: int
    serial: bytes
    why: str
    until: int
    at: int
    proposed_by: str
    approved_by: str
    ended_at: int | None
    ended_why: str | None


_SELECT = """
select e.id, i.name as issuer, e.issuer_id, e.serial, e.why, e.until, e.at, a.subject->>'proposed_by' as proposed_by,
    a.actor as approved_by, o.at as ended_at, o.why as ended_why
from exemption e join issuer i on i.id = e.issuer_id join act a on a.id = e.act_id
left join exemption_end o on o.exemption_id = e.id
"""


async def add(conn: Connection, keys: Collection[Key], *, why: str, until: int, at: int, act_id: int) -> None:
    await conn.execute(
        "insert into exemption (issuer_id, serial, why, until, at, act_id)"
        " select i, s, $3, $4, $5, $6 from unnest($1::smallint[], $2::bytea[]) k (i, s)",
        [issuer_id for issuer_id, _ in keys],
        [serial for _, serial in keys],
        why,
        until,
        at,
        act_id,
    )


async def end(conn: Connection, exemption_id: int, *, at: int, why: str, act_id: int) -> bool:
    """False: it was ended before."""
    done = await conn.fetchval(
        "insert into exemption_end (exemption_id, at, why, act_id) values ($1, $2, $3, $4)"
        " on conflict do nothing returning true",
        exemption_id,
        at,
        why,
        act_id,
    )
    return bool(done)


async def get(conn: Connection, exemption_id: int) -> Exemption | None:
    row = await conn.fetchrow(f"{_SELECT} where e.id = $1", exemption_id)
    return Exemption(**row) if row else None


async def page(conn: Connection, before: int | None, limit: int) -> list[Exemption]:
    """Below a number, newest first; those that are over as well."""
    rows = await conn.fetch(
        f"{_SELECT} where $1::bigint is null or e.id < $1 order by e.id desc limit $2", before, limit
    )
    return [Exemption(**row) for row in rows]


async def in_force(conn: Connection, now: int) -> Mapping[Key, int]:
    """The certificates that are exempt at `now`, each with its newest decision."""
    rows = await conn.fetch(
        "select e.issuer_id, e.serial, max(e.id) as id from exemption e where e.until > $1"
        " and not exists (select from exemption_end o where o.exemption_id = e.id) group by 1, 2",
        now,
    )
    return {(row["issuer_id"], row["serial"]): row["id"] for row in rows}


async def of_case(conn: Connection, case_id: int) -> list[Exemption]:
    """Every decision about a certificate of the case, those that are over as well, oldest first."""
    rows = await conn.fetch(
        f"{_SELECT} join case_certificate m on m.issuer_id = e.issuer_id and m.serial = e.serial"
        " where m.case_id = $1 order by e.id",
        case_id,
    )
    return [Exemption(**row) for row in rows]


async def of_job(conn: Connection, job_id: int) -> list[Exemption]:
    """The decisions by which a mass revocation left certificates out, oldest first."""
    rows = await conn.fetch(
        f"{_SELECT} join mass_job_exempt m on m.exemption_id = e.id where m.job_id = $1 order by e.id", job_id
    )
    return [Exemption(**row) for row in rows]
