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


async def population(conn: Connection, since: int, until: int) -> dict[int, int]:
    """How many certificates and lone precertificates (E8) each issuer made in a period; imports are not ours."""
    rows = await conn.fetch(
        "select issuer_id, count(*) from certificate where state in ('issued', 'precertificate')"
        " and created_at >= $1 and created_at < $2 group by issuer_id order by issuer_id",
        since,
        until,
    )
    return {row["issuer_id"]: row["count"] for row in rows}


async def sample(conn: Connection, issuer_id: int, since: int, until: int, count: int) -> Sequence[Sampled]:
    """`count` of an issuer's certificates of a period, drawn by PostgreSQL's strong random numbers."""
    rows = await conn.fetch(
        "select s.issuer_id, i.name as issuer, s.serial, s.der,"
        " array(select distinct linter from lint_result l where l.order_id = s.order_id order by linter) as gated_by"
        " from (select issuer_id, serial, der, order_id from certificate where issuer_id = $1"
        " and state in ('issued', 'precertificate') and created_at >= $2 and created_at < $3"
        " order by gen_random_uuid() limit $4) s join issuer i on i.id = s.issuer_id",
        issuer_id,
        since,
        until,
        count,
    )
    return [Sampled(row["issuer_id"], row["issuer"], row["serial"], row["der"], tuple(row["gated_by"])) for row in rows]


async def add(
    conn: Connection, *, at: int, since: int, until: int, population: int, act_id: int, results: Sequence[Result]
) -> int:
    """Stores an audit with its results and returns its id."""
    audit_id: int = await conn.fetchval(
        "insert into self_audit (at, since, until, population, act_id) values ($1, $2, $3, $4, $5) returning id",
        at,
        since,
        until,
        population,
        act_id,
    )
    await conn.executemany(
        "insert into self_audit_result (audit_id, issuer_id, serial, linter, version, findings, refused)"
        " values ($1, $2, $3, $4, $5, $6, $7)",
        [(audit_id, r.issuer_id, r.serial, r.linter, r.version, r.findings, r.refused) for r in results],
    )
    return audit_id


async def last_until(conn: Connection) -> int:
    """Where the last audit's period ended, not after the audit itself; 0: there was none."""
    return await conn.fetchval("select least(until, at) from self_audit order by id desc limit 1") or 0


async def oldest_unsigned(conn: Connection) -> int | None:
    """When the oldest reservation was made that its order may yet turn into a certificate; None: there is none."""
    at: int | None = await conn.fetchval(
        "select min(c.created_at) from certificate_order o join certificate c using (issuer_id, serial)"
        " where o.state in ('pending', 'ready') and c.state = 'reserved'"
    )
    return at


async def all_audits(conn: Connection) -> Sequence[SelfAudit]:
    """Newest first."""
    rows = await conn.fetch(
        "select id, at, since, until, population,"
        " (select count(distinct (issuer_id, serial)) from self_audit_result where audit_id = id) as sample,"
        " (select count(distinct (issuer_id, serial)) from self_audit_result where audit_id = id and refused)"
        " as refused from self_audit order by id desc"
    )
    return [SelfAudit(**row) for row in rows]
