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

_USAGE_BITS: Final = (
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
)
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


def usage_bits(names: Iterable[str]) -> bytes:
    """KeyUsage of bits by their names in RFC 5280, as DER wants a named BIT STRING: no trailing zeros."""
    bits = sum(0x80 >> _USAGE_BITS.index(name) for name in names)
    unused = (bits & -bits).bit_length() - 1
    return der.tlv(der.BIT_STRING, bytes([unused, bits]))


def extended_key_usage(*purposes: str) -> bytes:
    return extension(oids.EXTENDED_KEY_USAGE, der.tlv(der.SEQUENCE, *map(der.oid, purposes)))


def subject_key(key_id: bytes) -> bytes:
    return extension(oids.SUBJECT_KEY_IDENTIFIER, der.tlv(der.OCTET_STRING, key_id))


def authority_key(key_id: bytes) -> bytes:
    return extension(oids.AUTHORITY_KEY_IDENTIFIER, der.tlv(der.SEQUENCE, der.tlv(0x80, key_id)))


def policy(*dotted: str) -> bytes:
    return extension(
        oids.CERTIFICATE_POLICIES, der.tlv(der.SEQUENCE, *(der.tlv(der.SEQUENCE, der.oid(oid)) for oid in dotted))
    )


def name_constraints(value: bytes) -> bytes:
    """Critical, although D16 only recommends it: who does not know them must not trust the CA."""
    return extension(oids.NAME_CONSTRAINTS, value, critical=True)


def last_but(path_length: int) -> bytes:
    """BasicConstraints of a CA below which so many CAs may stand before a leaf."""
    return der.tlv(der.SEQUENCE, _TRUE, der.integer(path_length))


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


def alternative_names(names: Iterable[str], mailboxes: Iterable[str] = (), *, critical: bool) -> bytes:
    """SubjectAltName of DNS names and mailboxes, ASCII; critical iff the subject is empty (D7)."""
    general = [der.tlv(0x82, name.encode("ascii")) for name in names]
    general += [der.tlv(0x81, mailbox.encode("ascii")) for mailbox in mailboxes]
    return extension(oids.SUBJECT_ALT_NAME, der.tlv(der.SEQUENCE, *general), critical=critical)


def crl_distribution_point(url: str) -> bytes:
    return extension(oids.CRL_DISTRIBUTION_POINTS, distribution_points(url))


def distribution_points(url: str) -> bytes:
    """DER CRLDistributionPoints of one URL: one point, no reasons, no cRLIssuer (B17)."""
    name = der.tlv(0xA0, der.tlv(0xA0, der.tlv(0x86, url.encode("ascii"))))
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, name))
