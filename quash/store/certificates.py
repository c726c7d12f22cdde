"""Certificates: every serial an issuer ever committed to, in whatever state (A8: a committed serial counts as issued).

A row is made `reserved` before any key signs (flow 1, T1), and gets its DER once (T3). Rows are never deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from quash.errors import Kind, QuashError
from quash.store.database import Connection

_OCTETS = 8
_LOWEST, _ALL = 1 << 56, 127 << 56  # of the first octets of what `quash.pki.serials.new_serial` makes


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate of one issuer; times are Unix seconds, `serial` the octets of the DER INTEGER.

    `der` is that of the precertificate in this state, and None while reserved and for imports without a file;
    `spki_sha256` and `not_before` are None only for imports.
    """

    issuer_id: int
    serial: bytes
    state: str
    profile: str
    der: bytes | None
    spki_sha256: bytes | None
    ski: bytes | None
    not_before: int | None
    not_after: int
    shard: int | None
    bucket: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """The only bytes (`tbs`) that may be signed for this serial now: from T1 on, from T2 on None until SCTs are there.

    `tbs` is None once the certificate is signed.
    """

    certificate: Certificate
    tbs: bytes | None
    order_id: UUID | None
    created_at: int


COLUMNS = "issuer_id, serial, state, profile, der, spki_sha256, ski, not_before, not_after, shard, bucket"


