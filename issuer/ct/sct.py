"""Signed certificate timestamps (RFC 6962 3.2, 3.3): their octets, what a log signs, and the proof that it did (E7).

Version 1, embedded: those of RFC 9162 nobody uses (E10), and in OCSP responses nobody reads them any more (E11).
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from quash.errors import Kind, QuashError

_SHA256: Final = 4
_RSA, _ECDSA = 1, 3
_X509_ENTRY, _PRECERT_ENTRY = 0, 1
_HEAD: Final = struct.Struct(">B32sQ")
_ID: Final = 32
_MOST: Final = 2048
"""Octets of a log's extensions, and of its signature: many times what any has, and what a certificate can carry."""


@dataclass(frozen=True, slots=True)
class Sct:
    """One SCT of version 1. `timestamp`: milliseconds; `extensions` stay as they came (E5)."""

    log_id: bytes
    timestamp: int
    extensions: bytes
    hash_algorithm: int
    signature_algorithm: int
    signature: bytes

    def encode(self) -> bytes:
        """SignedCertificateTimestamp."""
        return b"".join(
            (
                _HEAD.pack(0, self.log_id, self.timestamp),
                _vector(self.extensions),
                bytes((self.hash_algorithm, self.signature_algorithm)),
                _vector(self.signature),
            )
        )


def read_signature(octets: bytes) -> tuple[int, int, bytes]:
    """Hash, signature algorithm and signature of a DigitallySigned. Raises `sct.malformed`."""
    if len(octets) < 4 or int.from_bytes(octets[2:4], "big") != len(octets) - 4:
        raise _malformed("the signature's length")
    return octets[0], octets[1], octets[4:]


def read_answer(body: bytes) -> Sct:
    """What a log answers to a submission (RFC 6962 4.1, 4.2), as JSON. Raises `sct.malformed`, whatever it is."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _malformed("not JSON") from None
    if not isinstance(answer, dict) or type(answer.get("sct_version")) is not int or answer["sct_version"] != 0:
        raise _malformed("not an object of version 1")
    timestamp = answer.get("timestamp")
    if type(timestamp) is not int or not 0 <= timestamp < 1 << 64:
        raise _malformed("timestamp")
    log_id, extensions, signature = (_base64(answer, each) for each in ("id", "extensions", "signature"))
    if len(log_id) != _ID:
        raise _malformed("id")
    return Sct(log_id, timestamp, extensions, *read_signature(signature))


def _base64(answer: dict[str, Any], name: str) -> bytes:
    """A field's octets; one that is not there is empty."""
    text = answer.get(name) or ""
    if not isinstance(text, str):
        raise _malformed(name)
    try:
        octets = base64.b64decode(text, validate=True)
    except ValueError:
        raise _malformed(name) from None
    if len(octets) > _MOST:
        raise _malformed(f"{name} has more than {_MOST} octets")
    return octets


def decode(octets: bytes) -> Sct:
    """Reads a SignedCertificateTimestamp. Raises `sct.malformed`."""
    if len(octets) < _HEAD.size + 2 or octets[0] != 0:
        raise _malformed("version or length")
    _, log_id, timestamp = _HEAD.unpack_from(octets)
    end = _HEAD.size + 2 + int.from_bytes(octets[_HEAD.size : _HEAD.size + 2], "big")
    hash_algorithm, signature_algorithm, signature = read_signature(octets[end:])
    return Sct(log_id, timestamp, octets[_HEAD.size + 2 : end], hash_algorithm, signature_algorithm, signature)


def encode_list(scts: Sequence[Sct]) -> bytes:
    """SignedCertificateTimestampList."""
    return _vector(b"".join(_vector(each.encode()) for each in scts))


def decode_list(octets: bytes) -> list[Sct]:
    """Reads a SignedCertificateTimestampList. Raises `sct.malformed`."""
    if int.from_bytes(octets[:2], "big") != len(octets) - 2:
        raise _malformed("the list's length")
    found, offset = [], 2
    while offset < len(octets):
        end = offset + 2 + int.from_bytes(octets[offset : offset + 2], "big")
        if end > len(octets):
            raise _malformed("an entry's length")
        found.append(decode(octets[offset + 2 : end]))
        offset = end
    return found


def certificate_entry(certificate: bytes) -> bytes:
    """What a log signs of a final certificate (DER): all of it (RFC 6962 3.1)."""
    return struct.pack(">H", _X509_ENTRY) + len(certificate).to_bytes(3, "big") + certificate


def precertificate_entry(issuer_spki: bytes, tbs: bytes) -> bytes:
    """What a log signs of a precertificate: `tbs` without poison and SCT list, and the hash of the issuer's key."""
    hashed = hashlib.sha256(issuer_spki).digest()
    return struct.pack(">H", _PRECERT_ENTRY) + hashed + len(tbs).to_bytes(3, "big") + tbs


def signed_data(sct: Sct, entry: bytes) -> bytes:
    """What the log signed, with one of the entries above."""
    return struct.pack(">BBQ", 0, 0, sct.timestamp) + entry + _vector(sct.extensions)


def verify(sct: Sct, log_spki: bytes, entry: bytes) -> None:
    """Raises `sct.signature` unless the log with this key (DER SPKI) signed this entry (E7)."""
    key, data = _key(log_spki), signed_data(sct, entry)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and _algorithms(sct) == (_SHA256, _ECDSA):
            key.verify(sct.signature, data, ec.ECDSA(hashes.SHA256()))
            return
        if isinstance(key, rsa.RSAPublicKey) and _algorithms(sct) == (_SHA256, _RSA):
            key.verify(sct.signature, data, padding.PKCS1v15(), hashes.SHA256())
            return
    except InvalidSignature:
        pass
    raise QuashError("sct.signature", "the SCT's signature does not verify: the log is not used", Kind.UNAVAILABLE)


@lru_cache(maxsize=256)  # of so many logs
def _key(spki: bytes) -> object:
    return load_der_public_key(spki)


def leaf_index(extensions: bytes) -> int | None:
    """The index that a static-ct log promises in its SCT (E5): extension type 0, 40 bits. None: there is none."""
    offset = 0
    while offset + 3 <= len(extensions):
        kind, size = extensions[offset], int.from_bytes(extensions[offset + 1 : offset + 3], "big")
        if kind == 0 and size == 5 and offset + 8 <= len(extensions):
            return int.from_bytes(extensions[offset + 3 : offset + 8], "big")
        offset += 3 + size
    return None


def _algorithms(sct: Sct) -> tuple[int, int]:
    return sct.hash_algorithm, sct.signature_algorithm


def _vector(octets: bytes) -> bytes:
    if len(octets) > 0xFFFF:
        raise _malformed("more than 65535 octets")
    return len(octets).to_bytes(2, "big") + octets


def _malformed(what: str) -> QuashError:
    return QuashError("sct.malformed", f"this is no SCT of version 1: {what}: the log is not used", Kind.UNAVAILABLE)
