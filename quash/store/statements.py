"""What the database says of certificates, in the form in which relying parties should hear the same.

Everything that is published about a certificate, answers to both CertID hashes and an entry on one CRL, comes from the
row that stands here: whoever compares the two sides starts from these (A26, B16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quash.pki import der
from quash.store.database import Connection

_OID_CRL_DISTRIBUTION_POINTS = der.oid("2.5.29.31")


@dataclass(frozen=True, slots=True)
class Statement:
    """One certificate; times are Unix seconds. `reason` None: it is not revoked, and has no dates of a revocation.

    `since`: when the newest thing that is said here was recorded. `answered`: whether OCSP answers for it: a serial
    that is only reserved has no answer before it is signed. `scope` None: no CRL shows its shard, else `path` is that
    CRL's name. `misnamed`: its CRLDP names no URL of that CRL.
    """

    issuer_id: int
    issuer: str
    serial: bytes
    not_after: int
    reason: int | None
    revoked_at: int | None
    since: int
    answered: bool
    scope: str | None
    path: str | None
    misnamed: bool


_SELECT = """
select c.issuer_id, i.name as issuer, c.serial, c.not_after, r.reason, r.revoked_at,
       coalesce(r.recorded_at, c.created_at) as since, (c.state <> 'reserved' or r.version is not null) as answered,
       s.scope, s.path, c.state <> 'imported' and s.scope is not null and position($1::bytea in c.der) > 0
       and not exists (select from unnest(array[s.url] || s.former_urls) u (url)
                       where position(convert_to(u.url, 'UTF8') in c.der) > 0) as misnamed
from ({chosen}) c join issuer i on i.id = c.issuer_id
left join lateral (select r.reason, r.revoked_at, r.recorded_at, r.version from revocation r
                   where r.issuer_id = c.issuer_id and r.serial = c.serial order by r.version desc limit 1) r on true
left join crl_scope s on s.issuer_id = c.issuer_id and s.scope = coalesce(c.shard::text, 'full')
"""
_PAGE = _SELECT.format(chosen="select * from certificate where issuer_id = $2 and serial > $3 order by serial limit $4")
_REVOKED_PAGE = _SELECT.format(
    chosen="select v.* from (select issuer_id, serial from revocation where issuer_id = $2 and serial > $3"
    " and version = 1 order by serial limit $4) o join certificate v using (issuer_id, serial)"
)
_NAMED = _SELECT.format(
    chosen="select * from certificate where (issuer_id, serial) in (select * from unnest($2::smallint[], $3::bytea[]))"
)
# Whole pages of the table are drawn, so that a large one is not read through; `share` is about twice what is wanted.
_DRAWN = _SELECT.format(
    chosen="select * from (select * from certificate tablesample system ($2) where not_after > $3) t"
    " order by random() limit $4"
)
_DRAWN_REVOKED = _SELECT.format(
    chosen="select v.* from (select issuer_id, serial from revocation tablesample system ($2) where not_after > $3"
    " order by random() limit $4) o join certificate v using (issuer_id, serial)"
)
_NEWEST_REVOKED = _SELECT.format(
    chosen="select v.* from (select issuer_id, serial from revocation order by tx desc, id desc limit $2) o"
    " join certificate v using (issuer_id, serial)"
)


async def page(conn: Connection, issuer_id: int, after: bytes, limit: int, *, revoked: bool) -> list[Statement]:
    """The certificates of an issuer after a serial, in the order of their serials; `revoked`: those alone."""
    found = await _fetch(conn, _REVOKED_PAGE if revoked else _PAGE, issuer_id, after, limit)
    return sorted(found, key=lambda each: each.serial)


async def of(conn: Connection, keys: Sequence[tuple[int, bytes]]) -> list[Statement]:
    """Of the certificates (issuer id, serial), in any order; none for those that we do not know."""
    return await _fetch(conn, _NAMED, [issuer_id for issuer_id, _ in keys], [serial for _, serial in keys])


async def sample(conn: Connection, now: int, count: int) -> list[Statement]:
    """About three times `count`: unexpired certificates, unexpired revoked ones, and the newest revocations."""
    found = await _fetch(conn, _NEWEST_REVOKED, count)
    for sql, table in ((_DRAWN, "certificate"), (_DRAWN_REVOKED, "revocation")):
        rows = await conn.fetchval("select greatest(reltuples, 0) from pg_class where oid = $1::regclass", table)
        share = min(100.0, 200.0 * count / rows) if rows else 100.0
        found.extend(await _fetch(conn, sql, share, now, count))
    return list({(each.issuer_id, each.serial): each for each in found}.values())


async def _fetch(conn: Connection, sql: str, *arguments: Any) -> list[Statement]:
    rows = await conn.fetch(sql, _OID_CRL_DISTRIBUTION_POINTS, *arguments)
    return [Statement(**{**row, "misnamed": bool(row["misnamed"])}) for row in rows]
