"""A CA in a database, with a software key behind the CA signer's protocol, and a builder that works for it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from pkilint import loader, pkix
from pkilint.cabf import cabf_crl
from pkilint.pkix import crl as pkix_crl
from pkilint.pkix import extension, name
from pkilint.validation import ValidationFindingSeverity

from crlgen.build.builder import CrlBuilder
from crlgen.publish.folder import FolderPublisher, Publisher
from quash.errors import QuashError
from quash.pki.algorithms import SignatureAlgorithm, algorithm_for_spki
from quash.pki.crl import Crl, certificate_list, read_crl, read_entry, tbs_cert_list
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.store import crl_entries, crls, issuers, revocations
from quash.store.database import Connection, acquire

DAY = 86_400
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass
class Ca:
    """One issuer: its row, key and certificate."""

    id: int
    name: str
    key: Key
    certificate: x509.Certificate
    algorithm: SignatureAlgorithm

    def sign(self, tbs: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
        return self.algorithm.decode(self.key.sign(tbs, ec.ECDSA(hashes.SHA256())))

    @property
    def key_id(self) -> bytes:
        return x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()).digest

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def new_key(kind: str) -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def self_signed(key: Key, subject: x509.Name, now: float) -> x509.Certificate:
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = {n: n in ("key_cert_sign", "crl_sign") for n in _KEY_USAGES}
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now - DAY, UTC))
        .not_valid_after(datetime.fromtimestamp(now + 3000 * DAY, UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(ski, critical=False)
        .sign(key, hashes.SHA256())
    )


_KEY_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


class SoftwareSigner:
    """The CA signer's protocol over keys in this process; it refuses a number that does not rise, as the real one."""

    def __init__(self) -> None:
        self.cas: dict[int, Ca] = {}
        self.signed: list[tuple[str, int]] = []
        self.tamper: Callable[[bytes], bytes] | None = None
        self.fail: QuashError | None = None

    async def sign_crl(self, issuer_id: int, scope: str, tbs: bytes) -> bytes:
        if self.fail is not None:
            raise self.fail
        ca = self.cas[issuer_id]
        raw = ca.sign(tbs)
        crl = read_crl(certificate_list(tbs, ca.algorithm, raw))
        assert all(crl.number > number for name, number in self.signed if name == f"{ca.name}/{scope}")
        self.signed.append((f"{ca.name}/{scope}", crl.number))
        return self.tamper(raw) if self.tamper else raw


