"""The one builder of a leaf's TBSCertificate, from its profile (`config/profiles`) and what was asked for.

The TBSCertificate is what T1 commits and the CA signer may sign; a twin of it, signed by a throw-away key, is
linted in the certificate's place (D47).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from issuer.signer import oids
from issuer.signer import tbs_writer as write
from issuer.signer.tbs_writer import Frame
from quash.errors import Kind, QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, algorithm_for_spki
from quash.pki.certificate import read_certificate
from quash.pki.names import build_name
from quash.pki.rules import EMAIL_VALIDITY, leaf_validity_limit
from quash.runtime.profiles import ProfileKind

DAY: Final = 86_400


SUBJECT_OIDS: Final[Mapping[str, ObjectIdentifier]] = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "organizationIdentifier": NameOID.ORGANIZATION_IDENTIFIER,
    "GN": NameOID.GIVEN_NAME,
    "SN": NameOID.SURNAME,
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
    """What of an issuer stands in its leaves. `certificate`: DER, for name and key; algorithm as in quash.pki.

    `ocsp_url` and `crl_url` are None where a profile points to no such thing (D4, A43).
    """

    signature_algorithm: str
    certificate: bytes
    ocsp_url: str | None
    ca_issuers_url: str
    crl_url: str | None


@dataclass(frozen=True, slots=True)
class LeafContent:
    """What of a checked request enters the leaf: DER SPKI, DNS names or mailboxes, subject by short name."""

    spki: bytes
    dns_names: tuple[str, ...]
    subject: Mapping[str, str]
    mailboxes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Validity:
    """notBefore and notAfter, Unix seconds; the certificate is valid in both (inclusive)."""

    not_before: int
    not_after: int


def validity(kind: ProfileKind, days: int, now: int, issuer_not_after: int) -> Validity:
    """From this second, without backdating (G33), for `days`, less where the rules of the day or the issuer end first.

    Where the dated limit (D2) cuts a configured length, one day stays between them: SHOULD NOT exceed 199, 99, 46 days.
    """
    limit = _limit(kind, now)
    seconds = days * DAY if days * DAY <= limit else limit - DAY
    return Validity(now, min(now + seconds - 1, issuer_not_after))


def _limit(kind: ProfileKind, now: int) -> int:
    return leaf_validity_limit(now) if kind.type == "tls" else EMAIL_VALIDITY


def check_validity(kind: ProfileKind, chosen: Validity, now: int) -> None:
    """Raises when a certificate signed at `now` breaks D2 or D3: a resumed order may have crossed a date of D-4."""
    if chosen.not_after - chosen.not_before + 1 > _limit(kind, now):
        raise QuashError(
            "validity.too_long", "the validity limit fell since this was ordered: order again", Kind.REFUSED
        )
    if not chosen.not_before <= now <= chosen.not_after:
        raise QuashError("validity.outside", "the certificate would not be valid now: order again", Kind.REFUSED)


def build_tbs(kind: ProfileKind, issuer: LeafIssuer, content: LeafContent, serial: bytes, valid: Validity) -> bytes:
    """The DER TBSCertificate of the leaf as it will be, without SCTs (D1-D13).

    Not by pyca's builder: that limits octets of UTF-8 where RFC 5280 limits characters, and knows no bytes (D19).
    """
    frame = Frame(
        serial=serial,
        algorithm=SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
        issuer=_subject(issuer.certificate),
        not_before=valid.not_before,
        not_after=valid.not_after,
        subject=build_name(content.subject),
        spki=content.spki,
    )
    return write.write_tbs(frame, *_extensions(kind, issuer, content))


def build_twin(tbs: bytes, algorithm: str) -> bytes:
    """A DER certificate around a TBS, signed by a throw-away key of this algorithm: what linters look at (D47)."""
    return sign_twin(tbs, algorithm, *throw_away_key(algorithm))


def sign_twin(tbs: bytes, algorithm: str, key: _SigningKey, digest: _Digest) -> bytes:
    """A DER certificate around a TBS, signed by a key that `throw_away_key` made."""
    signature = key.sign(tbs, padding.PKCS1v15(), digest) if isinstance(key, rsa.RSAPrivateKey) else None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(tbs, ec.ECDSA(digest))
    wanted = SIGNATURE_ALGORITHMS[algorithm]
    return write.write_certificate(tbs, wanted, wanted.decode(signature or b""))


def _extensions(kind: ProfileKind, issuer: LeafIssuer, content: LeafContent) -> list[bytes]:
    """D7, D8, D49. An SKI in S/MIME alone: TLS recommends none. SAN is critical iff the subject is empty (D5)."""
    ocsp = {"ocsp": issuer.ocsp_url} if issuer.ocsp_url is not None else {}
    points = [write.crl_distribution_point(issuer.crl_url)] if issuer.crl_url is not None else []
    family: Literal["rsa", "ec"] = "rsa" if algorithm_for_spki(content.spki).name.startswith("rsa") else "ec"
    return [
        write.key_usage(write.usage_bits(kind.usage[family])),
        write.extended_key_usage(*(oids.PURPOSES[purpose] for purpose in kind.purposes)),
        write.basic_constraints(write.NOT_CA),
        write.authority_key(_key_identifier(issuer.certificate)),
        write.authority_access(**ocsp, ca_issuers=issuer.ca_issuers_url),
        write.alternative_names(content.dns_names, content.mailboxes, critical=not content.subject),
        write.policy(kind.policy),
        *points,
        *([write.subject_key(write.key_identifier(content.spki))] if kind.type == "smime" else ()),
    ]


@functools.lru_cache(maxsize=256)
def _subject(certificate: bytes) -> bytes:
    """The name of an issuer, octet for octet as in its own certificate (D13)."""
    return read_certificate(certificate).subject


@functools.lru_cache(maxsize=256)
def _key_identifier(certificate: bytes) -> bytes:
    """The SKI of an issuer's certificate, which its leaves' AKI repeats (D7)."""
    extensions = x509.load_der_x509_certificate(certificate).extensions
    return extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


@functools.cache
def throw_away_key(algorithm: str) -> tuple[_SigningKey, _Digest]:
    """A key that signs twins, one per algorithm and process: its signature means nothing to anybody."""
    generate, digest = _SIGNERS[algorithm]
    return generate(), digest
