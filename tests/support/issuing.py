"""A small hierarchy in a real database, its CA signer, and a responder that says what a test lets it say."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from issuer.checks.keys import KeyCheck
from issuer.checks.lint import Linting, no_linting
from issuer.checks.registries import Registries
from issuer.issuance.issue import Issuance
from issuer.issuance.means import Answers, Logging, SignCertificate
from issuer.signer.key_ring import KeyRing
from issuer.signer.service import CaSigner
from quash.keys import KeyHandle
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm, algorithm_for_spki
from quash.pki.certid import CertIdHash
from quash.pki.ocsp_request import parse_request
from quash.pki.ocsp_response import ERRORS, ResponseTemplate, Status
from quash.pki.rules import check_public_key
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.store import crls, issuers
from quash.store.database import Pool
from quash.store.issuers import Issuer

DAY = 86_400
OCSP_BASE, CRL_BASE = "http://ocsp.quash.example.org", "http://crl.quash.example.org"
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

ISSUERS = (
    {"name": "root", "kind": "root", "key": "ec-p384", "days": 3652},
    {"name": "tls-dv", "kind": "sub-ca", "parent": "root", "key": "ec-p256", "days": 1095, "policy": "dv", "shards": 4},
    {"name": "tls-ov", "kind": "sub-ca", "parent": "root", "key": "rsa-2048", "days": 1095, "policy": "ov"},
)


@cache
def private_key(name: str) -> PrivateKey:
    """One key of each name for the whole run: making RSA keys takes longer than most tests."""
    if name == "tls-ov" or name.startswith("rsa"):
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP384R1() if name == "root" else ec.SECP256R1())


def spki_of(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class SoftwareKey:
    """A `KeyHandle` in memory."""

    key: PrivateKey
    spki: bytes = field(init=False)
    algorithm: SignatureAlgorithm = field(init=False)
    quick: bool = field(init=False)

    def __post_init__(self) -> None:
        self.spki = spki_of(self.key)
        self.algorithm = algorithm_for_spki(self.spki)
        self.quick = self.algorithm.name == "ecdsa-p256-sha256"

    def sign(self, tbs: bytes) -> bytes:
        digest = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}[self.algorithm.hash_name]
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(tbs, padding.PKCS1v15(), digest)
        return self.algorithm.decode(self.key.sign(tbs, ec.ECDSA(digest)))

    def sign_many(self, many: Sequence[bytes]) -> list[bytes]:
        return [self.sign(tbs) for tbs in many]

    def check(self) -> None:
        """It is always there."""

    def close(self) -> None:
        """Nothing is open."""


def _open(issuer: Issuer) -> KeyHandle:
    return SoftwareKey(private_key(issuer.name))


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "TN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Quash Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def ca_certificate(name: str, signer: str, now: float, days: int) -> bytes:
    """DER of a CA certificate by D14 and D15, as far as leaves and responses look at it."""
    key, signing = private_key(name), private_key(signer)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(f"Quash Test {name}"))
        .issuer_name(_name(f"Quash Test {signer}"))
        .serial_number(x509.random_serial_number())
        .public_key(key.public_key())
        .not_valid_before(datetime.fromtimestamp(now - 3600, UTC))
        .not_valid_after(datetime.fromtimestamp(now + days * DAY, UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None if name == signer else 0), True)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), False)
    )
    if name != signer:
        policy = x509.ObjectIdentifier(f"2.23.140.1.2.{1 if name == 'tls-dv' else 2}")
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        builder = builder.add_extension(x509.CertificatePolicies([x509.PolicyInformation(policy, None)]), False)
    return builder.sign(signing, hashes.SHA256()).public_bytes(Encoding.DER)


def make_config(config: Config, **issuance: Any) -> Config:
    """`config` with this module's issuers and profiles."""
    subjects = [{"C": "TN", "O": "Quash Test", "CN": f"Quash Test {each['name']}"} for each in ISSUERS]
    return Config.model_validate(
        config.model_dump()
        | {
            "issuers": [each | {"subject": subject} for each, subject in zip(ISSUERS, subjects, strict=True)],
            "profiles": [
                {"name": "tls-dv", "issuer": "tls-dv", "kind": "dv"},
                {"name": "tls-ov", "issuer": "tls-ov", "kind": "ov"},
            ],
            "issuance": {"require_validation": False, **issuance},
            "ct": {"required": bool(issuance.get("require_validation"))},
            "responder": {"base_url": OCSP_BASE},
            "crl_origin": {"base_url": CRL_BASE},
        }
    )


async def add_hierarchy(owner: Pool, clock: Clock) -> dict[str, Issuer]:
    """Writes issuers, their certificates and CRL scopes; returns the issuers by name."""
    made: dict[str, Issuer] = {}
    now = int(clock.now())
    async with owner.acquire() as conn, conn.transaction():
        for each in ISSUERS:
            name, parent, shards = str(each["name"]), str(each.get("parent", each["name"])), int(each.get("shards", 0))
            spki = spki_of(private_key(name))
            der = ca_certificate(name, parent, now, int(each["days"]))
            made[name] = issuer = await issuers.add(
                conn,
                name=name,
                kind=str(each["kind"]),
                parent=made[parent].id if parent in made else None,
                subject=x509.load_der_x509_certificate(der).subject.public_bytes(),
                spki=spki,
                signature_algorithm=algorithm_for_spki(spki).name,
                key_ref=None if name == "root" else f"memory:{name}",
                ocsp_path=name,
                max_age=1800,
                bucket_count=16,
                shard_count=shards,
                profiles=[] if name == "root" else [name],
                created_at=now,
            )
            await issuers.add_certificate(conn, issuer.id, der, now - 3600, now + int(each["days"]) * DAY)
            await _add_scopes(conn, issuer, shards)
    return made


