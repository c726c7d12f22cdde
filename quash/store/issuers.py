"""Issuers, their certificates, and the kill switch that stops one or all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA: a name with a key. `subject` and `spki` are DER and stand as they are in all that it signs (B1, D13).

    `kind` is root, sub-ca, or, of a CA that was taken over, imported (public rules) or private (a PKI of somebody's
    own: Ed25519 too, and nothing of it is disclosed). `key_ref` is None for an issuer whose key the CA signer may not
    have (the root). `profiles` are the leaf profiles that it issues; `max_age` is in seconds.
    """

    id: int
    name: str
    kind: str
    parent: int | None
    subject: bytes
    spki: bytes
    signature_algorithm: str
    key_ref: str | None
    ocsp_path: str
    max_age: int
    bucket_count: int
    shard_count: int
    profiles: tuple[str, ...]
    created_at: int

    @property
    def taken_over(self) -> bool:
        """Served, not used: its name, key and certificate are as they are, and it issues OCSP signers alone."""
        return self.kind in ("imported", "private")


@dataclass(frozen=True, slots=True)
class IssuerCertificate:
    """One certificate of an issuer; times are Unix seconds."""

    issuer_id: int
    sha256: bytes
    der: bytes
    not_before: int
    not_after: int


_COLUMNS = (
    "id, name, kind, parent, subject, spki, signature_algorithm, key_ref, ocsp_path, max_age, bucket_count,"
    " shard_count, profiles, created_at"
)
_WIDTH, _PROFILES = len(_COLUMNS.split(", ")), _COLUMNS.split(", ").index("profiles")
_CERTIFICATE_COLUMNS = "issuer_id, sha256, der, not_before, not_after"
_LONGEST_CHAIN = 8

SHOWN = ", ".join(f"i.{column}" for column in _COLUMNS.split(", ")) + ", shown.*"
"""The columns of an issuer `i` and of its certificate that chains show, as `read_shown` wants them."""
SHOWN_OF = f"""
left join lateral (
    select {_CERTIFICATE_COLUMNS} from issuer_certificate
    where issuer_id = i.id order by not_after desc, sha256 limit 1
) shown on true
"""
SHOWN_WIDTH = len(f"{_COLUMNS}, {_CERTIFICATE_COLUMNS}".split(", "))

Chain = list[tuple[Issuer, IssuerCertificate | None]]
"""An issuer and those above it, each with the certificate that chains show, the root last."""


def chain_query(by: str, more: str = "", joined: str = "") -> str:
    """SQL: the `Chain` of issuer $1, by id or name: a row of `SHOWN`, and `more` columns, for each issuer `i`."""
    return f"""
with recursive above as (
    select issuer.*, 1 as height from issuer where {by} = $1
    union all
    select issuer.*, height + 1 from above join issuer on issuer.id = above.parent where height < {_LONGEST_CHAIN}
)
select {SHOWN}{more} from above i {SHOWN_OF} {joined} order by height
"""


_CHAIN_BY_ID, _CHAIN_BY_NAME = chain_query("id"), chain_query("name")


def read_shown(row: Sequence[Any]) -> tuple[Issuer, IssuerCertificate | None]:
    """What `SHOWN` stands for, from the first columns of a row."""
    certificate = row[_WIDTH:SHOWN_WIDTH]
    return _issuer(row[:_WIDTH]), None if certificate[0] is None else IssuerCertificate(*certificate)


def _issuer(row: Sequence[Any]) -> Issuer:
    values = list(row)
    values[_PROFILES] = tuple(values[_PROFILES])
    return Issuer(*values)


async def add(
    conn: Connection,
    *,
    name: str,
    kind: str,
    parent: int | None,
    subject: bytes,
    spki: bytes,
    signature_algorithm: str,
    key_ref: str | None,
    ocsp_path: str,
    max_age: int,
    bucket_count: int,
    shard_count: int,
    profiles: Sequence[str],
    created_at: int,
) -> Issuer:
    """Adds an issuer. Raises a unique violation when its name or OCSP path is taken."""
    row = await conn.fetchrow(
        "insert into issuer (name, kind, parent, subject, spki, signature_algorithm, key_ref, ocsp_path, max_age,"
        " bucket_count, shard_count, profiles, created_at)"
        f" values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) returning {_COLUMNS}",
        name,
        kind,
        parent,
        subject,
        spki,
        signature_algorithm,
        key_ref,
        ocsp_path,
        max_age,
        bucket_count,
        shard_count,
        list(profiles),
        created_at,
    )
    return _issuer(row)


async def set_profiles(conn: Connection, issuer_id: int, profiles: Sequence[str]) -> None:
    """Replaces the leaf profiles that an issuer offers; what it issued keeps its own."""
    await conn.execute("update issuer set profiles = $2 where id = $1", issuer_id, list(profiles))


