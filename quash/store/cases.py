"""Cases: reasons to revoke with their certificates, events and sightings. Append-only: what is met is derived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class Case:
    """Times are Unix seconds. `total` certificates, of which `revoked` are and `seen` were seen revoked outside.

    `last_seen_at`: when the last one was seen. `reported_at`: of the preliminary report.
    """

    id: int
    trigger: str
    received_at: int
    opened_at: int
    reporter: str
    summary: str
    total: int
    revoked: int
    seen: int
    last_seen_at: int | None
    reported_at: int | None


@dataclass(frozen=True, slots=True)
class Member:
    """A certificate of a case as it stands: `revoked_at` and `reason` are None while it is not revoked."""

    issuer_id: int
    serial: bytes
    not_after: int
    der: bytes | None
    reason: int | None
    revoked_at: int | None
    recorded_at: int | None
    seen_at: int | None


_CASE = """
select c.id, c.trigger, c.received_at, c.opened_at, c.reporter, c.summary,
    (select count(*) from case_certificate m where m.case_id = c.id) as total,
    (select count(*) from case_certificate m where m.case_id = c.id and exists
        (select from revocation r where r.issuer_id = m.issuer_id and r.serial = m.serial)) as revoked,
    s.seen, s.last_seen_at,
    (select min(e.at) from case_event e where e.case_id = c.id and e.kind = 'preliminary-report') as reported_at
from revocation_case c
cross join lateral (select count(*) as seen, max(seen_at) as last_seen_at from case_sighting where case_id = c.id) s
"""
_MEMBER = """
select m.issuer_id, m.serial, c.not_after, c.der, r.reason, r.revoked_at, r.recorded_at, s.seen_at
from case_certificate m join certificate c using (issuer_id, serial)
left join lateral (select reason, revoked_at, recorded_at from revocation r
    where r.issuer_id = m.issuer_id and r.serial = m.serial order by version desc limit 1) r on true
left join case_sighting s using (case_id, issuer_id, serial)
"""


async def add(
    conn: Connection, *, trigger: str, received_at: int, opened_at: int, reporter: str, summary: str, act_id: int
) -> int:
    """Opens a case and returns its number."""
    number: int = await conn.fetchval(
        "insert into revocation_case (trigger, received_at, opened_at, reporter, summary, act_id)"
        " values ($1, $2, $3, $4, $5, $6) returning id",
        trigger,
        received_at,
        opened_at,
        reporter,
        summary,
        act_id,
    )
    return number


async def add_certificates(conn: Connection, case_id: int, keys: Sequence[tuple[int, bytes]], act_id: int) -> int:
    """Adds certificates (issuer id, serial); returns how many were not in the case."""
    added = await conn.fetchval(
        "with added as (insert into case_certificate (case_id, issuer_id, serial, act_id)"
        " select $1, i, s, $4 from unnest($2::smallint[], $3::bytea[]) as t (i, s) on conflict do nothing returning 1)"
        " select count(*) from added",
        case_id,
        [issuer_id for issuer_id, _ in keys],
        [serial for _, serial in keys],
        act_id,
    )
    return int(added)


async def add_event(
    conn: Connection, case_id: int, *, at: int, kind: str, text: str, sha256: bytes | None, act_id: int
) -> None:
    await conn.execute(
        "insert into case_event (case_id, at, kind, text, sha256, act_id) values ($1, $2, $3, $4, $5, $6)",
        case_id,
        at,
        kind,
        text,
        sha256,
        act_id,
    )


async def get(conn: Connection, case_id: int) -> Case | None:
    row = await conn.fetchrow(f"{_CASE} where c.id = $1", case_id)
    return Case(**row) if row else None


async def everything(conn: Connection) -> list[Case]:
    """All cases, newest first."""
    return [Case(**row) for row in await conn.fetch(f"{_CASE} order by c.id desc")]


async def members(conn: Connection, case_id: int, after: tuple[int, bytes], limit: int) -> list[Member]:
    """Certificates of a case behind `after`, by (issuer_id, serial)."""
    rows = await conn.fetch(
        f"{_MEMBER} where m.case_id = $1 and (m.issuer_id, m.serial) > ($2::smallint, $3::bytea)"
        " order by m.issuer_id, m.serial limit $4",
        case_id,
        *after,
        limit,
    )
    return [Member(**row) for row in rows]


async def unseen(conn: Connection, now: int, limit: int) -> list[tuple[int, Member]]:
    """(case, certificate) of those that are revoked or expired and were not yet seen so outside, oldest case first."""
    rows = await conn.fetch(
        f"{_MEMBER.replace('select ', 'select m.case_id, ', 1)} where s.seen_at is null"
        " and (r.reason is not null or c.not_after < $1) order by m.case_id, m.issuer_id, m.serial limit $2",
        now,
        limit,
    )
    found = []
    for row in rows:
        fields = dict(row)
        found.append((fields.pop("case_id"), Member(**fields)))
    return found


async def add_sighting(conn: Connection, case_id: int, issuer_id: int, serial: bytes, seen_at: int) -> None:
    """The first sighting counts."""
    await conn.execute(
        "insert into case_sighting (case_id, issuer_id, serial, seen_at) values ($1, $2, $3, $4)"
        " on conflict do nothing",
        case_id,
        issuer_id,
        serial,
        seen_at,
    )


async def timeline(conn: Connection, case_id: int) -> list[tuple[int, str, str, str]]:
    """(at, actor, action, what) of all acts of a case, oldest first."""
    rows = await conn.fetch(
        "select a.at, a.actor, a.action, coalesce(e.text, c.summary, '') as what from act a"
        " left join case_event e on e.act_id = a.id left join revocation_case c on c.act_id = a.id"
        " where a.id in (select act_id from revocation_case where id = $1"
        " union select act_id from case_event where case_id = $1 union select act_id from case_certificate"
        " where case_id = $1) order by a.id",
        case_id,
    )
    return [(row["at"], row["actor"], row["action"], row["what"]) for row in rows]
