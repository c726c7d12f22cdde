"""Sightings: where and when each revocation was first seen outside, with the hashes of what was signed. Append-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from quash.store.database import Connection
from quash.store.revocations import Revocation

Name = tuple[int, bytes, int]
"""Issuer id, serial, version: one revocation."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One place that showed a revocation. Times are Unix seconds.

    `kind` is feed, ocsp or crl; `place` the URL asked (empty for the feed); `hash` that of the CertID asked for, else
    empty. `seen_at`: of the feed, when it was written. `signed_at`: thisUpdate. `sha256`: of the octets of response
    or CRL, of the feed of the record. `number`: the CRL's. `body`: the OCSP response, where it was kept.
    """

    kind: str
    place: str
    hash: str
    seen_at: int
    signed_at: int
    sha256: bytes
    number: int | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """A revocation to be looked for. `tx` wrote it; `superseded`: a later version counts by now."""

    revocation: Revocation
    tx: int
    not_after: int
    superseded: bool

    @property
    def name(self) -> Name:
        return self.revocation.issuer_id, self.revocation.serial, self.revocation.version


_COLUMNS = "kind, place, hash, seen_at, signed_at, sha256, number, body"
_REVOCATION = "issuer_id, serial, version, reason, revoked_at, recorded_at, shard, act_id"
_NAMES = "select * from unnest($1::smallint[], $2::bytea[], $3::smallint[])"


async def add(conn: Connection, found: Sequence[tuple[Name, Sighting]]) -> None:
    """Of each revocation the first sighting of a kind, place and hash counts."""
    await conn.executemany(
        f"insert into sighting (issuer_id, serial, version, {_COLUMNS})"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict do nothing",
        [
            (
                *name,
                sighting.kind,
                sighting.place,
                sighting.hash,
                sighting.seen_at,
                sighting.signed_at,
                sighting.sha256,
                None if sighting.number is None else Decimal(sighting.number),
                sighting.body,
            )
            for name, sighting in found
        ],
    )


async def of(conn: Connection, name: Name) -> list[Sighting]:
    """The sightings of one revocation, in order of their times."""
    rows = await conn.fetch(
        f"select {_COLUMNS} from sighting where (issuer_id, serial, version) = ($1, $2, $3)"
        " order by seen_at, kind desc, place, hash",
        *name,
    )
    return [Sighting(**{**row, "number": None if row["number"] is None else int(row["number"])}) for row in rows]


async def seen(conn: Connection, names: Sequence[Name]) -> set[tuple[Name, str, str, str]]:
    """(revocation, kind, place, hash) of what was seen of these."""
    rows = await conn.fetch(
        f"select issuer_id, serial, version, kind, place, hash from sighting"
        f" where (issuer_id, serial, version) in ({_NAMES})",
        *_columns(names),
    )
    return {((r["issuer_id"], r["serial"], r["version"]), r["kind"], r["place"], r["hash"]) for r in rows}


async def watched(conn: Connection, names: Sequence[Name]) -> list[Watched]:
    """What is to be looked for of these revocations, in any order."""
    rows = await conn.fetch(
        f"select {', '.join(f'r.{column}' for column in _REVOCATION.split(', '))}, r.tx, c.not_after, exists"
        " (select from revocation n where n.issuer_id = r.issuer_id and n.serial = r.serial and n.version > r.version)"
        " as superseded from revocation r join certificate c using (issuer_id, serial)"
        f" where (r.issuer_id, r.serial, r.version) in ({_NAMES})",
        *_columns(names),
    )
    found = []
    for row in rows:
        fields = dict(row)
        rest = {name: fields.pop(name) for name in ("tx", "not_after", "superseded")}
        found.append(Watched(Revocation(**fields), **rest))
    return found


async def put_off(conn: Connection, name: Name, next_at: int) -> None:
    """Remembers to look again at this time."""
    await conn.execute(
        "insert into sighting_due (issuer_id, serial, version, next_at) values ($1, $2, $3, $4)"
        " on conflict (issuer_id, serial, version) do update set next_at = $4",
        *name,
        next_at,
    )


async def done(conn: Connection, name: Name) -> None:
    """Nothing more is to be seen of it."""
    await conn.execute("delete from sighting_due where (issuer_id, serial, version) = ($1, $2, $3)", *name)


async def due(conn: Connection, now: int, limit: int) -> list[Name]:
    """Those put off until now, the oldest first."""
    rows = await conn.fetch(
        "select issuer_id, serial, version from sighting_due where next_at <= $1 order by next_at limit $2", now, limit
    )
    return [(row["issuer_id"], row["serial"], row["version"]) for row in rows]


async def feed_rows(conn: Connection, tx: int, lanes: Sequence[int], limit: int) -> list[tuple[int, bytes]]:
    """(written_at, payload) of the feed's records from a transaction on."""
    rows = await conn.fetch(
        "select written_at, payload from feed where kind = 'records' and tx >= $1 and lane = any($2::smallint[])"
        " order by tx, id limit $3",
        tx,
        list(lanes),
        limit,
    )
    return [(row["written_at"], row["payload"]) for row in rows]


def _columns(names: Sequence[Name]) -> tuple[list[int], list[bytes], list[int]]:
    return [n[0] for n in names], [n[1] for n in names], [n[2] for n in names]
