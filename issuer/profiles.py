"""Leaf certificate profiles: what the rules allow, as data, and the one builder of a leaf's TBSCertificate.

A configured profile names an issuer, a kind and a length; everything else stands here and cannot be configured away
(G25). The builder signs with a throw-away key: the twin is linted in the certificate's place (D47), and its
tbsCertificate, which differs from the real one in nothing, is what T1 commits and the CA signer may sign.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from quash.errors import Kind, QuashError
from quash.pki.rules import leaf_validity_limit

DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class LeafKind:
    """A kind of subscriber certificate: its reserved policy (D7) and the subject it needs (D5, D6).

    `may` are the attributes that enter the certificate; anything else of a request's subject stays out: OU, names of
    persons, commonName (D6, G26). Of each of `needs`, one attribute must be there.
    """

    policy: ObjectIdentifier
    may: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]]


KINDS: Final[Mapping[str, LeafKind]] = {
    "dv": LeafKind(ObjectIdentifier("2.23.140.1.2.1"), (), {}),
    "ov": LeafKind(
        ObjectIdentifier("2.23.140.1.2.2"),
        ("C", "ST", "L", "O"),
        {"organization": ("O",), "country": ("C",), "locality": ("ST", "L")},
    ),
}

SUBJECT_OIDS: Final[Mapping[str, ObjectIdentifier]] = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "CN": NameOID.COMMON_NAME,
}

_Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_SIGNERS: Final[Mapping[str, tuple[Callable[[], _SigningKey], _Digest]]] = {
    "ecdsa-p256-sha256": (lambda: ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
    "ecdsa-p384-sha384": (lambda: ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
    "ecdsa-p521-sha512": (lambda: ec.generate_private_key(ec.SECP521R1()), hashes.SHA512()),
    "rsa-sha256": (lambda: rsa.generate_private_key(65537, 2048), hashes.SHA256()),
    "rsa-sha384": (lambda: rsa.generate_private_key(65537, 2048), hashes.SHA384()),
    "rsa-sha512": (lambda: rsa.generate_private_key(65537, 2048), hashes.SHA512()),
}


@dataclass(frozen=True, slots=True)
class LeafIssuer:
    """What of an issuer stands in its leaves. `certificate`: DER, for name and key; algorithm as in quash.pki."""

    signature_algorithm: str
    certificate: bytes
    ocsp_url: str
    ca_issuers_url: str
    crl_url: str


@dataclass(frozen=True, slots=True)
class LeafContent:
    """What of a checked request enters the leaf: DER SPKI, DNS names, subject attributes by short name."""

    spki: bytes
    dns_names: tuple[str, ...]
    subject: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Validity:
    """notBefore and notAfter, Unix seconds; the certificate is valid in both (inclusive)."""

    not_before: int
    not_after: int


def validity(days: int, now: int, issuer_not_after: int) -> Validity:
    """From this second, without backdating (G33), for `days`, less where the rules of the day or the issuer end first.

    Where the dated limit (D2) cuts a configured length, one day stays between them: SHOULD NOT exceed 199, 99, 46 days.
    """
    limit = leaf_validity_limit(now)
    seconds = days * DAY if days * DAY <= limit else limit - DAY
    return Validity(now, min(now + seconds - 1, issuer_not_after))


def check_validity(chosen: Validity, now: int) -> None:
    """Raises when a certificate signed at `now` breaks D2 or D3: a resumed order may have crossed a date of D-4."""
    if chosen.not_after - chosen.not_before + 1 > leaf_validity_limit(now):
        raise QuashError(
            "validity.too_long", "the validity limit fell since this was ordered: order again", Kind.REFUSED
        )
    if not chosen.not_before <= now <= chosen.not_after:
        raise QuashError("validity.outside", "the certificate would not be valid now: order again", Kind.REFUSED)


def build_twin(kind: LeafKind, issuer: LeafIssuer, content: LeafContent, serial: bytes, valid: Validity) -> bytes:
    """The DER of the leaf as it will be (D1-D13), signed by a throw-away key of the issuer's algorithm."""
    subject = _subject(content.subject)
    issuer_certificate = x509.load_der_x509_certificate(issuer.certificate)
    builder = (
        x509.CertificateBuilder()
        .serial_number(int.from_bytes(serial, "big"))
        .issuer_name(issuer_certificate.subject)
        .not_valid_before(datetime.fromtimestamp(valid.not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(valid.not_after, UTC))
        .subject_name(subject)
        .public_key(_public_key(content.spki))
    )
    for value, critical in _extensions(kind, issuer, issuer_certificate, content, empty_subject=not content.subject):
        builder = builder.add_extension(value, critical)
    key, digest = throw_away_key(issuer.signature_algorithm)
    return builder.sign(key, digest).public_bytes(serialization.Encoding.DER)


def _extensions(
    kind: LeafKind,
    issuer: LeafIssuer,
    issuer_certificate: x509.Certificate,
    content: LeafContent,
    *,
    empty_subject: bool,
) -> list[tuple[x509.ExtensionType, bool]]:
    """D7 and D8. No SKI (not recommended), and only digitalSignature: right for RSA and EC keys alike.

    serverAuth alone (D10). SAN is critical iff the subject is empty, which it is for DV: no commonName (D5).
    """
    authority_key = issuer_certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    usage = dict.fromkeys(_KEY_USAGES, False) | {"digital_signature": True}
    return [
        (x509.KeyUsage(**usage), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.AuthorityKeyIdentifier(authority_key.digest, None, None), False),
        (
            x509.AuthorityInformationAccess(
                [
                    x509.AccessDescription(
                        AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(issuer.ocsp_url)
                    ),
                    x509.AccessDescription(
                        AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(issuer.ca_issuers_url)
                    ),
                ]
            ),
            False,
        ),
        (x509.SubjectAlternativeName([x509.DNSName(name) for name in content.dns_names]), empty_subject),
        (x509.CertificatePolicies([x509.PolicyInformation(kind.policy, None)]), False),
        (
            x509.CRLDistributionPoints(
                [x509.DistributionPoint([x509.UniformResourceIdentifier(issuer.crl_url)], None, None, None)]
            ),
            False,
        ),
    ]


_KEY_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _subject(attributes: Mapping[str, str]) -> x509.Name:
    """One attribute per RDN in the order of D13; pyca writes C as PrintableString and the others as UTF8String."""
    return x509.Name(
        [x509.NameAttribute(oid, attributes[key]) for key, oid in SUBJECT_OIDS.items() if key in attributes]
    )


def _public_key(spki: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """Narrows for the type checker what `quash.pki.rules.check_public_key` has let through (D40)."""
    key = serialization.load_der_public_key(spki)
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)  # noqa: S101
    return key


@functools.cache
def throw_away_key(algorithm: str) -> tuple[_SigningKey, _Digest]:
    """A key that signs twins, one per algorithm and process: its signature means nothing to anybody."""
    generate, digest = _SIGNERS[algorithm]
    return generate(), digest
