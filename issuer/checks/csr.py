"""Reading a certificate signing request: what it asks for, as it stands there, from bytes that deserve no trust."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from issuer.profiles import SUBJECT_OIDS
from quash.errors import Kind, QuashError
from quash.pki import der

MAX_OCTETS: Final = 32 * 1024
"""Of the DER: room for the largest key and a hundred long names."""

_DIGESTS: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_EXTENSION_REQUESTS: Final = ("1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14")  # PKCS #9's, and Microsoft's
# All that pyca raises about octets that it cannot or will not read.
_UNREADABLE: Final = (
    *(ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension),
    *(x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)
_SHORT_NAMES: Final[Mapping[x509.ObjectIdentifier, str]] = {oid: short for short, oid in SUBJECT_OIDS.items()}


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """What a request asks for. Its signature is good; names and subject are not yet judged.

    `spki` is DER; `subject` has every value of the attributes that we know, by short name, in order.
    """

    spki: bytes
    alternative_names: tuple[x509.GeneralName, ...]
    subject: tuple[tuple[str, str], ...]


def decode(text: str) -> bytes:
    """DER of a request given as PEM or as the base64 of its DER.

    Raises `csr.private_key` (D46: nobody's comes in here), `csr.malformed`, `csr.too_large`.
    """
    if "PRIVATE KEY-----" in text:
        raise QuashError("csr.private_key", "this is a private key, which nobody else may have: make a new one (D46)")
    if len(text) > 2 * MAX_OCTETS:
        raise _too_large()
    body = "".join(line for line in text.splitlines() if not line.startswith("-----"))
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("it is neither PEM nor base64") from None
    if len(data) > MAX_OCTETS:
        raise _too_large()
    return data


def public_key(data: bytes) -> bytes:
    """The DER SPKI of a request, unread: it is checked before anything else, so that no odd key costs us arithmetic."""
    try:
        return _spki(data)
    except QuashError as error:
        raise _malformed(error.message) from None


def read(data: bytes) -> SigningRequest:
    """Parses DER and checks digest (G32) and signature, once the key (`public_key`) has passed its own checks.

    Raises `csr.malformed`, `csr.weak_digest`, `csr.bad_signature`.
    """
    spki = public_key(data)
    try:
        request = x509.load_der_x509_csr(data)
        _check_attributes(request)
        subject = tuple((_SHORT_NAMES[a.oid], str(a.value)) for a in request.subject if a.oid in _SHORT_NAMES)
        names = _alternative_names(request)
    except _UNREADABLE as error:
        raise _malformed(str(error)) from None
    _check_signature(request)
    return SigningRequest(spki, names, subject)


def _spki(data: bytes) -> bytes:
    """CertificationRequest: SEQUENCE { SEQUENCE { version, subject, SPKI, [0] attributes }, algorithm, signature }."""
    start, end = der.only(data, der.SEQUENCE)
    start, end = der.expect(data, start, der.SEQUENCE, end)
    _, offset = der.expect(data, start, der.INTEGER, end)
    _, offset = der.expect(data, offset, der.SEQUENCE, end)
    _, stop = der.expect(data, offset, der.SEQUENCE, end)
    return data[offset:stop]


def _check_attributes(request: x509.CertificateSigningRequest) -> None:
    """Which of two sets of names is asked for nobody could say."""
    if sum(each.oid.dotted_string in _EXTENSION_REQUESTS for each in request.attributes) > 1:
        raise ValueError("extensions are requested twice")


def _alternative_names(request: x509.CertificateSigningRequest) -> tuple[x509.GeneralName, ...]:
    try:
        return tuple(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def _check_signature(request: x509.CertificateSigningRequest) -> None:
    """The asker holds the key. SHA-1 and MD5 prove nothing, and pyca would not verify them."""
    try:
        digest = request.signature_hash_algorithm
    except UnsupportedAlgorithm:
        digest = None
    if not isinstance(digest, _DIGESTS):
        raise QuashError("csr.weak_digest", "sign the request with SHA-256, SHA-384 or SHA-512 (G32)", Kind.REFUSED)
    if not request.is_signature_valid:
        raise QuashError("csr.bad_signature", "the request's signature does not fit its key: make it again")


def _malformed(why: str) -> QuashError:
    return QuashError("csr.malformed", f"not a PKCS#10 request ({why}): send PEM or base64 of DER")


def _too_large() -> QuashError:
    return QuashError("csr.too_large", f"a request has at most {MAX_OCTETS} octets")
