"""What CA keys signed, recorded before the bytes leave the CA signer. Append-only.

A certificate is logged with its DER: a crash after the row loses nothing, and the same request gets the same bytes
again. A CRL is logged by its number, which is so spent for ever (B7).
"""

from __future__ import annotations

from dataclasses import dataclass

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """One logged certificate: the SHA-256 of the TBS that was signed, and the whole DER."""

    tbs_sha256: bytes
    der: bytes


async def find_certificate(conn: Connection, issuer_id: int, serial: bytes, kind: str) -> SignedCertificate | None:
    """What was signed for a serial; `kind` is certificate or precertificate."""
    row = await conn.fetchrow(
        "select tbs_sha256, der from signing_log where issuer_id = $1 and serial = $2 and kind = $3",
        issuer_id,
        serial,
        kind,
    )
    return SignedCertificate(**row) if row else None


async def add_certificate(
    conn: Connection, *, at: int, kind: str, issuer_id: int, serial: bytes, tbs_sha256: bytes, der: bytes
) -> bool:
    """Logs a certificate; False: another signer logged one for this serial first, and only that one may be used."""
    added = await conn.fetchval(
        "insert into signing_log (at, kind, issuer_id, serial, tbs_sha256, der) values ($1, $2, $3, $4, $5, $6)"
        " on conflict do nothing returning true",
        at,
        kind,
        issuer_id,
        serial,
        tbs_sha256,
        der,
    )
    return bool(added)


async def last_crl_number(conn: Connection, issuer_id: int, scope: str) -> int | None:
    """The greatest CRL number that was ever signed for a scope; None: none was."""
    number = await conn.fetchval(
        "select max(number) from signing_log where issuer_id = $1 and scope = $2 and kind = 'crl'", issuer_id, scope
    )
    return None if number is None else int(number)


async def add_crl(conn: Connection, *, at: int, issuer_id: int, scope: str, number: int, tbs_sha256: bytes) -> bool:
    """Logs a CRL; False: this number of the scope is spent (B7)."""
    added = await conn.fetchval(
        "insert into signing_log (at, kind, issuer_id, scope, number, tbs_sha256) values ($1, 'crl', $2, $3, $4, $5)"
        " on conflict do nothing returning true",
        at,
        issuer_id,
        scope,
        number,
        tbs_sha256,
    )
    return bool(added)
