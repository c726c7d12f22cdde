"""What a scope's CRL must contain: everything revoked, or what was revoked since a CRL.

Functions that read several things which must agree (`snapshot`, `listing`, `changes`, `total`) are called in one
transaction of isolation `repeatable_read`, where they all see the same snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quash.store.crl_order import IN_ORDER, in_index_order, since
from quash.store.crls import Crl, Scope
from quash.store.database import Connection

_BATCH = 10_000
# It may go when a regularly scheduled CRL issued after notAfter has shown it (B13): $3 is the thisUpdate of the newest
# such CRL, $4 what it covers.
_MAY_GO = "coalesce(r.not_after < $3 and pg_visible_in_snapshot(r.tx, $4::text::pg_snapshot), false)"
# The greatest version of each revocation counts. Upgrades are few, so their serials are kept beside while all go by.
_CURRENT = (
    " from revocation r where r.issuer_id = $1 and coalesce(r.shard, -1) = $2 and not exists"
    " (select from revocation n"
    "  where n.issuer_id = $1 and n.serial = r.serial and n.version > 1 and n.version > r.version)"
)
_NEW = since("$1::smallint", "$2::integer", "$3::text")


@dataclass(frozen=True, slots=True)
class Listing:
    """What a scope's CRL must list: `encoded`, whole entries joined in the order of their transactions; how many.

    `gone`: revoked certificates of the scope that need no entry any more (B13); `total` counts them too.
    """

    encoded: bytes
    count: int
    gone: int


@dataclass(frozen=True, slots=True)
class Added:
    """Revocations since a CRL: their entries joined in order, how many, and whether one is of a later version."""

    encoded: bytes
    count: int
    upgrades: bool


async def snapshot(conn: Connection) -> str:
    """What this transaction sees, for `covers`."""
    return str(await conn.fetchval("select pg_current_snapshot()::text"))


async def is_past(conn: Connection, covers: str) -> bool:
    """Whether every transaction that `covers` knows of is over in this database."""
    past = await conn.fetchval(
        "select pg_snapshot_xmax($1::text::pg_snapshot) <= pg_snapshot_xmin(pg_current_snapshot())", covers
    )
    return bool(past)


async def listing(conn: Connection, scope: Scope, regular: Crl | None) -> Listing:
    """Everything revoked except what may go (B13), joined by PostgreSQL: a million entries are one value of 49 MB.

    Called in a transaction, whose settings it changes. Upgrades, where there are any, are handed over as constants,
    which are looked up in a hash while the rows go by in the order of their index; a join costs five times as much
    where estimates are wrong.
    """
    upgraded = await conn.fetch(
        "select serial, (array_agg(id order by version desc))[1] as id from revocation where issuer_id = $1"
        " and serial in (select serial from revocation where issuer_id = $1 and version > 1) group by serial",
        scope.issuer_id,
    )
    await conn.execute("set local plan_cache_mode = force_custom_plan; set local enable_nestloop = off")
    newest, versions = "", []
    if upgraded:
        newest = " and (r.serial <> all ($5::bytea[]) or r.id = any ($6::bigint[]))"
        versions = [[each["serial"] for each in upgraded], [each["id"] for each in upgraded]]
    # No filters of the aggregates: each is looked at for each row, and together they cost as much as the joining.
    row = await conn.fetchrow(
        "select count(entry) as count, count(*) - count(entry) as gone, string_agg(entry, ''::bytea) as encoded"
        f" from (select case when {_MAY_GO} then null else r.entry end as entry from revocation r"
        f" where r.issuer_id = $1 and coalesce(r.shard, -1) = $2{newest} order by r.tx, r.id) e",
        scope.issuer_id,
        scope.shard_key,
        *_horizon(regular),
        *versions,
    )
    return Listing(row["encoded"] or b"", row["count"], row["gone"])


async def total(conn: Connection, scope: Scope) -> int:
    """How many certificates of the scope were ever revoked; each has exactly one version 1."""
    count = await conn.fetchval(
        "select count(*) from revocation where issuer_id = $1 and coalesce(shard, -1) = $2 and version = 1",
        scope.issuer_id,
        scope.shard_key,
    )
    return int(count)


async def count_new(conn: Connection, scope: Scope, covers: str) -> int:
    """How many certificates of the scope were revoked by transactions that `covers` does not show."""
    await in_index_order(conn)
    count = await conn.fetchval(
        f"select count(*){_NEW} and r.version = 1",
        scope.issuer_id,
        scope.shard_key,
        covers,
    )
    return int(count)


async def changes(conn: Connection, scope: Scope, covers: str) -> list[tuple[int, bytes]]:
    """The revocations that `covers` does not show, as (version, encoded entry), in order of their transactions."""
    await in_index_order(conn)
    rows = await conn.fetch(
        f"select r.version, r.entry{_NEW}{IN_ORDER}",
        scope.issuer_id,
        scope.shard_key,
        covers,
    )
    return [(version, entry) for version, entry in rows]


async def added(conn: Connection, scope: Scope, covers: str) -> Added:
    """What `changes` has, joined by PostgreSQL: of a mass revocation that is a hundred thousand."""
    await in_index_order(conn)
    row = await conn.fetchrow(
        "select coalesce(max(version), 0) as version, count(*) as count, string_agg(entry, ''::bytea) as encoded"
        f" from (select r.version, r.entry{_NEW}{IN_ORDER}) e",
        scope.issuer_id,
        scope.shard_key,
        covers,
    )
    return Added(row["encoded"] or b"", row["count"], upgrades=row["version"] > 1)


async def may_go(conn: Connection, scope: Scope, regular: Crl | None, serials: Sequence[bytes]) -> set[bytes]:
    """Which of these entries a new CRL need not list (B13), asked of the database serial by serial."""
    rows = await conn.fetch(
        f"select r.serial {_CURRENT} and r.serial = any($5) and {_MAY_GO}",
        scope.issuer_id,
        scope.shard_key,
        *_horizon(regular),
        list(serials),
    )
    return {row["serial"] for row in rows}


def _horizon(regular: Crl | None) -> tuple[int | None, str | None]:
    return (regular.this_update, regular.covers) if regular else (None, None)


async def unrevoked(conn: Connection, issuer_id: int, serials: Sequence[bytes]) -> list[bytes]:
    """Those of the serials that the database does not know as revoked: none, unless it lost something."""
    missing: list[bytes] = []
    for start in range(0, len(serials), _BATCH):
        rows = await conn.fetch(
            "select s from unnest($2::bytea[]) s"
            " where not exists (select from revocation where issuer_id = $1 and serial = s offset 0)",  # as in `LOST`
            issuer_id,
            list(serials[start : start + _BATCH]),
        )
        missing.extend(row["s"] for row in rows)
    return missing
