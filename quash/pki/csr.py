"""Certification requests (PKCS#10, RFC 2986): how whoever makes a key proves to an issuer that it holds it.

Built from octets with any key handle's signature; read back by pyca alone, as a stranger does.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.algorithms import SignatureAlgorithm

_VERSION_1 = bytes.fromhex("020100")
_NO_ATTRIBUTES = bytes.fromhex("a000")


def request_info(subject: bytes, spki: bytes) -> bytes:
    """DER CertificationRequestInfo of a DER Name and SubjectPublicKeyInfo, without attributes: what is signed."""
    return der.tlv(der.SEQUENCE, _VERSION_1, subject, spki, _NO_ATTRIBUTES)


def certification_request(info: bytes, algorithm: SignatureAlgorithm, raw_signature: bytes) -> bytes:
    """DER CertificationRequest around its info and the raw signature over it."""
    signature = der.tlv(der.BIT_STRING, b"\0", algorithm.encode(raw_signature))
    return der.tlv(der.SEQUENCE, info, algorithm.identifier, signature)


def proven_key(request: bytes) -> bytes:
    """The DER SubjectPublicKeyInfo of a request whose own signature verifies; raises `csr.malformed`, `csr.not_proven`.

    It says nothing of whether the key is a good one (`quash.pki.rules.check_public_key`).
    """
    try:
        read = x509.load_der_x509_csr(request)
        proven = read.is_signature_valid
        spki = read.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise QuashError("csr.malformed", f"not a certification request: {error}") from None
    if not proven:
        raise QuashError("csr.not_proven", "the request's signature does not fit its key", Kind.REFUSED)
    return spki
