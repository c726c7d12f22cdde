"""A small world for flow 2: issuers with their keys, certificates as rows, and the rights of the real roles."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from issuer.revocation.find import Target
from issuer.revocation.revoke import Request, Revoked, revoke
from quash.pki.reasons import Reason
from quash.pki.serials import new_serial
from quash.runtime.clock import FakeClock
from quash.store import issuers, revocations
from quash.store.database import Pool, acquire
from quash.store.revocations import Revocation

DAY = 86400
ACTOR = "operator:test"
Key = tuple[int, bytes]


@dataclass(frozen=True)
class Authority:
    """An issuer as the test holds it."""

    id: int
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def spki_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_hash() -> bytes:
    """The SHA-256 of some SPKI."""
    return secrets.token_bytes(32)


def self_signed(name: str, clock: FakeClock) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A CA key and certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.fromtimestamp(clock.now(), dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


@dataclass
class World:
    """`owner` makes rows that other flows would make; `pool` has the rights of the admin API."""

    clock: FakeClock
    owner: Pool
    pool: Pool
    authorities: dict[str, Authority]

    @property
    def now(self) -> int:
        return int(self.clock.now())

    async def certificate(
        self,
        issuer: str = "alpha",
        *,
        serial: bytes | None = None,
        spki: bytes | None = None,
        state: str = "issued",
        not_after: int | None = None,
        der: bytes | None = None,
        shard: int | None = None,
    ) -> Key:
        """Adds a certificate, of a key of its own unless `spki` (a SHA-256) says otherwise."""
        key = (self.authorities[issuer].id, serial or new_serial())
        await self.owner.execute(
            "insert into certificate (issuer_id, serial, state, profile, der, spki_sha256, not_before, not_after,"
            " shard, bucket, created_at) values ($1, $2, $3, 'test', $4, $5, $6, $7, $8, 0, $6)",
            *key,
            state,
            der,
            spki,
            self.now - DAY,
            self.now + 90 * DAY if not_after is None else not_after,
            shard,
        )
        return key

    async def leaf(self, issuer: str = "alpha", key: ec.EllipticCurvePrivateKey | None = None) -> x509.Certificate:
        """A real certificate, with its row."""
        authority = self.authorities[issuer]
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.fromtimestamp(self.now, dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(authority.certificate.subject)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(new_serial(), "big"))
            .not_valid_before(now)
            .not_valid_after(now + dt.timedelta(days=90))
            .sign(authority.key, hashes.SHA256())
        )
        spki = hashlib.sha256(spki_of(key)).digest()
        serial = certificate.serial_number.to_bytes(16, "big")
        await self.certificate(issuer, serial=serial, spki=spki, der=certificate.public_bytes(Encoding.DER))
        return certificate

    async def revoke(
        self,
        key: Key,
        reason: Reason = Reason.unspecified,
        *,
        revoked_at: int | None = None,
        batch: int = 1000,
        dry_run: bool = False,
    ) -> Revoked:
        """Flow 2 for one certificate, as the admin API's role."""
        target = Target(self.name_of(key[0]), key[1])
        async with acquire(self.pool) as conn:
            return await revoke(
                conn, self.clock, Request(target, reason, revoked_at), actor=ACTOR, batch=batch, dry_run=dry_run
            )

    def name_of(self, issuer_id: int) -> str:
        return next(each.name for each in self.authorities.values() if each.id == issuer_id)

    async def history(self, key: Key) -> list[Revocation]:
        async with acquire(self.pool) as conn:
            return await revocations.history(conn, *key)

    async def counts(self) -> dict[str, int]:
        """Rows of each table that flow 2 writes."""
        tables = ("revocation", "act", "blocked_key", "outbox", "job")
        return {table: await self.owner.fetchval(f"select count(*) from {table}") for table in tables}

    async def news(self) -> set[Key]:
        rows = await self.owner.fetch("select issuer_id, serial from outbox where kind = 'certificate'")
        return {(row["issuer_id"], row["serial"]) for row in rows}


async def make_world(database: Any, clock: FakeClock, role: str) -> World:
    """Issuers `alpha` and `beta` (sub-CAs) and `top` (a root whose key is offline), each with a full CRL scope."""
    authorities = {}
    for name, kind, key_ref in (("top", "root", None), ("alpha", "sub-ca", "pem:a"), ("beta", "sub-ca", "pem:b")):
        key, certificate = self_signed(name, clock)
        async with acquire(database.owner) as conn:
            issuer = await issuers.add(
                conn,
                name=name,
                kind=kind,
                parent=None,
                subject=certificate.subject.public_bytes(),
                spki=spki_of(key),
                signature_algorithm="ecdsa-p256-sha256",
                key_ref=key_ref,
                ocsp_path=name,
                max_age=1800,
                bucket_count=4,
                shard_count=0,
                profiles=[],
                created_at=int(clock.now()),
            )
            await issuers.add_certificate(
                conn,
                issuer.id,
                certificate.public_bytes(Encoding.DER),
                int(certificate.not_valid_before_utc.timestamp()),
                int(certificate.not_valid_after_utc.timestamp()),
            )
            await conn.execute(
                "insert into crl_scope (issuer_id, scope, url, path, idp) values ($1, 'full', $2, $3, false)",
                issuer.id,
                f"http://crl.example/{name}.crl",
                f"{name}.crl",
            )
        authorities[name] = Authority(issuer.id, name, key, certificate)
    return World(clock, database.owner, await database.pool(role), authorities)