def bucket_of(serial: bytes, bucket_count: int) -> int:
    """The refresh bucket of a serial that `quash.pki.serials.new_serial` made: a range of them.

    What is signed, revoked or put into a cache together then lies together in the cache and in the database's indexes:
    a refresh writes each of their pages once, not once for each certificate. Asked at issuance only, as `shard_of`.
    """
    place = int.from_bytes(serial[:_OCTETS].ljust(_OCTETS, b"\0"), "big") - _LOWEST
    return min(max(place, 0) * bucket_count // _ALL, bucket_count - 1)


def bucket_of_foreign(serial: bytes, bucket_count: int) -> int:
    """The refresh bucket of a serial that anybody made: its last octets spread evenly, random or counted."""
    return int.from_bytes(serial[-_OCTETS:], "big") % bucket_count


def shard_of(serial: bytes, shard_count: int) -> int | None:
    """The CRL shard (0 to shard_count - 1) that a new certificate names in its CRLDP; None: the full CRL.

    Asked at issuance only: later the column counts, because a certificate's CRLDP never changes (B16).
    """
    return bucket_of(serial, shard_count) if shard_count else None


async def reserve(
    conn: Connection,
    *,
    issuer_id: int,
    serial: bytes,
    profile: str,
    tbs: bytes,
    spki_sha256: bytes,
    ski: bytes | None,
    not_before: int,
    not_after: int,
    shard: int | None,
    bucket: int,
    order_id: UUID | None,
    created_at: int,
) -> None:
    """Commits a serial to its TBS before anything is signed. Raises a unique violation when the serial is taken."""
    await conn.execute(
        "insert into certificate (issuer_id, serial, state, profile, tbs, spki_sha256, ski, not_before, not_after,"
        " shard, bucket, order_id, created_at) values ($1, $2, 'reserved', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        issuer_id,
        serial,
        profile,
        tbs,
        spki_sha256,
        ski,
        not_before,
        not_after,
        shard,
        bucket,
        order_id,
        created_at,
    )


async def complete(conn: Connection, issuer_id: int, serial: bytes, der: bytes) -> None:
    """Gives a reserved serial its certificate; again with the same DER changes nothing.

    Raises `certificate.conflict` when the serial is not reserved or already carries another certificate.
    """
    done = await conn.fetchval(
        "update certificate set state = 'issued', der = $3, tbs = null"
        " where issuer_id = $1 and serial = $2 and state in ('reserved', 'precertificate') returning true",
        issuer_id,
        serial,
        der,
    )
    if done:
        return
    present = await get(conn, issuer_id, serial)
    if present is None or present.der != der:
        raise QuashError(
            "certificate.conflict", "this serial is not reserved for this certificate: look at its order", Kind.CONFLICT
        )


async def get(conn: Connection, issuer_id: int, serial: bytes) -> Certificate | None:
    """One certificate by its primary key."""
    row = await conn.fetchrow(
        f"select {COLUMNS} from certificate where issuer_id = $1 and serial = $2",
        issuer_id,
        serial,
    )
    return Certificate(**row) if row else None


async def get_reservation(conn: Connection, issuer_id: int, serial: bytes) -> Reservation | None:
    """A certificate with the bytes that may be signed for it, for the CA signer and for a resumed order."""
    row = await conn.fetchrow(
        f"select {COLUMNS}, tbs, order_id, created_at from certificate where issuer_id = $1 and serial = $2",
        issuer_id,
        serial,
    )
    if row is None:
        return None
    fields = dict(row)
    tbs, order_id, created_at = fields.pop("tbs"), fields.pop("order_id"), fields.pop("created_at")
    return Reservation(Certificate(**fields), tbs, order_id, created_at)


async def find_by_serial(conn: Connection, serial: bytes) -> list[Certificate]:
    """Every certificate with this serial, of any issuer: serials are unique per issuer only."""
    rows = await conn.fetch(
        f"select {COLUMNS} from certificate where serial = $1 order by issuer_id",
        serial,
    )
    return [Certificate(**row) for row in rows]


async def siblings(
    conn: Connection,
    spki_sha256: bytes,
    unexpired_at: int,
    limit: int,
    after: tuple[int, bytes] | None = None,
) -> Sequence[Certificate]:
    """Unexpired certificates of any issuer, account and state with this public key (C8), by (issuer_id, serial).

    At most `limit`, those behind `after`; a certificate is unexpired through the second of its notAfter.
    """
    issuer_id, serial = after if after is not None else (-1, b"")
    rows = await conn.fetch(
        f"select {COLUMNS} from certificate where spki_sha256 = $1 and not_after >= $2"
        " and (issuer_id, serial) > ($3::smallint, $4::bytea) order by issuer_id, serial limit $5",
        spki_sha256,
        unexpired_at,
        issuer_id,
        serial,
        limit,
    )
    return [Certificate(**row) for row in rows]


async def public_keys(conn: Connection, keys: Sequence[tuple[int, bytes]]) -> list[bytes]:
    """SHA-256 of the public keys of these certificates (issuer id, serial), where anybody knows them; each once."""
    rows = await conn.fetch(
        "select distinct c.spki_sha256 from unnest($1::smallint[], $2::bytea[]) as k (i, s) cross join lateral"
        " (select spki_sha256 from certificate where issuer_id = k.i and serial = k.s offset 0) c"
        " where c.spki_sha256 is not null order by 1",
        [issuer_id for issuer_id, _ in keys],
        [serial for _, serial in keys],
    )
    return [row["spki_sha256"] for row in rows]


async def count_siblings(conn: Connection, spki_sha256: bytes, unexpired_at: int) -> int:
    """How many `siblings` would give without a limit."""
    count = await conn.fetchval(
        "select count(*) from certificate where spki_sha256 = $1 and not_after >= $2", spki_sha256, unexpired_at
    )
    return int(count)


async def reach(
    conn: Connection, spki_sha256: bytes, unexpired_at: int
) -> list[tuple[str, str | None, str | None, int]]:
    """(issuer, CRL scope, account, how many) of a key's unexpired certificates; account None: nobody ordered them."""
    rows = await conn.fetch(
        "select i.name, s.scope, o.operator, count(*) from certificate c join issuer i on i.id = c.issuer_id"
        " left join crl_scope s on s.issuer_id = c.issuer_id and s.shard is not distinct from c.shard"
        " left join certificate_order o on o.id = c.order_id"
        " where c.spki_sha256 = $1 and c.not_after >= $2 group by 1, 2, 3 order by 1, 2, 3",
        spki_sha256,
        unexpired_at,
    )
    return [tuple(row) for row in rows]
