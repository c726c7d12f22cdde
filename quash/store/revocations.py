"""Revocations and their upgrades (B25): append-only rows, of which the greatest version of a certificate counts.

Whoever adds rows holds `quash.store.locks.spki_lock` of the key (or of the serial, where nobody knows the key), so that
two requests for one certificate never compute the same version; should they, the primary key refuses the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quash.pki.crl import entry
from quash.store.database import SCHEMA, Connection


@dataclass(frozen=True, slots=True)
class Revocation:
    """One version of a revocation; `reason` as CRLReason, times in Unix seconds.

    `revoked_at` is what OCSP and CRL say (A26), `recorded_at` when we wrote it. `shard` is the certificate's.
    """

    issuer_id: int
    serial: bytes
    version: int
    reason: int
    revoked_at: int
    recorded_at: int
    shard: int | None
    act_id: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a certificate stands: version 0, without reason and date, is not revoked."""

    issuer_id: int
    serial: bytes
    shard: int | None
    version: int
    reason: int | None
    revoked_at: int | None


_COLUMNS = "issuer_id, serial, version, reason, revoked_at, recorded_at, shard, act_id"
_KEY_COMPROMISE = 1


async def latest(conn: Connection, issuer_id: int, serial: bytes) -> Revocation | None:
    """The revocation that counts; None: not revoked."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from revocation where issuer_id = $1 and serial = $2 order by version desc limit 1",
        issuer_id,
        serial,
    )
    return Revocation(**row) if row else None


async def latest_of(conn: Connection, keys: Sequence[tuple[int, bytes]]) -> list[Revocation]:
    """The revocations that count for these certificates (issuer id, serial), those that are revoked, in any order.

    One look-up by the primary key for each, whatever the planner believes of the table's size.
    """
    rows = await conn.fetch(
        f"select r.* from unnest($1::smallint[], $2::bytea[]) as k (i, s) cross join lateral"
        f" (select {_COLUMNS} from revocation where issuer_id = k.i and serial = k.s order by version desc limit 1) r",
        [issuer_id for issuer_id, _ in keys],
        [serial for _, serial in keys],
    )
    return [Revocation(**row) for row in rows]


async def history(conn: Connection, issuer_id: int, serial: bytes) -> list[Revocation]:
    """Every version, first to last."""
    rows = await conn.fetch(
        f"select {_COLUMNS} from revocation where issuer_id = $1 and serial = $2 order by version",
        issuer_id,
        serial,
    )
    return [Revocation(**row) for row in rows]


async def add(conn: Connection, rows: Sequence[Revocation]) -> None:
    """Appends versions and, at commit, hints the CRL builder. Raises a unique violation when one of them exists."""
    await conn.execute(
        f"insert into revocation ({_COLUMNS}) select * from unnest($1::smallint[], $2::bytea[], $3::smallint[],"
        " $4::smallint[], $5::bigint[], $6::bigint[], $7::integer[], $8::bigint[])",
        [row.issuer_id for row in rows],
        [row.serial for row in rows],
        [row.version for row in rows],
        [row.reason for row in rows],
        [row.revoked_at for row in rows],
        [row.recorded_at for row in rows],
        [row.shard for row in rows],
        [row.act_id for row in rows],
    )
    await _hint(conn)


async def add_first(
    conn: Connection,
    certificates: Sequence[tuple[int, bytes, int | None, int]],
    *,
    reason: int,
    revoked_at: int,
    recorded_at: int,
    act_id: int,
) -> None:
    """As `add`, for (issuer id, serial, shard, notAfter) that are not revoked yet: millions of them in a mass job.

    Their CRL entries are made here, which the database only compares (0056_revocations_ready_made.sql).
    """
    await conn.copy_records_to_table(
        "revocation",
        schema_name=SCHEMA,
        columns=(*_COLUMNS.split(", "), "entry", "not_after"),
        records=[
            (i, serial, 1, reason, revoked_at, recorded_at, shard, act_id, entry(serial, revoked_at, reason), not_after)
            for i, serial, shard, not_after in certificates
        ],
    )
    await _hint(conn)


async def _hint(conn: Connection) -> None:
    await conn.execute("select pg_notify('crl', '')")


# What a keyCompromise as of $3 still has to change among the unexpired certificates of a key (C8, B25), in every state.
_UNSETTLED = """
    from certificate c left join lateral (
        select version, reason, revoked_at from revocation r
        where r.issuer_id = c.issuer_id and r.serial = c.serial order by version desc limit 1) r on true
    where c.spki_sha256 = $1 and c.not_after >= $2 and (r.version is null or r.reason <> $4 or r.revoked_at > $3)
"""


async def unsettled(
    conn: Connection,
    spki_sha256: bytes,
    *,
    unexpired_at: int,
    revoked_at: int,
    limit: int,
    after: tuple[int, bytes] = (-1, b""),
) -> list[Standing]:
    """Certificates with this key that its compromise as of `revoked_at` has yet to reach, by (issuer_id, serial)."""
    rows = await conn.fetch(
        "select c.issuer_id, c.serial, c.shard, coalesce(r.version, 0) as version, r.reason, r.revoked_at"
        f"{_UNSETTLED} and (c.issuer_id, c.serial) > ($5::smallint, $6::bytea)"
        " order by c.issuer_id, c.serial limit $7",
        spki_sha256,
        unexpired_at,
        revoked_at,
        _KEY_COMPROMISE,
        *after,
        limit,
    )
    return [Standing(**row) for row in rows]


async def count_unsettled(conn: Connection, spki_sha256: bytes, *, unexpired_at: int, revoked_at: int) -> int:
    """How many `unsettled` would give without a limit."""
    count = await conn.fetchval(f"select count(*) {_UNSETTLED}", spki_sha256, unexpired_at, revoked_at, _KEY_COMPROMISE)
    return int(count)
