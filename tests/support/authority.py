"""CAs and OCSP signers made by pyca alone, so that what reads our octets was not written by what wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm
from quash.pki.certificate import CertificateFields, read_certificate
from quash.pki.ocsp_response import ResponseTemplate

NOW = 1_795_262_400  # 2026-11-21T12:00:00Z
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KINDS = (
    "ecdsa-p256-sha256",
    "ecdsa-p384-sha384",
    "ecdsa-p521-sha512",
    "rsa-sha256",
    "rsa-sha384",
    "rsa-sha512",
    "ed25519",
)
_CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
_HASHES: dict[str, hashes.HashAlgorithm | None] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "": None,
}


@lru_cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    """One of a few RSA keys that the whole session shares: making them is slow."""
    return rsa.generate_private_key(65537, 2048)


def new_key(algorithm: SignatureAlgorithm, number: int) -> PrivateKey:
    """A key that signs with this algorithm."""
    if algorithm.name == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.raw_size is None:
        return rsa_key(number)
    return ec.generate_private_key(_CURVES[algorithm.name.split("-")[1]])


def sign(key: PrivateKey, algorithm: SignatureAlgorithm, data: bytes) -> bytes:
    """The raw signature, as a key handle returns it."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    digest = _HASHES[algorithm.hash_name]
    assert digest is not None
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), digest)
    return algorithm.decode(key.sign(data, ec.ECDSA(digest)))


def subject(common_name: str) -> x509.Name:
    """A CA's or OCSP signer's name (A17, D15)."""
    values = {
        NameOID.COUNTRY_NAME: "TN",
        NameOID.ORGANIZATION_NAME: "Autorité d'essai",
        NameOID.COMMON_NAME: common_name,
    }
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in values.items()])


@dataclass(frozen=True)
class Authority:
    """A CA with a delegated OCSP signer, both of one algorithm."""

    algorithm: SignatureAlgorithm
    key: PrivateKey
    certificate: x509.Certificate
    signer_key: PrivateKey
    signer: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def fields(self) -> CertificateFields:
        return read_certificate(self.der)

    @property
    def key_identifier(self) -> bytes:
        return self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest

    @property
    def template(self) -> ResponseTemplate:
        return ResponseTemplate(
            issuer_subject=self.fields.subject,
            issuer_spki=self.fields.spki,
            signer_certificate=self.signer.public_bytes(Encoding.DER),
            algorithm=self.algorithm,
        )

    def with_signer(self, **changes: object) -> Authority:
        """The same CA with another OCSP signer certificate: see `signer_certificate`."""
        return replace(self, signer=signer_certificate(self.certificate, self.key, self.signer_key, **changes))


def _builder(name: x509.Name, issuer: x509.Name, key: PrivateKey, days: int) -> x509.CertificateBuilder:
    start = datetime.fromtimestamp(NOW - 3600, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(**on: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


def ca_certificate(key: PrivateKey, digest: hashes.HashAlgorithm | None) -> x509.Certificate:
    """A self-signed CA certificate of ten years."""
    name = subject("Essai CA 1")
    return (
        _builder(name, name, key, 3650)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, digest)
    )


def signer_certificate(
    ca: x509.Certificate,
    ca_key: PrivateKey,
    key: PrivateKey,
    *,
    days: int = 30,
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.OCSP_SIGNING,),
    nocheck: bool = True,
) -> x509.Certificate:
    """A delegated OCSP signer's certificate (A13 to A17), or one with a fault that a test asks for."""
    built = (
        _builder(subject("Essai CA 1 OCSP"), ca.subject, key, days)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)
        .add_extension(_usage(digital_signature=True), critical=True)
    )
    if usages:
        built = built.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
    if nocheck:
        built = built.add_extension(x509.OCSPNoCheck(), critical=False)
    return built.sign(ca_key, ca.signature_hash_algorithm)


@lru_cache
def authority(kind: str, number: int = 0) -> Authority:
    """The CA of this kind, made once; another `number` is another CA of the same name."""
    algorithm = SIGNATURE_ALGORITHMS[kind]
    key, signer_key = new_key(algorithm, 2 * number), new_key(algorithm, 2 * number + 1)
    certificate = ca_certificate(key, _HASHES[algorithm.hash_name])
    return Authority(algorithm, key, certificate, signer_key, signer_certificate(certificate, key, signer_key))


@contextmanager
def refuses_only(code: str) -> Iterator[None]:
    """Passes over this one refusal: for properties whose input may be refused, and with nothing but this code."""
    try:
        yield
    except QuashError as error:
        if error.code != code:
            raise
