"""Delegated OCSP signers (A13-A17). Their ids stand in records, so a row is never deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from quash.pki.certificate import read_certificate
from quash.store.database import Connection

State = Literal["active", "retiring", "retired"]


@dataclass(frozen=True, slots=True)
class OcspSigner:
    """One delegated signer: `certificate` is DER, issued by the issuer itself; times are Unix seconds.

    active: signs new answers. retiring: answers of its making are still served. retired: none is.
    """

    id: int
    issuer_id: int
    certificate: bytes
    key_ref: str
    signature_algorithm: str
    not_before: int
    not_after: int
    state: State
    created_at: int


_COLUMNS = "id, issuer_id, certificate, key_ref, signature_algorithm, not_before, not_after, state, created_at"


async def add(
    conn: Connection,
    *,
    issuer_id: int,
    certificate: bytes,
    key_ref: str,
    signature_algorithm: str,
    not_before: int,
    not_after: int,
    created_at: int,
) -> OcspSigner:
    """Adds an active signer."""
    row = await conn.fetchrow(
        "insert into ocsp_signer (issuer_id, certificate, key_ref, signature_algorithm, not_before, not_after, state,"
        f" created_at) values ($1, $2, $3, $4, $5, $6, 'active', $7) returning {_COLUMNS}",
        issuer_id,
        certificate,
        key_ref,
        signature_algorithm,
        not_before,
        not_after,
        created_at,
    )
    return OcspSigner(**row)


async def of_issuer(conn: Connection, issuer_id: int) -> list[OcspSigner]:
    """Every signer that an issuer ever had, oldest first."""
    rows = await conn.fetch(
        f"select {_COLUMNS} from ocsp_signer where issuer_id = $1 order by id",
        issuer_id,
    )
    return [OcspSigner(**row) for row in rows]


async def in_service(conn: Connection) -> list[OcspSigner]:
    """Every signer, of any issuer, whose answers may still be served: active and retiring ones, oldest first."""
    rows = await conn.fetch(f"select {_COLUMNS} from ocsp_signer where state <> 'retired' order by id")
    return [OcspSigner(**row) for row in rows]


async def revoked(conn: Connection, signers: Sequence[OcspSigner]) -> frozenset[int]:
    """The ids of those whose certificate is revoked."""
    rows = await conn.fetch(
        "select s.id from unnest($1::smallint[], $2::smallint[], $3::bytea[]) as s (id, issuer_id, serial)"
        " where exists (select from revocation r where r.issuer_id = s.issuer_id and r.serial = s.serial)",
        [signer.id for signer in signers],
        [signer.issuer_id for signer in signers],
        [read_certificate(signer.certificate).serial for signer in signers],
    )
    return frozenset(row["id"] for row in rows)


async def newest(conn: Connection) -> dict[int, OcspSigner]:
    """The signer that each issuer was given last, whatever its state."""
    rows = await conn.fetch(f"select distinct on (issuer_id) {_COLUMNS} from ocsp_signer order by issuer_id, id desc")
    return {row["issuer_id"]: OcspSigner(**row) for row in rows}


async def retire_expired(conn: Connection, now: int) -> int:
    """Retires replaced signers whose certificates have ended: nothing of theirs is served any more (A5)."""
    result = await conn.execute(
        "update ocsp_signer set state = 'retired' where state = 'retiring' and not_after < $1", now
    )
    return int(result.rpartition(" ")[2])


async def set_state(conn: Connection, signer_id: int, state: State) -> None:
    """Moves a signer along active, retiring, retired."""
    await conn.execute("update ocsp_signer set state = $2 where id = $1", signer_id, state)