async def set_shard_count(conn: Connection, issuer_id: int, count: int) -> None:
    """Spreads new certificates over so many CRL shards; what was issued keeps its own (B16)."""
    await conn.execute("update issuer set shard_count = $2 where id = $1", issuer_id, count)


async def get(conn: Connection, issuer_id: int) -> Issuer | None:
    row = await conn.fetchrow(f"select {_COLUMNS} from issuer where id = $1", issuer_id)
    return _issuer(row) if row else None


async def find_by_name(conn: Connection, name: str) -> Issuer | None:
    row = await conn.fetchrow(f"select {_COLUMNS} from issuer where name = $1", name)
    return _issuer(row) if row else None


async def all_issuers(conn: Connection) -> list[Issuer]:
    """Every issuer, oldest first: a parent stands before its children."""
    rows = await conn.fetch(f"select {_COLUMNS} from issuer order by id")
    return [_issuer(row) for row in rows]


async def add_certificate(conn: Connection, issuer_id: int, der: bytes, not_before: int, not_after: int) -> None:
    """Adds a certificate of an issuer; the same again changes nothing."""
    await conn.execute(
        "insert into issuer_certificate (issuer_id, sha256, der, not_before, not_after) values ($1, $2, $3, $4, $5)"
        " on conflict do nothing",
        issuer_id,
        hashlib.sha256(der).digest(),
        der,
        not_before,
        not_after,
    )


async def certificates(conn: Connection, issuer_id: int) -> list[IssuerCertificate]:
    """The certificates of an issuer, the one that lasts longest first."""
    rows = await conn.fetch(
        f"select {_CERTIFICATE_COLUMNS} from issuer_certificate where issuer_id = $1 order by not_after desc, sha256",
        issuer_id,
    )
    return [IssuerCertificate(**row) for row in rows]


async def certificate(conn: Connection, issuer_id: int) -> IssuerCertificate | None:
    """The certificate that chains and caIssuers URLs show: the one that lasts longest."""
    found = await certificates(conn, issuer_id)
    return found[0] if found else None


async def with_certificate(conn: Connection, issuer_id: int) -> tuple[Issuer | None, IssuerCertificate | None]:
    """An issuer and the certificate that chains show; None, None when there is no such issuer."""
    row = await conn.fetchrow(f"select {SHOWN} from issuer i {SHOWN_OF} where i.id = $1", issuer_id)
    return (None, None) if row is None else read_shown(row)


async def chain(conn: Connection, issuer: int | str) -> Chain:
    """See `Chain`; the issuer by its id or name."""
    rows = await conn.fetch(_CHAIN_BY_ID if isinstance(issuer, int) else _CHAIN_BY_NAME, issuer)
    return [read_shown(row) for row in rows]


REVOKED = """
(select bool_and(exists (select from certificate given join revocation r using (issuer_id, serial)
        where given.issuer_id = i.parent and given.spki_sha256 = sha256(i.spki) and given.der = own.der))
    from issuer_certificate own where own.issuer_id = i.id)
"""
"""Whether the CA above has revoked every certificate that it ever gave issuer `i` (C3).

What it issued is not answered `revoked` for that, as C10 would allow: who has not heard of the CA's revocation is told
what holds of the certificate."""


def stopped(issuer_id: str) -> str:
    """SQL: whether the kill switch stops an issuer (G21): its own newest row says so, or the newest for all issuers."""
    return f"""
coalesce((select bool_or(stopped) from (select distinct on (issuer_id) stopped from kill_switch
    where issuer_id = {issuer_id} or issuer_id is null order by issuer_id, id desc) newest), false)
"""


async def is_stopped(conn: Connection, issuer_id: int) -> bool:
    """See `stopped`."""
    return bool(await conn.fetchval(f"select {stopped('$1')}", issuer_id))


async def set_stopped(conn: Connection, issuer_id: int | None, *, stopped: bool, at: int, act_id: int) -> None:
    """Throws or releases the kill switch of one issuer, or of all (None)."""
    await conn.execute(
        "insert into kill_switch (issuer_id, stopped, at, act_id) values ($1, $2, $3, $4)",
        issuer_id,
        stopped,
        at,
        act_id,
    )


async def kill_switches(conn: Connection) -> list[dict[str, Any]]:
    """How each switch that was ever thrown stands: issuer (None: all), stopped, at (Unix seconds), actor, why."""
    rows = await conn.fetch(
        "select distinct on (k.issuer_id) i.name as issuer, k.stopped, k.at, a.actor,"
        " coalesce(a.subject->>'why', a.subject->'payload'->>'why') as why"
        " from kill_switch k join act a on a.id = k.act_id left join issuer i on i.id = k.issuer_id"
        " order by k.issuer_id nulls first, k.id desc"
    )
    return [dict(row) for row in rows]