@dataclass
class Bench:
    """Everything a test of the builder needs; times are those of its clock."""

    database: Any
    clock: FakeClock
    folder: Path
    config: Config
    signer: SoftwareSigner = field(default_factory=SoftwareSigner)
    builder: CrlBuilder = field(init=False)
    pool: Any = None
    _serial: int = 0x1000

    async def crash(self) -> CrlBuilder:
        """The builder's process dies: its sessions end without a word; then it is started anew."""
        self.pool.terminate()
        self.pool = None
        return await self.start()

    async def start(self, publisher: Publisher | None = None, **arguments: Any) -> CrlBuilder:
        """A new builder, as after a restart of its process."""
        if self.pool is not None:
            await self.builder.close()
        self.pool = await self.database.pool("quash_crl_builder")
        self.publisher = publisher or FolderPublisher(self.folder)
        self.builder = CrlBuilder(self.pool, self.signer, self.publisher, self.clock, self.config, **arguments)
        return self.builder

    async def issuer(self, name: str = "ca", *, shards: int = 0, key: str = "ec", key_ref: str | None = "pem:x") -> Ca:
        private = new_key(key)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Quash test {name}")])
        certificate = self_signed(private, subject, self.clock.now())
        spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        algorithm = algorithm_for_spki(spki)
        async with acquire(self.database.owner) as conn, conn.transaction():
            row = await issuers.add(
                conn, name=name, kind="sub-ca", parent=None, subject=subject.public_bytes(), spki=spki,
                signature_algorithm=algorithm.name, key_ref=key_ref, ocsp_path=name, max_age=1800, bucket_count=1,
                shard_count=shards, profiles=(), created_at=int(self.clock.now()),
            )  # fmt: skip
            der = certificate.public_bytes(Encoding.DER)
            await issuers.add_certificate(conn, row.id, der, 0, int(self.clock.now()) + 3000 * DAY)
            await self._scope(conn, row.id, name, "full", None)
            for shard in range(shards):
                await self._scope(conn, row.id, name, str(shard), shard)
        ca = Ca(row.id, name, private, certificate, algorithm)
        self.signer.cas[row.id] = ca
        return ca

    async def _scope(self, conn: Connection, issuer_id: int, name: str, scope: str, shard: int | None) -> None:
        path = f"{name}.crl" if shard is None else f"{name}/{shard}.crl"
        url = f"http://crl.example.test/{path}"
        await crls.add_scope(
            conn, issuer_id=issuer_id, scope=scope, shard=shard, url=url, path=path, idp=shard is not None
        )

    async def limit(self, ca: Ca) -> None:
        """Gives its full CRL the IDP that it must have beside shards (B14)."""
        async with acquire(self.database.owner) as conn:
            scope = await crls.find_scope(conn, ca.id, None)
            assert scope is not None
            await crls.limit(conn, scope)

    async def certificate(self, ca: Ca, *, not_after: float | None = None, shard: int | None = None) -> bytes:
        self._serial += 1
        serial = b"\x01" + hashlib.sha256(self._serial.to_bytes(4, "big")).digest()[:15]
        await self.database.owner.execute(
            "insert into certificate (issuer_id, serial, state, profile, not_after, shard, bucket, created_at)"
            " values ($1, $2, 'imported', 'x', $3, $4, 0, 0)",
            ca.id, serial, int(not_after if not_after is not None else self.clock.now() + 90 * DAY), shard,
        )  # fmt: skip
        return serial

    async def revoke(
        self, ca: Ca, serial: bytes, reason: int = 4, *, at: float | None = None, conn: Connection | None = None
    ) -> None:
        if conn is None:
            async with acquire(self.database.owner) as own, own.transaction():
                return await self.revoke(ca, serial, reason, at=at, conn=own)
        now = int(self.clock.now())
        act = await conn.fetchval(
            "insert into act (at, actor, action, subject) values ($1, 'test', 'revoke', '{}') returning id", now
        )
        before = await revocations.latest(conn, ca.id, serial)
        shard = await conn.fetchval("select shard from certificate where issuer_id = $1 and serial = $2", ca.id, serial)
        date = int(at) if at is not None else before.revoked_at if before else now
        version = before.version + 1 if before else 1
        row = revocations.Revocation(ca.id, serial, version, reason, date, now, shard, act)
        await revocations.add(conn, [row])
        return None

    async def revoked(self, ca: Ca, reason: int = 4, **arguments: Any) -> bytes:
        """A new certificate, revoked."""
        serial = await self.certificate(ca, **arguments)
        await self.revoke(ca, serial, reason)
        return serial

    def crl(self, ca: Ca, number: int, entries: Iterable[bytes] = ()) -> bytes:
        """A CRL as a command makes it with a key that is offline."""
        at = int(self.clock.now())
        tbs = tbs_cert_list(
            algorithm=ca.algorithm, issuer=ca.certificate.subject.public_bytes(), this_update=at,
            next_update=at + 100 * DAY, entries=entries, authority_key_id=ca.key_id, number=number, idp_urls=(),
            only=None,
        )  # fmt: skip
        return certificate_list(tbs, ca.algorithm, ca.sign(tbs))

    async def command_publishes(self, ca: Ca) -> bytes:
        """`quash root crl`: what is revoked now, recorded and put into the folder; returns the file."""
        async with acquire(self.database.owner) as conn, conn.transaction(isolation="repeatable_read"):
            scope = await crls.find_scope(conn, ca.id, None)
            assert scope is not None
            listing, covers = await crl_entries.listing(conn, scope, None), await crl_entries.snapshot(conn)
            number = 1 + await conn.fetchval(
                "select coalesce(max(number), 0)::int from crl where issuer_id = $1", ca.id
            )
            body, now = self.crl(ca, number, [listing.encoded]), int(self.clock.now())
            await crls.reserve(
                conn, scope, number=number, this_update=now, next_update=now + 100 * DAY, entries=listing.count,
                covers=covers, scheduled=True,
            )  # fmt: skip
            await crls.signed(conn, scope, number, hashlib.sha256(body).digest(), len(body))
        place = FolderPublisher(self.folder)
        await place.put(scope.path, body, await place.head(scope.path))
        async with acquire(self.database.owner) as conn:
            await crls.published(conn, scope, number, now)
        return body

    async def settle(self, seconds: float = 3.0) -> int:
        """Lets bursts and pauses pass, and steps before and after."""
        done = await self.builder.step()
        await self.clock.advance(seconds)
        return done + await self.builder.step()

    def path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str = "ca.crl") -> Crl:
        return read_crl(self.path(name).read_bytes())

    def listed(self, name: str = "ca.crl") -> dict[bytes, tuple[int, int]]:
        """serial -> (date, reason) of a published CRL."""
        return {s: (at, reason) for s, at, reason in map(read_entry, self.read(name).entries)}


def lint(body: bytes) -> list[str]:
    """What pkilint's CRL linter, BR profile, says above notice."""
    kind = pkix_crl.CertificateRevocationListType.CRL
    validator = pkix_crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            pkix_crl.create_issuer_validator_container([]),
            pkix_crl.create_validity_validator_container([cabf_crl.create_validity_period_validator(kind)]),
            pkix_crl.create_extensions_validator_container([]),
            cabf_crl.CabfCrlReasonCodeAllowlistValidator(kind),
        ],
    )
    document = loader.RFC5280CertificateListDocumentLoader().load_der_document(body, "crl")
    results = validator.validate(document.root)
    assert results
    return [
        f"{found.finding.severity.name} {found.finding.code} {found.message}"
        for result in results
        for found in result.finding_descriptions
        if found.finding.severity < ValidationFindingSeverity.NOTICE
    ]


def openssl(*arguments: str, body: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Runs openssl; the caller judges its exit status."""
    return subprocess.run(["openssl", *arguments], input=body, capture_output=True, check=False)
