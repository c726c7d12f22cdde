"""Writing certificates of version 3: the frame that all share, and extensions by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from issuer.signer import oids
from quash.pki import der
from quash.pki.algorithms import SignatureAlgorithm
from quash.pki.certid import public_key_bits

CA, LAST_CA = bytes.fromhex("30030101ff"), bytes.fromhex("30060101ff020100")
"""BasicConstraints of any CA, and of one below which only leaves stand."""
NOT_CA: Final = bytes.fromhex("3000")
"""BasicConstraints of a leaf."""
KEY_CERT_SIGN_AND_CRL_SIGN, DIGITAL_SIGNATURE = bytes.fromhex("03020106"), bytes.fromhex("03020780")

_TRUE: Final = bytes.fromhex("0101ff")
_VERSION_3: Final = bytes.fromhex("a003020102")


@dataclass(frozen=True, slots=True)
class Frame:
    """What every certificate has. `serial`: content octets; names and `spki`: DER; times: Unix seconds, inclusive."""

    serial: bytes
    algorithm: SignatureAlgorithm
    issuer: bytes
    not_before: int
    not_after: int
    subject: bytes
    spki: bytes


def write_tbs(frame: Frame, *extensions: bytes) -> bytes:
    """DER TBSCertificate."""
    return der.tlv(
        der.SEQUENCE,
        _VERSION_3,
        der.tlv(der.INTEGER, frame.serial),
        frame.algorithm.identifier,
        frame.issuer,
        der.tlv(
            der.SEQUENCE,
            der.utc_or_generalized_time(frame.not_before),
            der.utc_or_generalized_time(frame.not_after),
        ),
        frame.subject,
        frame.spki,
        der.tlv(0xA3, der.tlv(der.SEQUENCE, *extensions)),
    )


def write_certificate(tbs: bytes, algorithm: SignatureAlgorithm, raw_signature: bytes) -> bytes:
    """DER Certificate around a TBSCertificate and its raw signature."""
    signature = der.tlv(der.BIT_STRING, b"\0", algorithm.encode(raw_signature))
    return der.tlv(der.SEQUENCE, tbs, algorithm.identifier, signature)


def key_identifier(spki: bytes) -> bytes:
    """RFC 7093 method 1: the leftmost 160 bits of the SHA-256 of the key. Not SHA-1, although it would do (G32)."""
    return hashlib.sha256(public_key_bits(spki)).digest()[:20]


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return der.tlv(der.SEQUENCE, der.oid(oid), _TRUE if critical else b"", der.tlv(der.OCTET_STRING, value))


def basic_constraints(value: bytes) -> bytes:
    return extension(oids.BASIC_CONSTRAINTS, value, critical=True)


def key_usage(bits: bytes) -> bytes:
    return extension(oids.KEY_USAGE, bits, critical=True)


def extended_key_usage(purpose: str) -> bytes:
    return extension(oids.EXTENDED_KEY_USAGE, der.tlv(der.SEQUENCE, der.oid(purpose)))


def subject_key(key_id: bytes) -> bytes:
    return extension(oids.SUBJECT_KEY_IDENTIFIER, der.tlv(der.OCTET_STRING, key_id))


def authority_key(key_id: bytes) -> bytes:
    return extension(oids.AUTHORITY_KEY_IDENTIFIER, der.tlv(der.SEQUENCE, der.tlv(0x80, key_id)))


def policy(oid: str) -> bytes:
    return extension(oids.CERTIFICATE_POLICIES, der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, der.oid(oid))))


def authority_access(**urls: str) -> bytes:
    """AuthorityInfoAccess of `ocsp` and `ca_issuers` URLs."""
    methods = {"ocsp": oids.AD_OCSP, "ca_issuers": oids.AD_CA_ISSUERS}
    return extension(
        oids.AUTHORITY_INFORMATION_ACCESS,
        der.tlv(
            der.SEQUENCE,
            *(
                der.tlv(der.SEQUENCE, der.oid(methods[method]), der.tlv(0x86, url.encode("ascii")))
                for method, url in urls.items()
            ),
        ),
    )


def alternative_names(names: Iterable[str], *, critical: bool) -> bytes:
    """SubjectAltName of DNS names, ASCII; critical iff the subject is empty (D7)."""
    general = (der.tlv(0x82, name.encode("ascii")) for name in names)
    return extension(oids.SUBJECT_ALT_NAME, der.tlv(der.SEQUENCE, *general), critical=critical)


def crl_distribution_point(url: str) -> bytes:
    return extension(oids.CRL_DISTRIBUTION_POINTS, distribution_points(url))


def distribution_points(url: str) -> bytes:
    """DER CRLDistributionPoints of one URL: one point, no reasons, no cRLIssuer (B17)."""
    name = der.tlv(0xA0, der.tlv(0xA0, der.tlv(0x86, url.encode("ascii"))))
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, name))
