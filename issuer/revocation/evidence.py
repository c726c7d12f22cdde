"""Proof that a private key is in the wrong hands (C14): what is handed in is hostile until it verifies. Pure.

Accepted: the private key itself, or a certification request or JWS that it signed over a challenge of ours. A request
without our challenge proves nothing: its owner may have published it. Of a private key only its SPKI and a signature
made with it are kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from quash.errors import Kind, QuashError
from quash.store.key_evidence import Evidence

CHALLENGE: Final = re.compile(r"quash-compromise-[0-9a-f]{40}")
MAX_OCTETS: Final = 32 * 1024
_MAX_RSA: Final = 8192  # bits: more costs us arithmetic and nobody's certificate has it
_STATEMENT: Final = b"quash: whoever signed this holds the private key of the SPKI with SHA-256 "
_DIGESTS: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_PUBLIC_LABELS: Final = ("BEGIN PUBLIC KEY", "BEGIN RSA PUBLIC KEY", "BEGIN CERTIFICATE-----")

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

# JWS alg (RFC 7518) -> (key type, hash, octets of r and of s, curve)
_JWS: Final[Mapping[str, tuple[type, hashes.HashAlgorithm, int, str]]] = {
    "RS256": (rsa.RSAPublicKey, hashes.SHA256(), 0, ""),
    "RS384": (rsa.RSAPublicKey, hashes.SHA384(), 0, ""),
    "RS512": (rsa.RSAPublicKey, hashes.SHA512(), 0, ""),
    "ES256": (ec.EllipticCurvePublicKey, hashes.SHA256(), 32, "secp256r1"),
    "ES384": (ec.EllipticCurvePublicKey, hashes.SHA384(), 48, "secp384r1"),
    "ES512": (ec.EllipticCurvePublicKey, hashes.SHA512(), 66, "secp521r1"),
}


def from_private_key(text: str) -> Evidence:
    """An unencrypted private key in PEM. Raises `evidence.*`; nothing of the key is kept or logged."""
    body = _sized(text)
    if any(label in text for label in _PUBLIC_LABELS):
        raise _refused("public_half", "this is the public half: send the private key, or a proof by it")
    try:
        # Whether RSA numbers are prime takes the library seconds at 8192 bits, and for ever at what somebody may make
        # up. `_check_numbers` and the signature below tell all that is asked: that this signs for that public key.
        key = serialization.load_pem_private_key(body, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise _refused("encrypted", "the key is encrypted: decrypt it first") from None
    except UnsupportedAlgorithm:
        raise _refused("key_type", "only RSA and EC keys are in certificates of ours") from None
    except ValueError as error:
        if str(error).startswith("Invalid key"):  # what pyca says of a point that is not the number's
            raise _inconsistent() from None
        raise _refused("key_malformed", "this is no private key in PEM") from None
    if not isinstance(key, _PrivateKey):
        raise _refused("key_type", "only RSA and EC keys are in certificates of ours")
    public = key.public_key()
    _check_size(public)
    if isinstance(key, rsa.RSAPrivateKey):
        _check_numbers(key.private_numbers())
    spki = _spki(public)
    proof = _prove(key, spki)
    return Evidence("private-key", spki, proof, hashlib.sha256(body).digest(), None)


def key_hash(evidence: Evidence) -> bytes:
    """What keys are known by: the SHA-256 of the SPKI."""
    return hashlib.sha256(evidence.spki).digest()


def verify_kept_proof(evidence: Evidence) -> None:
    """What anybody can verify later of a private key that was handed in. Raises `evidence.key_inconsistent`."""
    public = serialization.load_der_public_key(evidence.spki)
    assert isinstance(public, _PublicKey)  # noqa: S101 - nothing else is kept
    try:
        _verify(public, evidence.proof, _statement(evidence.spki), hashes.SHA256())
    except InvalidSignature:
        raise _inconsistent() from None


def from_csr(text: str) -> Evidence:
    """A certification request in PEM whose common name is a challenge of ours. Raises `evidence.*`."""
    body = _sized(text)
    try:
        request = x509.load_pem_x509_csr(body)
        public = request.public_key()
        names = [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        digest = request.signature_hash_algorithm
    except UnsupportedAlgorithm:
        raise _refused("csr_digest", "sign the request with SHA-256, SHA-384 or SHA-512") from None
    except ValueError:
        raise _refused("csr_malformed", "this is no certification request in PEM") from None
    if not isinstance(public, _PublicKey):
        raise _refused("key_type", "only RSA and EC keys are in certificates of ours")
    _check_size(public)
    if not isinstance(digest, _DIGESTS):
        raise _refused("csr_digest", "sign the request with SHA-256, SHA-384 or SHA-512")
    if not request.is_signature_valid:
        raise _refused("csr_signature", "the request is not signed by its key")
    if len(names) != 1 or not CHALLENGE.fullmatch(names[0]):
        raise _refused("no_challenge", "the common name must be a challenge that we gave out, and nothing else")
    der = request.public_bytes(serialization.Encoding.DER)
    return Evidence("csr", _spki(public), der, hashlib.sha256(body).digest(), names[0])


def from_jws(jws: Mapping[str, str], spki: bytes) -> Evidence:
    """A flattened JWS (RFC 7515) by the key of `spki`, whose payload is `{"challenge": …}`. Raises `evidence.*`.

    The key is the certificate's; what the header says of keys counts for nothing.
    """
    if set(jws) != {"protected", "payload", "signature"} or not all(isinstance(each, str) for each in jws.values()):
        raise _jws_malformed()
    header, payload = _json(jws["protected"]), _json(jws["payload"])
    signature = _decode(jws["signature"])
    if not set(header) <= {"alg", "typ", "jwk", "kid"} or not isinstance(header.get("alg"), str):
        raise _refused("jws_header", "the header may have alg, typ, jwk and kid")
    if set(payload) != {"challenge"} or not CHALLENGE.fullmatch(str(payload["challenge"])):
        raise _refused("no_challenge", 'the payload must be {"challenge": …} with one that we gave out')
    try:
        public = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise _refused("key_type", "only RSA and EC keys are in certificates of ours") from None
    known = _JWS.get(header["alg"])
    curve = public.curve.name if isinstance(public, ec.EllipticCurvePublicKey) else ""
    if known is None or not isinstance(public, known[0]) or curve != known[3]:
        raise _refused("jws_algorithm", f"alg is one of {', '.join(_JWS)} and fits the certificate's key")
    assert isinstance(public, _PublicKey)  # noqa: S101 - the table's types
    _check_size(public)
    _, digest, half, _ = known
    if half:
        if len(signature) != 2 * half:
            raise _refused("jws_signature", "the JWS is not signed by the certificate's key")
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        signature = encode_dss_signature(r, s)
    try:
        _verify(public, signature, f"{jws['protected']}.{jws['payload']}".encode("ascii"), digest)
    except InvalidSignature:
        raise _refused("jws_signature", "the JWS is not signed by the certificate's key") from None
    proof = orjson.dumps(dict(jws), option=orjson.OPT_SORT_KEYS)
    return Evidence("jws", spki, proof, hashlib.sha256(proof).digest(), payload["challenge"])


def _prove(key: _PrivateKey, spki: bytes) -> bytes:
    """Signs with the private half and verifies with the public one: parameters that do not belong together fail."""
    statement = _statement(spki)
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            proof = key.sign(statement, padding.PKCS1v15(), hashes.SHA256())
        else:
            proof = key.sign(statement, ec.ECDSA(hashes.SHA256()))
        _verify(key.public_key(), proof, statement, hashes.SHA256())
    except (ValueError, InvalidSignature, InternalError):
        raise _inconsistent() from None
    return proof


def _check_numbers(numbers: rsa.RSAPrivateNumbers) -> None:
    """That the numbers of RFC 8017, 3.2 belong together, which bounds them all by the modulus."""
    n, e, d, p, q = numbers.public_numbers.n, numbers.public_numbers.e, numbers.d, numbers.p, numbers.q
    if not (n % 2 and e % 2 and 3 <= e < n and 0 < d < n and 1 < p < n and 1 < q < n and p * q == n):
        raise _inconsistent()
    inverse = (e * d - 1) % (p - 1) == 0 == (e * d - 1) % (q - 1)
    remainders = numbers.dmp1 == d % (p - 1) and numbers.dmq1 == d % (q - 1)
    if not (inverse and remainders and numbers.iqmp < p and numbers.iqmp * q % p == 1):
        raise _inconsistent()


def _verify(public: _PublicKey, signature: bytes, data: bytes, digest: hashes.HashAlgorithm) -> None:
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, data, padding.PKCS1v15(), digest)
    else:
        public.verify(signature, data, ec.ECDSA(digest))


def _statement(spki: bytes) -> bytes:
    return _STATEMENT + hashlib.sha256(spki).hexdigest().encode()


def _spki(public: _PublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _check_size(public: _PublicKey) -> None:
    if isinstance(public, rsa.RSAPublicKey) and public.key_size > _MAX_RSA:
        raise _refused("key_too_large", f"RSA keys here have at most {_MAX_RSA} bits")


def _sized(text: str) -> bytes:
    body = text.encode("utf-8", "replace")
    if len(body) > MAX_OCTETS:
        raise _refused("too_large", f"send at most {MAX_OCTETS} octets")
    return body


def _json(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(_decode(text))
    except orjson.JSONDecodeError:
        raise _jws_malformed() from None
    if not isinstance(value, dict):
        raise _jws_malformed()
    return value


def _decode(text: str) -> bytes:
    try:
        octets = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _jws_malformed() from None
    if base64.urlsafe_b64encode(octets).rstrip(b"=") != text.encode("ascii", "replace"):
        raise _jws_malformed()
    return octets


def _jws_malformed() -> QuashError:
    return _refused("jws_malformed", "send a flattened JWS: protected, payload and signature in base64url")


def _inconsistent() -> QuashError:
    return _refused("key_inconsistent", "the parts of this key do not belong together: it is no private key")


def _refused(code: str, message: str) -> QuashError:
    return QuashError(f"evidence.{code}", message, Kind.REFUSED)