async def _add_scopes(conn: Any, issuer: Issuer, shards: int) -> None:
    for shard in (None, *range(shards)):
        scope = "full" if shard is None else str(shard)
        path = f"{issuer.name}.crl" if shard is None else f"{issuer.name}/{shard}.crl"
        await crls.add_scope(
            conn,
            issuer_id=issuer.id,
            scope=scope,
            shard=shard,
            url=f"{CRL_BASE}/{path}",
            path=path,
            idp=shard is not None,
        )


def make_csr(
    names: Sequence[str] = ("www.example.org",),
    *,
    key: PrivateKey | None = None,
    subject: Sequence[tuple[x509.ObjectIdentifier, str]] = (),
    others: Sequence[x509.GeneralName] = (),
) -> str:
    """PEM of a request; names are taken as they are, rules or no rules."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    )
    general = [*(x509.DNSName._init_without_validation(name) for name in names), *others]
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


OV_SUBJECT = (
    (NameOID.COUNTRY_NAME, "TN"),
    (NameOID.LOCALITY_NAME, "Tunis"),
    (NameOID.ORGANIZATION_NAME, "Société d'Essai"),
)


class Responder:
    """A real HTTP responder, signed by the issuers' own keys. It answers for what `says` maps, and to `hashes` only."""

    def __init__(self, hierarchy: dict[str, Issuer], certificates: dict[str, bytes], clock: Clock) -> None:
        self.says: dict[bytes, Status] = {}
        self.hashes = {CertIdHash.SHA1, CertIdHash.SHA256}
        self.age = 0
        self.mangle: Callable[[bytes], bytes] = bytes
        self.requests = 0
        self.url = ""
        self._clock = clock
        self._templates = {
            name: ResponseTemplate(
                issuer_subject=issuer.subject,
                issuer_spki=issuer.spki,
                signer_certificate=certificates[name],
                algorithm=SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
            )
            for name, issuer in hierarchy.items()
        }

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.requests += 1
        _, name, encoded = request.raw_path.split("/", 2)
        (cert_id,) = parse_request(base64.b64decode(unquote(encoded))).cert_ids
        assert cert_id is not None
        body = self.mangle(self._answer(name, cert_id.hash, cert_id.serial))
        return web.Response(body=body, content_type="application/ocsp-response")

    def _answer(self, name: str, algorithm: CertIdHash, serial: bytes) -> bytes:
        if serial not in self.says or algorithm not in self.hashes:
            return ERRORS["unauthorized"]
        template, status, at = self._templates[name], self.says[serial], int(self._clock.now()) - self.age
        arguments = (algorithm, serial, status, at, at + 2 * DAY - 1)
        raw = SoftwareKey(private_key(name)).sign(template.tbs(*arguments))
        return template.response(*arguments, raw)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Responder]:
        runner = web.ServerRunner(web.Server(self.handle))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()


async def key_rules(spki: bytes) -> None:
    """A `KeyCheck` that knows D40 and D41 alone: most tests of flow 1 need no two seconds of linters and primes."""
    check_public_key(spki)


class Everywhere:
    """`Answers` of a public that sees every certificate at once."""

    async def good(self, issuer: Issuer, issuer_certificate: bytes, serial: bytes) -> bool:
        return True


@dataclass
class World:
    """What tests of flow 1 share. `issuance` makes the use case anew, as a restart does."""

    config: Config
    clock: Clock
    owner: Pool
    pool: Pool
    hierarchy: dict[str, Issuer]
    signer: CaSigner

    def issuance(
        self,
        *,
        pool: Pool | None = None,
        config: Config | None = None,
        clock: Clock | None = None,
        sign: SignCertificate | None = None,
        answers: Answers | None = None,
        linting: Linting = no_linting,
        check_key: KeyCheck = key_rules,
        logging: Logging | None = None,
        registries: Registries | None = None,
        passed: Callable[[str], Awaitable[None]] | None = None,
    ) -> Issuance:
        more = {"passed": passed} if passed is not None else {}
        return Issuance(
            pool=pool or self.pool,
            config=config or self.config,
            clock=clock or self.clock,
            sign=sign or self.signer.sign_certificate,
            answers=answers or Everywhere(),
            linting=linting,
            check_key=check_key,
            logging=logging,
            registries=registries,
            **more,
        )

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """Looks into the database as its owner."""
        async with self.owner.acquire() as conn:
            return list(await conn.fetch(sql, *arguments))

    async def certificate_of(self, issuer: str) -> bytes:
        async with self.owner.acquire() as conn:
            found = await issuers.certificate(conn, self.hierarchy[issuer].id)
        assert found is not None
        return found.der


def key_ring() -> KeyRing:
    return KeyRing(_open)
