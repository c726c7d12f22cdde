"""A small world for the presigner: an issuer with a delegated signer, made by pyca, and what a new node would know."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quash.cache import layout
from quash.cache.layout import Record
from quash.keys import KeyHandle, KeyUnavailable
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm, algorithm_for_spki
from quash.pki.certid import CertIdHash
from quash.pki.certificate import read_certificate
from quash.pki.ocsp_response import ResponseTemplate, Status
from quash.pki.serials import new_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Presign
from quash.store import buckets, certificates, issuers, ocsp_signers, outbox
from quash.store.database import Connection
from quash.store.issuers import Issuer
from quash.store.ocsp_signers import OcspSigner
from responder.presign.crl_origin import CrlOrigin
from responder.presign.desk import Desk, OpenKey
from responder.presign.presigner import Presigner

DAY = 86400
BUCKETS = 4
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def spki_of(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class MemoryKey:
    """A KeyHandle over a key in memory; `broken` makes it fail or lie, as a token may."""

    def __init__(self, key: PrivateKey, world: World) -> None:
        self.spki = spki_of(key)
        self.algorithm: SignatureAlgorithm = algorithm_for_spki(self.spki)
        self.quick = self.algorithm.name == "ecdsa-p256-sha256"
        self._key = key
        self._world = world

    def sign(self, tbs: bytes) -> bytes:
        if self._world.key_fault == "away":
            raise KeyUnavailable("the token was pulled out: put it back")
        tbs += b"!" * (self._world.key_fault == "lies")
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
        return self.algorithm.decode(self._key.sign(tbs, ec.ECDSA(hashes.SHA256())))

    def sign_many(self, many: Sequence[bytes]) -> list[bytes]:
        signed = [self.sign(tbs) for tbs in many]
        return signed[::-1] if self._world.key_fault == "mixed up" else signed

    def check(self) -> None:
        """What tries it signs."""

    def close(self) -> None:
        self._world.closed_keys += 1


def name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "XX"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Quash Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def moment(at: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at, dt.UTC)


@dataclass
class Authority:
    """An issuer with its keys, as the test holds them."""

    id: int
    name: str
    key: PrivateKey
    certificate: x509.Certificate
    signers: dict[int, x509.Certificate] = field(default_factory=dict)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


@dataclass
class World:
    """The database, the clock and the keys."""

    database: Any
    clock: FakeClock
    crl_folder: Path
    keys: dict[str, PrivateKey] = field(default_factory=dict)
    presigners: list[Presigner] = field(default_factory=list)
    key_fault: str = ""
    closed_keys: int = 0

    @property
    def now(self) -> int:
        return int(self.clock.now())

    def open_key(self, ref: str) -> KeyHandle:
        if ref not in self.keys:
            raise KeyUnavailable(f"no key at {ref}")
        return MemoryKey(self.keys[ref], self)

    def make_key(self, _: Issuer, last: OcspSigner, name: str) -> tuple[str, KeyHandle]:
        ref = f"pem:ocsp/{name}.pem"
        self.keys.setdefault(ref, ec.generate_private_key(ec.SECP256R1()))
        return ref, self.open_key(ref)

    def memory_key(self, key: PrivateKey) -> MemoryKey:
        return MemoryKey(key, self)

    async def presigner(
        self,
        *,
        clock: FakeClock | None = None,
        settings: Presign | None = None,
        crew: Desk | None = None,
        cache: Path | None = None,
        crl_origin: CrlOrigin | None = None,
        open_key: OpenKey | None = None,
    ) -> Presigner:
        """One more presigner process; the database's clock is the world's. `open_key`: of a machine of its own."""

        async def database_time(_: Connection) -> float:
            return self.clock.now()

        made = Presigner(
            await self.database.pool("quash_presigner"),
            open_key or self.open_key,
            clock or self.clock,
            settings or Presign(),
            self.crl_folder,
            make_key=self.make_key,
            crew=crew,
            crl_origin=crl_origin,
            cache=cache,
            database_time=database_time,
        )
        self.presigners.append(made)
        return made

    async def authority(
        self, label: str = "tls-dv", *, signer_days: int | None = 30, rsa_key: bool = False
    ) -> Authority:
        """Adds an issuer with buckets and, unless None, a delegated signer."""
        key: PrivateKey = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(name(label), key, name(label), key, days=3650, ca=True)
        async with self.database.owner.acquire() as conn, conn.transaction():
            added = await issuers.add(
                conn,
                name=label,
                kind="sub-ca",
                parent=None,
                subject=certificate.subject.public_bytes(),
                spki=spki_of(key),
                signature_algorithm=algorithm_for_spki(spki_of(key)).name,
                key_ref=None,
                ocsp_path=label,
                max_age=1800,
                bucket_count=BUCKETS,
                shard_count=0,
                profiles=[label],
                created_at=self.now,
            )
            await issuers.add_certificate(
                conn, added.id, certificate.public_bytes(Encoding.DER), self.now, self.now + 3650 * DAY
            )
            await buckets.add(conn, added.id, BUCKETS, self.now)
            await outbox.add_issuer(conn, added.id)
        made = Authority(added.id, label, key, certificate)
        if signer_days is not None:
            await self.signer(made, days=signer_days)
        return made

    async def signer(self, authority: Authority, *, days: float = 30, seconds: int | None = None) -> int:
        """Adds a delegated signer; its certificate ends after `days` less one second, or after `seconds`."""
        key: PrivateKey = (
            rsa.generate_private_key(65537, 2048)
            if isinstance(authority.key, rsa.RSAPrivateKey)
            else ec.generate_private_key(ec.SECP256R1())
        )
        lasts = seconds if seconds is not None else int(days * DAY) - 1
        certificate = self._certificate(
            name(f"{authority.name} OCSP"), key, name(authority.name), authority.key, seconds=lasts, ocsp=True
        )
        ref = f"pem:ocsp/{authority.name}-{len(self.keys)}.pem"
        self.keys[ref] = key
        async with self.database.owner.acquire() as conn, conn.transaction():
            added = await ocsp_signers.add(
                conn,
                issuer_id=authority.id,
                certificate=certificate.public_bytes(Encoding.DER),
                key_ref=ref,
                signature_algorithm=algorithm_for_spki(spki_of(key)).name,
                not_before=self.now,
                not_after=self.now + lasts,
                created_at=self.now,
            )
            await outbox.add_signer(conn, authority.id)
        authority.signers[added.id] = certificate
        return added.id

    async def reserve(self, authority: Authority, *, days: int = 199, lane: int = outbox.URGENT) -> bytes:
        """Commits a serial, as T1 does."""
        serial = new_serial()
        async with self.database.owner.acquire() as conn, conn.transaction():
            await certificates.reserve(
                conn,
                issuer_id=authority.id,
                serial=serial,
                profile="tls-dv",
                tbs=b"tbs",
                spki_sha256=hashlib.sha256(serial).digest(),
                ski=None,
                not_before=self.now,
                not_after=self.now + days * DAY - 1,
                shard=None,
                bucket=certificates.bucket_of(serial, BUCKETS),
                order_id=None,
                created_at=self.now,
            )
            await outbox.add_certificates(conn, [(authority.id, serial)], lane=lane)
        return serial

    async def complete(
        self, authority: Authority, serial: bytes, *, by: Authority | None = None, as_serial: bytes | None = None
    ) -> None:
        """Gives it a certificate, as T3 does; by another issuer's key or for another serial where the test says so."""
        der = self.leaf(by or authority, as_serial or serial)
        async with self.database.owner.acquire() as conn, conn.transaction():
            await certificates.complete(conn, authority.id, serial, der)
            await outbox.add_certificates(conn, [(authority.id, serial)])

    async def issue(self, authority: Authority, *, days: int = 199) -> bytes:
        serial = await self.reserve(authority, days=days)
        await self.complete(authority, serial)
        return serial

    async def imported(self, authority: Authority, count: int, *, days: int = 199) -> list[bytes]:
        """Rows of an import without files, announced by bucket."""
        serials = [new_serial() for _ in range(count)]
        async with self.database.owner.acquire() as conn, conn.transaction():
            await conn.executemany(
                "insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)"
                " values ($1, $2, 'imported', 'imported', $3, $4, $5)",
                [
                    (authority.id, s, self.now + days * DAY - 1, certificates.bucket_of(s, BUCKETS), self.now)
                    for s in serials
                ],
            )
            await outbox.add_buckets(conn, authority.id, range(BUCKETS))
        return serials

    async def revoke(
        self, authority: Authority, serial: bytes, reason: int = 1, *, at: int | None = None, announce: bool = True
    ) -> None:
        """One more version of a revocation, as flow 2 commits it."""
        async with self.database.owner.acquire() as conn, conn.transaction():
            await self.revoke_in(conn, authority, serial, reason, at=at)
            if announce:
                await outbox.add_certificates(conn, [(authority.id, serial)])

    async def revoke_signer(self, authority: Authority, signer_id: int) -> None:
        """The certificate of a delegated signer, which gets its row with that."""
        serial = read_certificate(authority.signers[signer_id].public_bytes(Encoding.DER)).serial
        await self.database.owner.execute(
            "insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)"
            " values ($1, $2, 'imported', 'imported', $3, 0, 0)",
            authority.id,
            serial,
            self.now + DAY,
        )
        await self.revoke(authority, serial)

    async def revoke_in(
        self, conn: Connection, authority: Authority, serial: bytes, reason: int = 1, *, at: int | None = None
    ) -> None:
        act_id = await conn.fetchval(
            "insert into act (at, actor, action, subject) values ($1, 'test', 'revoke', '{}') returning id", self.now
        )
        await conn.execute(
            "insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id)"
            " select $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5, $6 from revocation"
            " where issuer_id = $1 and serial = $2",
            authority.id,
            serial,
            reason,
            self.now if at is None else at,
            self.now,
            act_id,
        )

    async def feed(self, kind: str) -> list[bytes]:
        """Payloads of one kind, in no particular order."""
        rows = await self.database.owner.fetch("select payload from feed where kind = $1", kind)
        return [row["payload"] for row in rows]

    async def cache(self) -> dict[tuple[int, bytes], Record]:
        """What a node that starts now would serve: the maximum of all records in the feed."""
        greatest: dict[tuple[int, bytes], bytes] = {}
        for payload in await self.feed("records"):
            for issuer_id, serial, record in layout.decode_batch(payload):
                key = (issuer_id, serial)
                if layout.record_order(record) > layout.record_order(greatest.get(key, bytes(7))):
                    greatest[key] = record
        return {key: layout.decode_record(record) for key, record in greatest.items()}

    async def answer(self, authority: Authority, serial: bytes, h: CertIdHash = CertIdHash.SHA256) -> bytes:
        """The OCSPResponse that a node would send, assembled from the feed alone."""
        record = (await self.cache())[authority.id, serial]
        templates = {row.signer_id: row for row in map(layout.decode_template, await self.feed("template"))}
        row = templates[record.signer_id]
        template = ResponseTemplate(
            issuer_subject=authority.certificate.subject.public_bytes(),
            issuer_spki=spki_of(authority.key),
            signer_certificate=row.certificate,
            algorithm=SIGNATURE_ALGORITHMS[row.algorithm],
        )
        return template.response(
            h,
            serial,
            Status(record.reason, record.revoked_at),
            record.this_update,
            record.next_update,
            record.signatures[h is CertIdHash.SHA256],
        )

    def leaf(self, authority: Authority, serial: bytes) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._certificate(
            name("leaf"), key, name(authority.name), authority.key, days=199, serial=int.from_bytes(serial, "big")
        )
        return made.public_bytes(Encoding.DER)

    def _certificate(
        self,
        subject: x509.Name,
        key: PrivateKey,
        issuer: x509.Name,
        issuer_key: PrivateKey,
        *,
        days: int = 0,
        seconds: int | None = None,
        serial: int | None = None,
        ca: bool = False,
        ocsp: bool = False,
    ) -> x509.Certificate:
        lasts = days * DAY - 1 if seconds is None else seconds
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(moment(self.now))
            .not_valid_after(moment(self.now + lasts))
        )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        if ocsp:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False)
            builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())


@pytest.fixture
async def world(database: Any, clock: FakeClock, tmp_path: Path) -> AsyncIterator[World]:
    """A database without issuers, and a clock that the database's own agrees with."""
    made = World(database, clock, tmp_path)
    yield made
    for presigner in made.presigners:
        await presigner.close()


@pytest.fixture
def hour_by_hour(world: World) -> Callable[[Presigner, int], Awaitable[None]]:
    """Lets a presigner live through hours, one step each."""

    async def live(presigner: Presigner, hours: int) -> None:
        for _ in range(hours):
            await world.clock.advance(3600)
            await presigner.step()

    return live
