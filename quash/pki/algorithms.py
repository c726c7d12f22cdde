"""Signature algorithms: their exact AlgorithmIdentifier octets (D9, A18) and the two forms of an ECDSA signature.

A raw signature is r||s of fixed size for ECDSA, as PKCS#11 makes it and the cache keeps it; for every other algorithm
it is the octets of the BIT STRING themselves. SHA-1 is absent, on purpose (G32).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from quash.errors import Kind, QuashError
from quash.pki import der


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """One way to sign.

    `identifier`: DER AlgorithmIdentifier. `hash_name`: what to hash the message with first ("" when the algorithm does
    that itself, Ed25519). `raw_size`: octets of r||s for ECDSA; None where raw and encoded form are the same.
    """

    name: str
    identifier: bytes
    hash_name: str
    raw_size: int | None

    def encode(self, raw: bytes) -> bytes:
        """The octets that belong into the BIT STRING: ECDSA-Sig-Value for r||s, else `raw` itself."""
        if self.raw_size is None:
            return raw
        if len(raw) != self.raw_size:
            raise _invalid(f"{len(raw)} octets where r||s has {self.raw_size}")
        half = self.raw_size >> 1
        r, s = raw[:half], raw[half:]
        if r[0] and s[0]:  # nearly always, except on P-521; this runs for each answer
            before, between = _SIG_VALUE_HEADS[half, r[0] >> 7, s[0] >> 7]
            return b"".join((before, r, between, s))
        r, s = r.lstrip(b"\0"), s.lstrip(b"\0")
        if not r or not s:
            raise _invalid("r or s is zero")
        return der.tlv(der.SEQUENCE, der.integer(int.from_bytes(r, "big")), der.integer(int.from_bytes(s, "big")))

    def decode(self, encoded: bytes) -> bytes:
        """The raw form of what stands in a BIT STRING; refuses an ECDSA-Sig-Value that is not strict DER."""
        if self.raw_size is None:
            return encoded
        half = self.raw_size >> 1
        r = 5 if encoded[1:2] == b"\x81" else 4
        s = r + int.from_bytes(encoded[r - 1 : r], "big") + 2
        raw = encoded[r : s - 2].lstrip(b"\0").rjust(half, b"\0") + encoded[s:].lstrip(b"\0").rjust(half, b"\0")
        # Cut without looking, because this runs for each signature made; that it encodes back proves the rest.
        if len(raw) != self.raw_size or self.encode(raw) != encoded:
            raise _invalid("the ECDSA-Sig-Value is not DER of r and s in range")
        return raw


def _sig_value_head(half: int, r_high: int, s_high: int) -> tuple[bytes, bytes]:
    """What stands before r and before s in an ECDSA-Sig-Value of full size; `high`: its first bit is set."""
    r, s = (der.tlv(der.INTEGER, bytes(high) + bytes(half)) for high in (r_high, s_high))
    return der.tlv(der.SEQUENCE, r, s)[: -len(r) - len(s)] + r[: 2 + r_high], s[: 2 + s_high]


_SIG_VALUE_HEADS = {key: _sig_value_head(*key) for key in itertools.product((32, 48, 66), (0, 1), (0, 1))}


def _invalid(what: str) -> QuashError:
    return QuashError("signature.invalid", f"the signature does not verify: {what}", Kind.REFUSED)


_IDENTIFIERS = {  # name: (AlgorithmIdentifier, hash, octets of r||s)
    "ecdsa-p256-sha256": ("300a06082a8648ce3d040302", "sha256", 64),
    "ecdsa-p384-sha384": ("300a06082a8648ce3d040303", "sha384", 96),
    "ecdsa-p521-sha512": ("300a06082a8648ce3d040304", "sha512", 132),
    "rsa-sha256": ("300d06092a864886f70d01010b0500", "sha256", None),
    "rsa-sha384": ("300d06092a864886f70d01010c0500", "sha384", None),
    "rsa-sha512": ("300d06092a864886f70d01010d0500", "sha512", None),
    "ed25519": ("300506032b6570", "", None),
}
SIGNATURE_ALGORITHMS: Mapping[str, SignatureAlgorithm] = MappingProxyType(
    {
        name: SignatureAlgorithm(name, bytes.fromhex(identifier), hash_name, raw_size)
        for name, (identifier, hash_name, raw_size) in _IDENTIFIERS.items()
    }
)

_BY_KEY = {  # AlgorithmIdentifier of the SubjectPublicKeyInfo (D9) -> the algorithm its key signs with
    bytes.fromhex("300d06092a864886f70d0101010500"): "rsa-sha256",
    bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107"): "ecdsa-p256-sha256",
    bytes.fromhex("301006072a8648ce3d020106052b81040022"): "ecdsa-p384-sha384",
    bytes.fromhex("301006072a8648ce3d020106052b81040023"): "ecdsa-p521-sha512",
    bytes.fromhex("300506032b6570"): "ed25519",
}


def algorithm_for_spki(spki: bytes) -> SignatureAlgorithm:
    """The algorithm that a key signs with by default (A18: curve and hash belong together; RSA: SHA-256).

    Raises `key.type_not_allowed` unless the AlgorithmIdentifier is byte for byte one of D9.
    """
    start, end = der.only(spki, der.SEQUENCE)
    _, after = der.expect(spki, start, der.SEQUENCE, end)
    name = _BY_KEY.get(spki[start:after])
    if name is None:
        raise QuashError("key.type_not_allowed", "use an RSA key or a named curve P-256, P-384 or P-521", Kind.REFUSED)
    return SIGNATURE_ALGORITHMS[name]


_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_CURVES = {"ecdsa-p256-sha256": "secp256r1", "ecdsa-p384-sha384": "secp384r1", "ecdsa-p521-sha512": "secp521r1"}


@lru_cache(maxsize=256)
def _verifier(spki: bytes, algorithm: SignatureAlgorithm) -> Callable[[bytes, bytes], None]:
    """(encoded signature, data) -> None; kept, because loading a key costs as much as a verification."""
    key = load_der_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey) and algorithm.name.startswith("rsa-"):
        return lambda signature, data: key.verify(signature, data, padding.PKCS1v15(), _HASHES[algorithm.hash_name])
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == _CURVES.get(algorithm.name):
        return lambda signature, data: key.verify(signature, data, ec.ECDSA(_HASHES[algorithm.hash_name]))
    if isinstance(key, ed25519.Ed25519PublicKey) and algorithm.name == "ed25519":
        return key.verify
    raise _invalid(f"this key does not sign with {algorithm.name}")


def verify(spki: bytes, algorithm: SignatureAlgorithm, raw_signature: bytes, data: bytes) -> None:
    """Returns when `raw_signature` over `data` is by the key of `spki`; else raises `signature.invalid`."""
    try:
        check = _verifier(spki, algorithm)
    except (ValueError, UnsupportedAlgorithm):
        raise _invalid("the public key cannot be read") from None
    try:
        check(algorithm.encode(raw_signature), data)
    except InvalidSignature:
        raise _invalid("it is by another key or over other data") from None
