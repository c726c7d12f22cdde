"""CRL scopes and the CRLs made for them; `crl_entries` has what these must contain.

What a CRL covers is a snapshot of PostgreSQL, kept as its text (`pg_snapshot`): a revocation is covered when its
transaction is visible in it. So a transaction that took its number early and committed late is never taken for covered,
and nobody marks anything: whether a scope is dirty is derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from quash.errors import Kind, QuashError
from quash.pki import der
from quash.store.crl_order import IN_ORDER, IN_ORDER_BACK, in_index_order, since
from quash.store.database import Connection

# Shared with the index revocation_scope: no shard and shard null are one value there.
_FULL = -1
_URI = 0x86  # GeneralName uniformResourceIdentifier


@dataclass(frozen=True, slots=True)
class Scope:
    """One CRL of an issuer. `url` is what new CRLDPs carry, `path` the publisher's name for it, without leading slash.

    `former_urls` are what older certificates carry, from before the origin moved.
    """

    issuer_id: int
    issuer: str
    scope: str
    shard: int | None
    url: str
    former_urls: tuple[str, ...]
    path: str
    idp: bool

    @property
    def idp_urls(self) -> tuple[str, ...]:
        """What the CRL's IDP names: each URL that a certificate of the scope may carry (B15); none: it has no IDP."""
        return (self.url, *self.former_urls) if self.idp else ()

    @property
    def shard_key(self) -> int:
        """The shard as the indexes of revocations have it."""
        return _FULL if self.shard is None else self.shard


@dataclass(frozen=True, slots=True)
class Crl:
    """One CRL as it was made; times are Unix seconds. `sha256` and `size` are None until it is signed."""

    number: int
    this_update: int
    next_update: int
    entries: int
    size: int | None
    sha256: bytes | None
    covers: str
    scheduled: bool
    published_at: int | None


@dataclass(frozen=True, slots=True)
class ScopeState:
    """Where a scope stands: its newest CRL, the newest published and the newest published on schedule.

    `dirty_since`: when the longest waiting revocation that the published CRL does not cover was recorded, or an
    operator's demand for a new CRL (`quash.store.crl_demands`). `may_go_back`: such a demand allows that the new one is
    dated before a published one from the future. `offline`: the issuer's key is; its CRLs follow no schedule.
    """

    scope: Scope
    newest: Crl | None
    published: Crl | None
    regular: Crl | None
    dirty_since: int | None
    may_go_back: bool = False
    offline: bool = False

    def due_since(self, now: float, every: int) -> int | None:
        """Since when a CRL is due beside the published one, where one is made every so many seconds; None: none is."""
        scheduled = self.regular.this_update + every if self.regular and not self.offline else None
        return min((at for at in (self.dirty_since, scheduled) if at is not None and at <= now), default=None)


async def add_scope(
    conn: Connection, *, issuer_id: int, scope: str, shard: int | None, url: str, path: str, idp: bool
) -> None:
    """Adds a scope; the same again changes nothing. `scope`: `full` (shard None) or the shard's number as text."""
    await conn.execute(
        "insert into crl_scope (issuer_id, scope, shard, url, path, idp) values ($1, $2, $3, $4, $5, $6)"
        " on conflict (issuer_id, scope) do nothing",
        issuer_id,
        scope,
        shard,
        url,
        path,
        idp,
    )


async def move(conn: Connection, scope: Scope, url: str) -> None:
    """Gives new certificates another URL; the one before stays in the IDP, since certificates carry it."""
    former = tuple(dict.fromkeys(known for known in (scope.url, *scope.former_urls) if known != url))
    await conn.execute(
        "update crl_scope set url = $3, former_urls = $4 where issuer_id = $1 and scope = $2",
        scope.issuer_id,
        scope.scope,
        url,
        list(former),
    )


async def limit(conn: Connection, scope: Scope) -> None:
    """Gives a scope's CRLs an IDP from now on: they list what names their URL and nothing else (B14, B15)."""
    await conn.execute(
        "update crl_scope set idp = true where issuer_id = $1 and scope = $2", scope.issuer_id, scope.scope
    )


async def start_after(
    conn: Connection, issuer_id: int, scope: str, *, number: int, this_update: int, next_update: int
) -> None:
    """Takes over from a CRL that somebody else made: ours get greater numbers and times. Again: changes nothing.

    It counts as begun and never published, and as covering nothing, so that the scope is due at once.
    """
    await conn.execute(
        "insert into crl (issuer_id, scope, number, this_update, next_update, entries, covers, scheduled)"
        " values ($1, $2, $3, $4, $5, 0, '1:1:', false) on conflict do nothing",
        issuer_id,
        scope,
        Decimal(number),
        this_update,
        next_update,
    )


