"""Bulk rows of an existing CA: certificates and revocations, set-based, in batches that commit on their own.

Each batch is idempotent: what stands already stays, nothing is ever un-revoked, and a certificate never comes without
its revocation, since both are of one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quash.pki.reasons import Reason
from quash.store.database import Connection

_KEY_COMPROMISE = int(Reason.keyCompromise)


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One certificate; times in Unix seconds, `reason` None: not revoked; `der` and what it tells may be unknown."""

    serial: bytes
    not_after: int
    bucket: int
    reason: int | None = None
    revoked_at: int | None = None
    der: bytes | None = None
    spki_sha256: bytes | None = None
    ski: bytes | None = None
    not_before: int | None = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Serials that one batch added, and those that it revoked."""

    certificates: list[bytes]
    revocations: list[bytes]


_TEMPORARY = """
create temporary table if not exists import_row (
    serial bytea, not_after bigint, bucket integer, reason smallint, revoked_at bigint,
    der bytea, spki_sha256 bytea, ski bytea, not_before bigint
) on commit delete rows
"""
_CERTIFICATES = """
insert into certificate
    (issuer_id, serial, state, profile, der, spki_sha256, ski, not_before, not_after, shard, bucket, created_at)
select $1, serial, 'imported', 'imported', der, spki_sha256, ski, not_before, not_after, null, bucket, $2
from import_row
on conflict (issuer_id, serial) do update
    set der = excluded.der, spki_sha256 = excluded.spki_sha256, ski = excluded.ski, not_before = excluded.not_before
    where certificate.state = 'imported' and certificate.der is null and excluded.der is not null
returning serial, (xmax = 0) as added
"""
# As quash.pki.reasons.decide: a first revocation, or one that keyCompromise replaces or moves back (B25).
_REVOCATIONS = f"""
insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, shard, act_id)
select $1, i.serial, coalesce(r.version, 0) + 1, i.reason, least(i.revoked_at, r.revoked_at), $2, c.shard, $3
from import_row i
join certificate c on c.issuer_id = $1 and c.serial = i.serial
left join lateral (
    select version, reason, revoked_at from revocation
    where issuer_id = $1 and serial = i.serial order by version desc limit 1
) r on true
where i.reason is not null
  and (r.version is null or (
    i.reason = {_KEY_COMPROMISE} and (r.reason <> {_KEY_COMPROMISE} or i.revoked_at < r.revoked_at)))
returning serial
"""


async def add_batch(
    conn: Connection, issuer_id: int, rows: Sequence[ImportRow], *, act_id: int, now: int
) -> BatchResult:
    """Adds what is new among `rows`, in the caller's transaction."""
    await conn.execute(_TEMPORARY)
    columns = ("serial", "not_after", "bucket", "reason", "revoked_at", "der", "spki_sha256", "ski", "not_before")
    records = [tuple(getattr(row, column) for column in columns) for row in rows]
    await conn.copy_records_to_table("import_row", records=records, columns=columns)
    inserted = await conn.fetch(_CERTIFICATES, issuer_id, now)
    revoked = await conn.fetch(_REVOCATIONS, issuer_id, now, act_id)
    return BatchResult([row["serial"] for row in inserted if row["added"]], [row["serial"] for row in revoked])


async def without_key(conn: Connection, issuer_id: int, now: int) -> int:
    """How many unexpired certificates of an issuer have no known key: no sibling search can find them."""
    value = await conn.fetchval(
        "select count(*) from certificate where issuer_id = $1 and spki_sha256 is null and not_after >= $2",
        issuer_id,
        now,
    )
    return int(value)


async def compromised_keys(conn: Connection, issuer_id: int) -> list[tuple[bytes, int]]:
    """Keys of this issuer's certificates revoked for keyCompromise and not blocked yet, with the earliest date."""
    rows = await conn.fetch(
        "select c.spki_sha256, min(r.revoked_at) from certificate c join revocation r using (issuer_id, serial)"
        " where c.issuer_id = $1 and r.reason = $2 and c.spki_sha256 is not null"
        " and not exists (select from blocked_key b where b.spki_sha256 = c.spki_sha256)"
        " group by c.spki_sha256 order by c.spki_sha256",
        issuer_id,
        _KEY_COMPROMISE,
    )
    return [(row[0], row[1]) for row in rows]
