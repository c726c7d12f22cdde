"""Self-audits (F12): what was sampled, and what linters that had not gated it said. Append-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class Sampled:
    """One certificate of a sample, and the names of the linters that let it pass when it was issued."""

    issuer_id: int
    issuer: str
    serial: bytes
    der: bytes
    gated_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What one linter says of one sampled certificate; `findings` as JSON objects."""

    issuer_id: int
    serial: bytes
    linter: str
    version: str
    findings: list[dict[str, Any]]
    refused: bool


@dataclass(frozen=True, slots=True)
class SelfAudit:
    """One audit of what was issued from `since` to `until` (exclusive); times are Unix seconds."""

    id: int
    at: int
    since: int
    until: int
    population: int
    sample: int
    refused: int


@dataclass(frozen=True, slots=True)
class Period:
    """What was signed from `since` to `until` (Unix seconds, exclusive), or before and unseen by the last audit.

    `unseen`: the snapshot that the last audit counted in; None: it is not known, or there was none.
    """

    since: int
    until: int
    unseen: str | None


# By the CA signer's log: whatever was signed is in it, when it was signed, also where nobody ever fetched it. A logged
# certificate is counted with its precertificate (E8); what is no row of `certificate` is a root, or an import.
_SIGNED = """
select l.issuer_id, l.serial, coalesce(c.der, l.der) as der, c.order_id
from signing_log l join certificate c using (issuer_id, serial)
where l.kind <> 'crl' and (l.kind = 'precertificate' or not exists (select from signing_log p
        where p.issuer_id = l.issuer_id and p.serial = l.serial and p.kind = 'precertificate'))
    and l.at < $2 and (l.at >= $1 or not pg_visible_in_snapshot(l.tx, $3::text::pg_snapshot))
"""


async def population(conn: Connection, period: Period) -> dict[int, int]:
    """How many certificates and lone precertificates (E8) each issuer signed in a period; imports are not ours."""
    rows = await conn.fetch(
        f"select issuer_id, count(*) from ({_SIGNED}) s group by issuer_id order by issuer_id",
        period.since,
        period.until,
        period.unseen,
    )
    return {row["issuer_id"]: row["count"] for row in rows}


async def sample(conn: Connection, issuer_id: int, period: Period, count: int) -> Sequence[Sampled]:
    """`count` of an issuer's certificates of a period, drawn by PostgreSQL's strong random numbers."""
    rows = await conn.fetch(
        "select s.issuer_id, i.name as issuer, s.serial, s.der,"
        " array(select distinct linter from lint_result l where l.order_id = s.order_id"
        "  or (s.order_id is null and l.serial = s.serial) order by linter) as gated_by"
        f" from (select * from ({_SIGNED}) t where issuer_id = $4 order by gen_random_uuid() limit $5) s"
        " join issuer i on i.id = s.issuer_id",
        period.since,
        period.until,
        period.unseen,
        issuer_id,
        count,
    )
    return [Sampled(row["issuer_id"], row["issuer"], row["serial"], row["der"], tuple(row["gated_by"])) for row in rows]


async def snapshot(conn: Connection) -> str:
    """What the caller's transaction sees."""
    return str(await conn.fetchval("select pg_current_snapshot()::text"))


async def add(
    conn: Connection, *, at: int, period: Period, counted: str, population: int, act_id: int, results: Sequence[Result]
) -> int:
    """Stores an audit with its results and returns its id. `counted`: the snapshot that it counted in."""
    audit_id: int = await conn.fetchval(
        "insert into self_audit (at, since, until, counted, population, act_id)"
        " values ($1, $2, $3, $4::text::pg_snapshot, $5, $6) returning id",
        at,
        period.since,
        period.until,
        counted,
        population,
        act_id,
    )
    await conn.executemany(
        "insert into self_audit_result (audit_id, issuer_id, serial, linter, version, findings, refused)"
        " values ($1, $2, $3, $4, $5, $6, $7)",
        [(audit_id, r.issuer_id, r.serial, r.linter, r.version, r.findings, r.refused) for r in results],
    )
    return audit_id


async def last(conn: Connection) -> tuple[int, str | None]:
    """Until when all was in some audit's population, not after that audit itself, and what that one counted in.

    The one that reached farthest: whoever audits an old quarter again takes nothing back. 0: there was none.
    """
    row = await conn.fetchrow(
        "select least(until, at) as until, counted::text from self_audit order by 1 desc, id desc limit 1"
    )
    return (row["until"], row["counted"]) if row else (0, None)


async def all_audits(conn: Connection) -> Sequence[SelfAudit]:
    """Newest first."""
    rows = await conn.fetch(
        "select id, at, since, until, population,"
        " (select count(distinct (issuer_id, serial)) from self_audit_result where audit_id = id) as sample,"
        " (select count(distinct (issuer_id, serial)) from self_audit_result where audit_id = id and refused)"
        " as refused from self_audit order by id desc"
    )
    return [SelfAudit(**row) for row in rows]