_CRL_FIELDS = (
    "number",
    "this_update",
    "next_update",
    "entries",
    "size",
    "sha256",
    "covers",
    "scheduled",
    "published_at",
)
_CRL_COLUMNS = "number, this_update, next_update, entries, size, sha256, covers::text, scheduled, published_at"


def _of(alias: str) -> str:
    return ", ".join(f"{alias}.{name} as {alias}_{name}" for name in _CRL_FIELDS)


def _newest(alias: str, condition: str) -> str:
    return (
        f" left join lateral (select {_CRL_COLUMNS} from crl"
        f" where crl.issuer_id = s.issuer_id and crl.scope = s.scope{condition}"
        f" order by number desc limit 1) {alias} on true"
    )


_STATES = (
    "select s.issuer_id, i.name as issuer, s.scope, s.shard, s.url, s.former_urls, s.path, s.idp,"
    f" {_of('newest')}, {_of('published')}, {_of('regular')},"
    f" least((select r.recorded_at {since('s.issuer_id', 'coalesce(s.shard, -1)', 'published.covers')}"
    f"   {IN_ORDER} limit 1),"
    "  (select d.at from crl_demand d where d.issuer_id = s.issuer_id and d.scope = s.scope"
    "   and d.tx >= pg_snapshot_xmin(published.covers::pg_snapshot)"
    "   and not pg_visible_in_snapshot(d.tx, published.covers::pg_snapshot)"
    "   order by d.tx limit 1)) as dirty_since,"
    " exists (select from crl_demand d where d.issuer_id = s.issuer_id and d.scope = s.scope and d.replaces_future"
    "   and d.tx >= pg_snapshot_xmin(published.covers::pg_snapshot)"
    "   and not pg_visible_in_snapshot(d.tx, published.covers::pg_snapshot)) as may_go_back,"
    " i.key_ref is null as offline"
    " from crl_scope s join issuer i on i.id = s.issuer_id"
    + _newest("newest", "")
    + _newest("published", " and published_at is not null")
    + _newest("regular", " and scheduled and published_at is not null")
    + " where i.key_ref is not null or $1 order by s.issuer_id, s.shard nulls first, s.scope"
)


async def states(conn: Connection, *, offline: bool = False) -> list[ScopeState]:
    """Every scope of the issuers whose key is online, in one query; `offline`: of all issuers.

    Each scope costs a few index look-ups, whatever the number of revocations.
    """
    async with conn.transaction():
        await in_index_order(conn)
        return [_state(row) for row in await conn.fetch(_STATES, offline)]


async def waiting(conn: Connection, scope: Scope, covers: str, most: int) -> tuple[int, int]:
    """Of the scope's revocations that `covers` does not show: how many, counted to `most`, and the greatest `tx`."""
    shown = since("$1::smallint", "$2::integer", "$3::text")
    async with conn.transaction():
        await in_index_order(conn)
        row = await conn.fetchrow(
            f"select (select count(*) from (select{shown}{IN_ORDER} limit $4) w) as count,"
            f" coalesce((select r.tx{shown}{IN_ORDER_BACK} limit 1), '0') as newest",
            scope.issuer_id,
            scope.shard_key,
            covers,
            most,
        )
    return row["count"], row["newest"]


async def find_scope(conn: Connection, issuer_id: int, shard: int | None) -> Scope | None:
    """The scope whose CRL shows the certificates of this shard (None: those without one)."""
    row = await conn.fetchrow(
        "select s.issuer_id, i.name as issuer, s.scope, s.shard, s.url, s.former_urls, s.path, s.idp from crl_scope s"
        " join issuer i on i.id = s.issuer_id where s.issuer_id = $1 and s.shard is not distinct from $2",
        issuer_id,
        shard,
    )
    return _scope(row) if row else None


async def places(conn: Connection, now: int) -> list[tuple[Scope, bool]]:
    """Every scope of the issuers that have not ended, and whether this database knows of a published CRL of it."""
    rows = await conn.fetch(
        "select s.issuer_id, i.name as issuer, s.scope, s.shard, s.url, s.former_urls, s.path, s.idp, exists"
        " (select from crl c where c.issuer_id = s.issuer_id and c.scope = s.scope and c.published_at is not null)"
        " as published from crl_scope s join issuer i on i.id = s.issuer_id"
        " where exists (select from issuer_certificate a where a.issuer_id = i.id and a.not_after >= $1)"
        " order by s.issuer_id, s.path",
        now,
    )
    return [(_scope(row), row["published"]) for row in rows]


def _scope(row: Any) -> Scope:
    fields = {name: row[name] for name in ("issuer_id", "issuer", "scope", "shard", "url", "path", "idp")}
    return Scope(**fields, former_urls=tuple(row["former_urls"]))


