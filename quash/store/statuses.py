"""What OCSP must say of a certificate, as the database has it: the presigner's reading side.

Version 0 is good; the greatest version of a revocation counts (B25). A status says nothing of whether it may be signed:
`responder.presign.permit` decides that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from quash.store.database import Connection


class CertificateStatus(NamedTuple):
    """The status of one certificate. `reason` is None for good; `revoked_at` and `not_after` are Unix seconds.

    `proven`: it was once verified that the issuer signed a certificate with this serial; that stays true for ever. It
    is asked of good ones alone that no import vouches for, and false else. A tuple in the order of the query's columns,
    because millions are made, and handed from process to process.
    """

    issuer_id: int
    serial: bytes
    state: str
    bucket: int
    not_after: int
    version: int
    reason: int | None
    revoked_at: int
    proven: bool


class Published(NamedTuple):
    """A revocation as the world was told of it, in the order of a CRL entry's fields."""

    serial: bytes
    revoked_at: int
    reason: int


_KEY_COMPROMISE = 1
_SELECT = """
select c.issuer_id, c.serial, c.state, c.bucket, c.not_after, coalesce(r.version, 0)::integer as version, r.reason,
       coalesce(r.revoked_at, 0) as revoked_at,
       r.version is null and c.state <> 'imported' and (select true from proven_certificate p
           where p.issuer_id = c.issuer_id and p.serial = c.serial) is not null as proven{more}
from {source}
left join lateral (
    select version, reason, revoked_at from revocation r
    where r.issuer_id = c.issuer_id and r.serial = c.serial order by version desc limit 1
) r on true
"""
_KEYS = (
    "unnest($1::smallint[], $2::bytea[]) as k (issuer_id, serial)"
    " join certificate c on c.issuer_id = k.issuer_id and c.serial = k.serial"
)
_OF = _SELECT.format(source=_KEYS, more="") + "where c.not_after >= $3"
_WITH_DER = (
    _SELECT.format(source=_KEYS, more=", case when r.version is null and c.state <> 'imported' then c.der end as der")
    + "where c.not_after >= $3"
)
_IN_BUCKET = (
    _SELECT.format(source="certificate c", more="") + "where c.issuer_id = $1 and c.bucket = $2 and c.not_after >= $3"
)
_WIDTH = len(CertificateStatus._fields)


async def of(conn: Connection, keys: Collection[tuple[int, bytes]], now: int) -> list[CertificateStatus]:
    """The statuses of these certificates (issuer id, serial) that have not expired, in any order."""
    rows = await conn.fetch(_OF, [key[0] for key in keys], [key[1] for key in keys], now)
    return list(map(CertificateStatus._make, rows))


async def with_certificates(
    conn: Connection, keys: Collection[tuple[int, bytes]], now: int
) -> tuple[list[CertificateStatus], dict[tuple[int, bytes], bytes]]:
    """As `of`, and the DER of those that may need a proof and have one: good ones that no import vouches for."""
    rows = await conn.fetch(_WITH_DER, [key[0] for key in keys], [key[1] for key in keys], now)
    found = [CertificateStatus._make(row[:_WIDTH]) for row in rows]
    return found, {(row["issuer_id"], row["serial"]): row["der"] for row in rows if row["der"] is not None}


async def in_bucket(conn: Connection, issuer_id: int, bucket: int, now: int) -> list[CertificateStatus]:
    """The statuses of a bucket's certificates that have not expired, all of one snapshot.

    A certificate is unexpired through the second of its notAfter, and its revocation is answered as long (A41).
    """
    return list(map(CertificateStatus._make, await conn.fetch(_IN_BUCKET, issuer_id, bucket, now)))


async def certificates(conn: Connection, keys: Collection[tuple[int, bytes]]) -> dict[tuple[int, bytes], bytes]:
    """The DER of those of these certificates (issuer id, serial) that have one."""
    rows = await conn.fetch(
        "select c.issuer_id, c.serial, c.der from unnest($1::smallint[], $2::bytea[]) as k (issuer_id, serial)"
        " join certificate c on c.issuer_id = k.issuer_id and c.serial = k.serial where c.der is not null",
        [key[0] for key in keys],
        [key[1] for key in keys],
    )
    return {(row["issuer_id"], row["serial"]): row["der"] for row in rows}


LOST = (
    "select s.serial from unnest($2::bytea[], $3::smallint[], $4::bigint[]) as s (serial, reason, revoked_at)"
    " where not exists (select from revocation r where r.issuer_id = $1 and r.serial = s.serial"
    f"  and r.revoked_at <= s.revoked_at and (s.reason <> {_KEY_COMPROMISE} or r.reason = {_KEY_COMPROMISE}) offset 0)"
)
"""`offset 0`: each is looked up by its key. Before statistics tell of a mass revocation, and a takeover may come before
that, PostgreSQL would rather read all revocations for each slice."""


async def lost(conn: Connection, issuer_id: int, published: Sequence[Published]) -> list[bytes]:
    """Serials of those that the database does not hold revoked so: it has lost something that the world was told.

    What stands may be more than was published, keyCompromise or an earlier date (B25), and never less (C16, A26).
    """
    rows = await conn.fetch(
        LOST,
        issuer_id,
        [each.serial for each in published],
        [each.reason for each in published],
        [each.revoked_at for each in published],
    )
    return [row["serial"] for row in rows]
