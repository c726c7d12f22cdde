"""Cases: reasons to revoke with their certificates, events and sightings. Append-only: what is met is derived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from quash.store.database import Connection

OPEN: Final = "case.open"
ADD: Final = "case.add-certificates"
"""The acts of what is done here."""


@dataclass(frozen=True, slots=True)
class Case:
    """Times are Unix seconds. `total` certificates, of which `revoked` are and `seen` were seen revoked outside.

    `first_seen_at`, `last_seen_at`: of those. `reported_at`: of the preliminary report. `picked_up_at`: when a person
    first dealt with it. `closed_at`: since when it is closed without being met. `trigger`: as judged last.
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
    picked_up_at: int | None = None
    closed_at: int | None = None
    first_seen_at: int | None = None


@dataclass(frozen=True, slots=True)
class File:
    """An evidence file of a case; `at` Unix seconds, `size` octets."""

    sha256: bytes
    name: str
    at: int
    size: int


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
select c.id, coalesce((select e.text from case_event e where e.case_id = c.id and e.kind = 'judged' order by e.id desc
    limit 1), c.trigger) as trigger, c.received_at, c.opened_at, c.reporter, c.summary,
    (select count(*) from case_certificate m where m.case_id = c.id) as total,
    (select count(*) from case_certificate m where m.case_id = c.id and exists
        (select from revocation r where r.issuer_id = m.issuer_id and r.serial = m.serial)) as revoked,
    s.seen, s.last_seen_at, s.first_seen_at,
    (select min(e.at) from case_event e where e.case_id = c.id and e.kind = 'preliminary-report') as reported_at,
    (select min(a.at) from act a where a.actor like 'operator:%' and (a.id = c.act_id or a.id in
        (select e.act_id from case_event e where e.case_id = c.id))) as picked_up_at,
    (select case when e.kind = 'closed' then e.at end from case_event e where e.case_id = c.id
        and e.kind in ('closed', 'reopened') order by e.id desc limit 1) as closed_at
from revocation_case c
cross join lateral (select count(*) as seen, max(seen_at) as last_seen_at,
    min(seen_at) as first_seen_at from case_sighting where case_id = c.id) s
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


async def page(conn: Connection, before: int | None, limit: int) -> list[Case]:
    """Cases below a number, newest first."""
    rows = await conn.fetch(f"{_CASE} where $1::bigint is null or c.id < $1 order by c.id desc limit $2", before, limit)
    return [Case(**row) for row in rows]


async def lock(conn: Connection, case_id: int) -> None:
    """Until the transaction ends, for who compares a case with what it was shown before changing it."""
    await conn.execute("select pg_advisory_xact_lock(hashtextextended('quash case', $1))", case_id)


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


async def unfilled(conn: Connection, actor: str) -> list[tuple[int, bytes]]:
    """(case, key) of cases without certificates that this actor opened for a key."""
    rows = await conn.fetch(
        "select c.id, a.subject->>'spki_sha256' as key from revocation_case c join act a on a.id = c.act_id"
        " where a.actor = $1 and a.subject ? 'spki_sha256'"
        " and not exists (select from case_certificate m where m.case_id = c.id)",
        actor,
    )
    return [(row["id"], bytes.fromhex(row["key"])) for row in rows]


async def add_file(conn: Connection, case_id: int, file: File, body: bytes, act_id: int) -> bool:
    """False: the case has these octets already."""
    new = await conn.fetchval(
        "insert into case_file (case_id, sha256, name, at, body, act_id) values ($1, $2, $3, $4, $5, $6)"
        " on conflict do nothing returning true",
        case_id,
        file.sha256,
        file.name,
        file.at,
        body,
        act_id,
    )
    return bool(new)


async def files(conn: Connection, case_id: int) -> list[File]:
    """The evidence files of a case, oldest first."""
    rows = await conn.fetch(
        "select sha256, name, at, octet_length(body) as size from case_file where case_id = $1 order by act_id", case_id
    )
    return [File(**row) for row in rows]


async def file(conn: Connection, case_id: int, sha256: bytes) -> tuple[str, bytes] | None:
    """Name and octets of a file."""
    row = await conn.fetchrow("select name, body from case_file where case_id = $1 and sha256 = $2", case_id, sha256)
    return (row["name"], row["body"]) if row else None


async def not_picked_up(conn: Connection) -> list[Case]:
    """Cases that no person opened, and with which none has dealt."""
    rows = await conn.fetch(
        f"{_CASE} where not exists (select from act a where a.id = c.act_id and a.actor like 'operator:%')"
        " and not exists (select from case_event e join act a on a.id = e.act_id"
        " where e.case_id = c.id and a.actor like 'operator:%') order by c.id"
    )
    return [Case(**row) for row in rows]


async def accounts(conn: Connection, case_id: int) -> list[tuple[str, int]]:
    """Who ordered certificates of a case, and how many of them."""
    rows = await conn.fetch(
        "select o.operator, count(*) as count from case_certificate m join certificate c using (issuer_id, serial)"
        " join certificate_order o on o.id = c.order_id where m.case_id = $1 group by 1 order by 1",
        case_id,
    )
    return [(row["operator"], row["count"]) for row in rows]


async def holding(conn: Connection, issuer_id: int, serial: bytes) -> list[int]:
    """The numbers of the cases that have this certificate."""
    rows = await conn.fetch(
        "select case_id from case_certificate where issuer_id = $1 and serial = $2 order by case_id", issuer_id, serial
    )
    return [row["case_id"] for row in rows]


async def open_grounds(
    conn: Connection, keys: Sequence[tuple[int, bytes]], *, alleged: bool
) -> dict[tuple[int, bytes], dict[str, int]]:
    """Of certificates (issuer id, serial), the triggers, as judged last, of their cases that are not closed.

    With the number of the newest such case. `alleged`: also of those that a report caused and no person has judged.
    """
    rows = await conn.fetch(
        "select c.id as case_id, m.issuer_id, m.serial, coalesce(j.trigger, c.trigger) as trigger"
        " from unnest($1::smallint[], $2::bytea[]) as k (issuer_id, serial)"
        " join case_certificate m using (issuer_id, serial) join revocation_case c on c.id = m.case_id"
        " join act a on a.id = c.act_id left join lateral (select e.text as trigger from case_event e"
        "  where e.case_id = c.id and e.kind = 'judged' order by e.id desc limit 1) j on true"
        " where ($3 or a.actor <> 'intake' or j.trigger is not null)"
        " and coalesce((select e.kind from case_event e where e.case_id = c.id and e.kind in ('closed', 'reopened')"
        "  order by e.id desc limit 1), '') <> 'closed' order by c.id",
        [issuer_id for issuer_id, _ in keys],
        [serial for _, serial in keys],
        alleged,
    )
    found: dict[tuple[int, bytes], dict[str, int]] = {}
    for row in rows:
        found.setdefault((row["issuer_id"], row["serial"]), {})[row["trigger"]] = row["case_id"]
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