def _state(row: Any) -> ScopeState:
    return ScopeState(
        _scope(row),
        _crl(row, "newest_"),
        _crl(row, "published_"),
        _crl(row, "regular_"),
        row["dirty_since"],
        row["may_go_back"],
        row["offline"],
    )


def _crl(row: Any, prefix: str) -> Crl | None:
    if row[prefix + "number"] is None:
        return None
    fields = {name: row[prefix + name] for name in _CRL_FIELDS}
    return Crl(**{**fields, "number": int(fields["number"])})


async def urls_in_use(conn: Connection, scope: Scope, now: int) -> list[str]:
    """Those of the scope's URLs that stand in a CRLDP of an unexpired certificate, looked up in its octets (B23).

    None of a private PKI's: CCADB is not told of it.
    """
    urls = [scope.url, *scope.former_urls]
    rows = await conn.fetch(
        "select u.url from unnest($4::text[], $5::bytea[]) with ordinality as u (url, general_name, nr)"
        " where exists (select from certificate c where c.issuer_id = $1 and coalesce(c.shard, -1) = $2"
        "  and c.not_after >= $3 and position(u.general_name in c.der) > 0)"
        " and exists (select from issuer where id = $1 and kind <> 'private') order by u.nr",
        scope.issuer_id,
        scope.shard_key,
        now,
        urls,
        [der.tlv(_URI, url.encode("ascii")) for url in urls],
    )
    return [row["url"] for row in rows]


async def without_scope(conn: Connection) -> list[tuple[str, int | None]]:
    """(issuer, shard) of revocations of online issuers that no CRL scope would show: a configuration gone wrong."""
    rows = await conn.fetch(
        "select i.name, nullif(r.shard, -1) as shard from"
        " (select distinct issuer_id, coalesce(shard, -1) as shard from revocation) r"
        " join issuer i on i.id = r.issuer_id and i.key_ref is not null"
        " where not exists"
        "  (select from crl_scope s where s.issuer_id = r.issuer_id and coalesce(s.shard, -1) = r.shard)"
        " order by 1, 2"
    )
    return [(row["name"], row["shard"]) for row in rows]


async def reserve(
    conn: Connection,
    scope: Scope,
    *,
    number: int,
    this_update: int,
    next_update: int,
    entries: int,
    covers: str,
    scheduled: bool,
) -> None:
    """Takes a number for a CRL that will be signed now; it never comes back (B7).

    Raises `crl.number_taken` unless it is above every number of the scope.
    """
    taken = await conn.fetchval(
        "insert into crl (issuer_id, scope, number, this_update, next_update, entries, covers, scheduled)"
        " select $1, $2, $3, $4, $5, $6, $7::text::pg_snapshot, $8"
        " where not exists (select from crl where issuer_id = $1 and scope = $2 and number >= $3)"
        " on conflict do nothing returning true",
        scope.issuer_id,
        scope.scope,
        Decimal(number),
        this_update,
        next_update,
        entries,
        covers,
        scheduled,
    )
    if not taken:
        raise QuashError("crl.number_taken", f"CRL number {number} is not above those of the scope", Kind.CONFLICT)


async def signed(conn: Connection, scope: Scope, number: int, sha256: bytes, size: int) -> None:
    """Remembers the bytes that are about to be published, so that they are known again after a crash."""
    await conn.execute(
        "update crl set sha256 = $4, size = $5 where issuer_id = $1 and scope = $2 and number = $3",
        scope.issuer_id,
        scope.scope,
        Decimal(number),
        sha256,
        size,
    )


async def published(conn: Connection, scope: Scope, number: int, at: int) -> None:
    """Remembers that a CRL has been published (Unix seconds)."""
    await conn.execute(
        "update crl set published_at = $4 where issuer_id = $1 and scope = $2 and number = $3",
        scope.issuer_id,
        scope.scope,
        Decimal(number),
        at,
    )


async def is_covered(conn: Connection, issuer_id: int, serial: bytes) -> bool:
    """Whether a published CRL shows the newest version of this revocation; false for what is not revoked."""
    covered = await conn.fetchval(
        "select exists (select from (select r.tx, r.shard from revocation r where r.issuer_id = $1 and r.serial = $2"
        "  order by r.version desc limit 1) r"
        " join crl_scope s on s.issuer_id = $1 and coalesce(s.shard, -1) = coalesce(r.shard, -1)"
        " cross join lateral (select covers from crl where crl.issuer_id = $1 and crl.scope = s.scope"
        "  and published_at is not null order by number desc limit 1) c"
        " where pg_visible_in_snapshot(r.tx, c.covers))",
        issuer_id,
        serial,
    )
    return bool(covered)
