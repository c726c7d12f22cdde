"""The set of a mass revocation: how it is made, fixed, read as text and, by batches, locked (C17).

Its order is (issuer id, rank, serial): shard by shard and, within a shard, bucket by bucket, so that a bucket is
signed, and a CRL built, once for many.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from quash.store.certificate_search import Wanted, conditions
from quash.store.database import Connection
from quash.store.locks import SPKI_LOCK

_RANK = "(coalesce(c.shard, -1) + 1)::bigint * 65536 + c.bucket"
_BUCKETS = 65536
_INSERT = "insert into mass_job_certificate (job_id, issuer_id, rank, serial, shard, not_after, lock_key)"
# What never changes of a certificate `c`; the lock of its key only where that is known: an import may tell it later.
_KEPT = f"{_RANK}, c.serial, c.shard, c.not_after, case when c.spki_sha256 is not null then {SPKI_LOCK} end"
_PAGE = 5000
# Said as a range of the whole key: while the table is new, the planner takes a job for small, and with an equality it
# would fetch and sort all that is left of it for each part.
_PART = (
    "select issuer_id, rank, serial, shard, not_after, lock_key from mass_job_certificate"
    " where (job_id, issuer_id, rank, serial) > ($1::bigint, $2::smallint, $3::bigint, $4::bytea) and job_id <= $1"
    " order by job_id, issuer_id, rank, serial limit $5"
)

Key = tuple[int, bytes]
"""(issuer id, serial)."""
Cursor = tuple[int, int, bytes]
"""(issuer id, rank, serial) of the last certificate that was dealt with."""
START: Cursor = (-1, -1, b"")


class Member(NamedTuple):
    """A certificate of a set: what never changes of it."""

    issuer_id: int
    rank: int
    serial: bytes
    shard: int | None
    not_after: int

    @property
    def bucket(self) -> int:
        return self.rank % _BUCKETS

    @property
    def place(self) -> tuple[int, int]:
        """Issuer id and rank: the bucket of a set."""
        return self[:2]

    @property
    def cursor(self) -> Cursor:
        return self.issuer_id, self.rank, self.serial

    @property
    def key(self) -> Key:
        return self.issuer_id, self.serial


async def add_listed(
    conn: Connection, job_id: int, issuer_id: int | None, serials: Sequence[bytes], unexpired_at: int
) -> Mapping[bytes, int]:
    """Adds the unexpired certificates with these serials; returns by serial how many issuers gave it out.

    A serial that several gave out is not added.
    """
    rows = await conn.fetch(
        "with found as (select s.serial, count(c.serial) as issuers, min(c.issuer_id) as issuer_id"
        " from (select distinct unnest($3::bytea[]) as serial) s"
        " left join certificate c on c.serial = s.serial and ($2::smallint is null or c.issuer_id = $2) group by 1),"
        f" added as ({_INSERT} select $1, c.issuer_id, {_KEPT} from found f"
        " join certificate c on c.issuer_id = f.issuer_id and c.serial = f.serial"
        " where f.issuers = 1 and c.not_after >= $4 on conflict do nothing)"
        " select serial, issuers from found",
        job_id,
        issuer_id,
        list(serials),
        unexpired_at,
    )
    return {row["serial"]: row["issuers"] for row in rows}


async def add_of_key(conn: Connection, job_id: int, spki_sha256: bytes, unexpired_at: int) -> None:
    """Adds every unexpired certificate with this public key."""
    await _add_pages(conn, job_id, "certificate", "spki_sha256 = $6 and not_after >= $2", unexpired_at, spki_sha256)


async def add_of_case(conn: Connection, job_id: int, case_id: int, unexpired_at: int) -> None:
    """Adds the unexpired certificates of a case."""
    await _add_pages(conn, job_id, "case_certificate", "case_id = $6", unexpired_at, case_id)


async def add_of_filter(conn: Connection, job_id: int, wanted: Wanted, unexpired_at: int) -> None:
    """Adds the unexpired certificates that a search would find, but for our own OCSP signers."""
    where, arguments = conditions(wanted, 6)
    await _add_pages(
        conn, job_id, "certificate", f"not_after >= $2 and profile <> 'ocsp-signer'{where}", unexpired_at, *arguments
    )


async def _add_pages(conn: Connection, job_id: int, table: str, where: str, unexpired_at: int, *arguments: Any) -> None:
    """Adds what a table with issuer_id and serial names, some thousands a statement. `arguments`: from $6."""
    last: Key | None = (-1, b"")
    while last is not None:
        row = await conn.fetchrow(
            f"with page as (select issuer_id, serial from {table} c where {where}"
            "  and (issuer_id, serial) > ($3::smallint, $4::bytea) order by issuer_id, serial limit $5),"
            f" added as ({_INSERT} select $1, c.issuer_id, {_KEPT} from page p join certificate c"
            "  on c.issuer_id = p.issuer_id and c.serial = p.serial"
            "  where c.not_after >= $2 on conflict do nothing)"
            " select issuer_id, serial from page order by issuer_id desc, serial desc limit 1",
            job_id,
            unexpired_at,
            *last,
            _PAGE,
            *arguments,
        )
        last = None if row is None else (row["issuer_id"], row["serial"])


async def add_of_period(
    conn: Connection, job_id: int, issuer_id: int, bucket: int, *, after: int, before: int, unexpired_at: int
) -> None:
    """Adds what an issuer issued in after <= notBefore < before, of one bucket. Its own OCSP signers are not meant."""
    await conn.execute(
        f"{_INSERT} select $1, c.issuer_id, {_KEPT} from certificate c"
        " where c.issuer_id = $2 and c.bucket = $3 and coalesce(c.not_before, c.created_at) >= $4"
        " and coalesce(c.not_before, c.created_at) < $5 and c.not_after >= $6 and c.profile <> 'ocsp-signer'"
        " order by c.serial on conflict do nothing",
        job_id,
        issuer_id,
        bucket,
        after,
        before,
        unexpired_at,
    )


async def add_siblings(conn: Connection, job_id: int, unexpired_at: int) -> None:
    """Adds every other unexpired certificate with a key that a certificate of the set has (C8)."""
    after = START
    while True:
        last = await conn.fetchrow(
            f"with page as ({_PART}),"
            f" added as ({_INSERT} select $1, c.issuer_id, {_KEPT} from page p"
            "  join certificate own on own.issuer_id = p.issuer_id and own.serial = p.serial"
            "  join certificate c on c.spki_sha256 = own.spki_sha256 and c.not_after >= $6"
            "  on conflict do nothing)"
            " select issuer_id, rank, serial from page order by issuer_id desc, rank desc, serial desc limit 1",
            job_id,
            *after,
            _PAGE,
            unexpired_at,
        )
        if last is None:
            return
        after = tuple(last)


async def count(conn: Connection, job_id: int) -> int:
    return int(await conn.fetchval("select count(*) from mass_job_certificate where job_id = $1", job_id))


async def of_set(conn: Connection, job_id: int, keys: Collection[Key]) -> set[Key]:
    """Those of `keys` that the set has; reads the whole set, so once."""
    rows = await conn.fetch(
        "select m.issuer_id, m.serial from mass_job_certificate m join unnest($2::smallint[], $3::bytea[]) k (i, s)"
        " on k.i = m.issuer_id and k.s = m.serial where m.job_id = $1",
        job_id,
        [issuer_id for issuer_id, _ in keys],
        [serial for _, serial in keys],
    )
    return {(row["issuer_id"], row["serial"]) for row in rows}


async def by_bucket(conn: Connection, job_id: int) -> list[tuple[int, int, int]]:
    """(issuer id, rank, certificates of the set)."""
    rows = await conn.fetch(
        "select issuer_id, rank, count(*) from mass_job_certificate where job_id = $1 group by 1, 2 order by 1, 2",
        job_id,
    )
    return [tuple(row) for row in rows]


async def in_bucket(conn: Connection, issuer_id: int, rank: int, unexpired_at: int, most: int) -> int:
    """How many unexpired certificates the bucket has at all; counts no further than `most`."""
    found = await conn.fetchval(
        "select count(*) from (select from certificate where issuer_id = $1 and bucket = $2 and not_after >= $3"
        " limit $4) c",
        issuer_id,
        rank % _BUCKETS,
        unexpired_at,
        most,
    )
    return int(found)


async def by_scope(conn: Connection, job_id: int) -> list[tuple[str, str | None, int, int, int, int]]:
    """(issuer, CRL scope, certificates, of those revoked already, octets and entries of its published CRL or 0)."""
    rows = await conn.fetch(
        "select i.name, s.scope, n.certificates, n.revoked, coalesce(l.size, 0), coalesce(l.entries, 0) from"
        " (select c.issuer_id, c.shard, count(*) as certificates, count(r.serial) as revoked"
        "   from mass_job_certificate m join certificate c on c.issuer_id = m.issuer_id and c.serial = m.serial"
        "   left join revocation r on r.issuer_id = m.issuer_id and r.serial = m.serial and r.version = 1"
        "   where m.job_id = $1 group by 1, 2) n join issuer i on i.id = n.issuer_id"
        " left join crl_scope s on s.issuer_id = n.issuer_id and s.shard is not distinct from n.shard"
        " left join lateral (select size, entries from crl where crl.issuer_id = s.issuer_id and crl.scope = s.scope"
        "   and published_at is not null order by number desc limit 1) l on true order by i.name, n.shard nulls first",
        job_id,
    )
    return [tuple(row) for row in rows]


# basicConstraints with cA TRUE as DER has it: critical or not, with a path length or not.
_CA = [
    bytes.fromhex(f"0603551d13{critical}{value}")
    for critical in ("0101ff", "")
    for value in ("040530030101ff", "040830060101ff0201")
]


async def issuers_of_cas(conn: Connection, job_id: int) -> list[str]:
    """Names of the issuers of CA certificates in the set, in order.

    Who orders a certificate gets none of a CA, so only the others are looked at: what a root issues but for OCSP
    signers (G4), and what says so itself.
    """
    rows = await conn.fetch(
        "select distinct i.name from mass_job_certificate m"
        " join certificate c on c.issuer_id = m.issuer_id and c.serial = m.serial join issuer i on i.id = c.issuer_id"
        " where m.job_id = $1 and c.order_id is null and c.profile <> 'ocsp-signer'"
        "   and (i.kind = 'root' or exists (select from unnest($2::bytea[]) e where position(e in c.der) > 0))"
        " order by 1",
        job_id,
        _CA,
    )
    return [row["name"] for row in rows]


async def lines(conn: Connection, job_id: int, after: Cursor, limit: int) -> tuple[str, Cursor | None]:
    """A piece of the set as text, a line `issuer serial` each, in its order; and where to go on, None: that was all."""
    text = await conn.fetchval(
        "select string_agg(i.name || ' ' || ltrim(encode(m.serial, 'hex'), '0') || E'\\n', ''"
        f"   order by m.issuer_id, m.rank, m.serial) from ({_PART}) m join issuer i on i.id = m.issuer_id",
        job_id,
        *after,
        limit,
    )
    last = await conn.fetchrow(f"{_PART} offset $5 - 1", job_id, *after, limit)
    return text or "", (last["issuer_id"], last["rank"], last["serial"]) if last else None


async def lock_members(conn: Connection, job_id: int, after: Cursor, limit: int) -> list[Member]:
    """The next certificates of a set, in its order, under `spki_lock` of their keys until the transaction ends.

    The locks are always taken in the same order; each is an entry of the server's lock table, which has
    max_connections * max_locks_per_transaction of them. What is read beside them never changes, so the look may come
    before the lock. Certificates are looked at where the set keeps no lock of theirs (0067), `offset 0`: each by the
    primary key, whatever the planner believes of the tables' sizes.
    """
    rows = await conn.fetch(
        "select issuer_id, rank, serial, shard, not_after, pg_advisory_xact_lock(key)::text from"
        " (select m.issuer_id, m.rank, m.serial, coalesce(m.shard, c.shard) as shard,"
        f"   coalesce(m.not_after, c.not_after) as not_after, coalesce(m.lock_key, c.lock_key) as key from ({_PART}) m"
        f"  left join lateral (select c.shard, c.not_after, {SPKI_LOCK} as lock_key from certificate c"
        "   where m.lock_key is null and c.issuer_id = m.issuer_id and c.serial = m.serial offset 0) c on true"
        "  order by key) k",
        job_id,
        *after,
        limit,
    )
    return sorted([Member._make(row[:-1]) for row in rows])
