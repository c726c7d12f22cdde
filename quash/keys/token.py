"""Keys on PKCS#11 tokens (G43).

Hashing happens here and the token signs the digest: SoftHSM2 lacks CKM_ECDSA_SHA256 and its relatives, every token has
CKM_ECDSA, and a CRL of 50 MB stays out of a network HSM. Ed25519 hashes twice: there the token gets the whole message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pkcs11
from asn1crypto.keys import PublicKeyInfo, RSAPublicKey
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters
from pkcs11.util.rsa import encode_rsa_public_key

from quash.keys.handle import KeyUnavailable
from quash.keys.library import Opened, library, unavailable
from quash.keys.pem import KeyKind
from quash.keys.pin import Pin
from quash.keys.uri import TokenKey, describe
from quash.pki import der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm, algorithm_for_spki

# RFC 8017 section 9.2: DigestInfo up to the digest, for CKM_RSA_PKCS.
_DIGEST_INFO: Mapping[str, bytes] = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


def _ec_spki(public: pkcs11.PublicKey) -> bytes:
    return bytes(encode_ec_public_key(public))


def _rsa_spki(public: pkcs11.PublicKey) -> bytes:
    key = RSAPublicKey.load(encode_rsa_public_key(public))
    return bytes(PublicKeyInfo.wrap(key, "rsa").dump())


def _ed25519_spki(public: pkcs11.PublicKey) -> bytes:
    # PKCS#11 3.0 has the point as it is; before, and on a token that makes the key itself, it is an OCTET STRING of it.
    value = bytes(public[pkcs11.Attribute.EC_POINT])
    point = value[-_ED25519_SIZE:]
    if value not in (point, der.tlv(der.OCTET_STRING, point)) or len(point) != _ED25519_SIZE:
        raise KeyUnavailable("the token's Edwards key is not Ed25519", "key.algorithm_not_supported")
    return der.tlv(der.SEQUENCE, SIGNATURE_ALGORITHMS["ed25519"].identifier, der.tlv(der.BIT_STRING, b"\0", point))


_ED25519_SIZE = 32
_SPKI: Mapping[pkcs11.KeyType, Callable[[pkcs11.PublicKey], bytes]] = {
    pkcs11.KeyType.EC: _ec_spki,
    pkcs11.KeyType.RSA: _rsa_spki,
    pkcs11.KeyType.EC_EDWARDS: _ed25519_spki,
}
_CURVES: Mapping[str, tuple[str, pkcs11.KeyType, pkcs11.Mechanism]] = {
    "ec-p256": ("secp256r1", pkcs11.KeyType.EC, pkcs11.Mechanism.EC_KEY_PAIR_GEN),
    "ec-p384": ("secp384r1", pkcs11.KeyType.EC, pkcs11.Mechanism.EC_KEY_PAIR_GEN),
    "ed25519": ("1.3.101.112", pkcs11.KeyType.EC_EDWARDS, pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN),
}


def _scheme(algorithm: SignatureAlgorithm) -> tuple[pkcs11.Mechanism, Callable[[bytes], bytes]]:
    """How a token signs with it, and what of the message it is given."""
    if algorithm.name == "ed25519":
        return pkcs11.Mechanism.EDDSA, bytes
    prefix, digest = _DIGEST_INFO[algorithm.hash_name], partial(hashlib.new, algorithm.hash_name)
    if algorithm.name.startswith("rsa"):
        return pkcs11.Mechanism.RSA_PKCS, lambda tbs: prefix + digest(tbs).digest()
    return pkcs11.Mechanism.ECDSA, lambda tbs: digest(tbs).digest()


class Pkcs11Key:
    """A `KeyHandle` over a private key that never leaves its token."""

    def __init__(self, where: TokenKey, pin: Pin) -> None:
        self._where = where
        self._pin = pin
        self._library = library(where.module)
        self._opened: Opened | None = None
        self._key: Any = None
        self.spki: bytes = self._open()
        self.algorithm: SignatureAlgorithm = algorithm_for_spki(self.spki)
        self.quick = False  # a token may take its time, or never answer
        self._mechanism, self._given = _scheme(self.algorithm)

    def sign(self, tbs: bytes) -> bytes:
        given = self._given(tbs)
        with self._library.lock:
            self._check_session()
            try:
                signature = bytes(self._key.sign(given, mechanism=self._mechanism))
            except pkcs11.PKCS11Error as error:
                self._library.failed()
                raise unavailable(self._where, error) from None
        if self.algorithm.raw_size not in (None, len(signature)):
            raise KeyUnavailable(f"{describe(self._where)} made a signature of a wrong size; check the token")
        return signature

    def sign_many(self, many: Sequence[bytes]) -> list[bytes]:
        return [self.sign(tbs) for tbs in many]

    def check(self) -> None:
        """Finds the key on its token again."""
        with self._library.lock:
            opened = self._check_session()
            try:
                _find(opened.session, self._where, pkcs11.ObjectClass.PRIVATE_KEY)
            except (pkcs11.PKCS11Error, KeyUnavailable) as error:
                self._library.failed()
                raise error if isinstance(error, KeyUnavailable) else unavailable(self._where, error) from None

    def close(self) -> None:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            self._library.close(opened)

    def _check_session(self) -> Opened:
        if self._opened is None:
            raise KeyUnavailable("the key was closed; open it again")
        # Another token's loss ended this session as well.
        if self._opened.generation != self._library.generation and self._open() != self.spki:
            self.close()
            raise KeyUnavailable(f"{describe(self._where)} is another key by now; check the token", "key.mismatch")
        return self._opened

    def _open(self) -> bytes:
        """Takes a session and finds the key in it; returns its SPKI."""
        with self._library.lock:
            self._opened = self._library.open(self._where, self._pin)
            try:
                self._key = _find(self._opened.session, self._where, pkcs11.ObjectClass.PRIVATE_KEY)
                return _spki(_find(self._opened.session, self._where, pkcs11.ObjectClass.PUBLIC_KEY), self._where)
            except (pkcs11.PKCS11Error, KeyUnavailable) as error:
                self.close()
                self._library.failed()
                raise error if isinstance(error, KeyUnavailable) else unavailable(self._where, error) from None


def has_token_key(where: TokenKey, pin: Pin) -> bool:
    """Whether the token has the one private key that a reference names; raises `KeyUnavailable`."""
    attributes = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.Attribute.LABEL: where.label}
    with library(where.module).session(where, pin) as session:
        return any(True for _ in list(session.get_objects(attributes)))


def generate_token_key(where: TokenKey, pin: Pin, kind: KeyKind) -> None:
    """Makes a key pair on a token, under the reference's label; it can never leave it. Raises `KeyUnavailable`."""
    private = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False}
    with library(where.module).session(where, pin, writable=True) as session:
        if kind in _CURVES:
            name, key_type, mechanism = _CURVES[kind]
            curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(name)}
            parameters = session.create_domain_parameters(key_type, curve, local=True)
            parameters.generate_keypair(mechanism=mechanism, label=where.label, store=True, private_template=private)
        else:
            bits = int(kind.removeprefix("rsa-"))
            session.generate_keypair(pkcs11.KeyType.RSA, bits, label=where.label, store=True, private_template=private)


def _spki(public: pkcs11.PublicKey, where: TokenKey) -> bytes:
    if public.key_type not in _SPKI:
        raise KeyUnavailable(
            f"{describe(where)} is neither RSA nor ECDSA (D40), nor Ed25519", "key.algorithm_not_supported"
        )
    return _SPKI[public.key_type](public)


def _find(session: pkcs11.Session, where: TokenKey, kind: pkcs11.ObjectClass) -> Any:
    """The one object of this class that the reference names."""
    attributes: dict[pkcs11.Attribute, Any] = {pkcs11.Attribute.CLASS: kind}
    if where.label is not None:
        attributes[pkcs11.Attribute.LABEL] = where.label
    if where.id is not None:
        attributes[pkcs11.Attribute.ID] = where.id
    found = list(session.get_objects(attributes))
    if len(found) != 1:
        what = kind.name.lower().replace("_", " ")
        raise KeyUnavailable(f"{describe(where)}: {len(found)} objects of class {what}; exactly one is needed")
    return found[0]
