"""Keys on PKCS#11 tokens.

Hashing happens here and the token signs the digest: SoftHSM2 lacks CKM_ECDSA_SHA256 and its relatives, every token has
CKM_ECDSA, and a CRL of 50 MB stays out of a network HSM.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pkcs11
from asn1crypto.keys import PublicKeyInfo, RSAPublicKey
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters
from pkcs11.util.rsa import encode_rsa_public_key

from quash.keys.handle import KeyUnavailable
from quash.keys.pem import KeyKind, read_passphrase
from quash.keys.uri import TokenKey
from quash.pki.algorithms import SignatureAlgorithm, algorithm_for_spki

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


_SPKI: Mapping[pkcs11.KeyType, Callable[[pkcs11.PublicKey], bytes]] = {
    pkcs11.KeyType.EC: _ec_spki,
    pkcs11.KeyType.RSA: _rsa_spki,
}
_MECHANISM: Mapping[pkcs11.KeyType, pkcs11.Mechanism] = {
    pkcs11.KeyType.EC: pkcs11.Mechanism.ECDSA,
    pkcs11.KeyType.RSA: pkcs11.Mechanism.RSA_PKCS,
}


_CURVES: Mapping[str, str] = {"ec-p256": "secp256r1", "ec-p384": "secp384r1"}


@dataclass
class _Login:
    """A process is logged in to a token once, whatever its number of sessions; the last to leave logs out."""

    session: pkcs11.Session
    users: int = 0


_logins: dict[tuple[str, bytes], _Login] = {}  # by library and token serial: token objects compare by identity
_logins_lock = threading.Lock()


class Pkcs11Key:
    """A `KeyHandle` over a private key that never leaves its token."""

    def __init__(self, where: TokenKey, pin_file: Path | None) -> None:
        self._where = where
        token = _find_token(where)
        self._login = (where.module, token.serial)
        self._session: pkcs11.Session | None = _open_session(self._login, token, pin_file)
        try:
            self._key = _find(self._session, where, pkcs11.ObjectClass.PRIVATE_KEY)
            public = _find(self._session, where, pkcs11.ObjectClass.PUBLIC_KEY)
            self.spki = _spki(public, where)
        except pkcs11.PKCS11Error as error:
            self.close()
            raise _unavailable(where, error) from None
        except KeyUnavailable:
            self.close()
            raise
        self.algorithm: SignatureAlgorithm = algorithm_for_spki(self.spki)
        self._mechanism, self._prefix = _MECHANISM[public.key_type], b""
        if public.key_type == pkcs11.KeyType.RSA:
            self._prefix = _DIGEST_INFO[self.algorithm.hash_name]
        self._hash = getattr(hashlib, self.algorithm.hash_name)

    def sign(self, tbs: bytes) -> bytes:
        if self._session is None:
            raise KeyUnavailable("the key was closed; open it again")
        try:
            signature = self._key.sign(self._prefix + self._hash(tbs).digest(), mechanism=self._mechanism)
        except pkcs11.PKCS11Error as error:
            raise _unavailable(self._where, error) from None
        if self.algorithm.raw_size not in (None, len(signature)):
            raise KeyUnavailable(f"{_describe(self._where)} made a signature of a wrong size; check the token")
        return bytes(signature)

    def sign_many(self, many: Sequence[bytes]) -> list[bytes]:
        return [self.sign(tbs) for tbs in many]

    def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            _quietly(session.close)
            _log_out(self._login)


def has_token_key(where: TokenKey, pin_file: Path | None) -> bool:
    """Whether the token has the one private key that a reference names; raises `KeyUnavailable`."""
    token = _find_token(where)
    login = (where.module, token.serial)
    session = _open_session(login, token, pin_file)
    try:
        attributes = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.Attribute.LABEL: where.label}
        return any(True for _ in session.get_objects(attributes))
    except pkcs11.PKCS11Error as error:
        raise _unavailable(where, error) from None
    finally:
        _quietly(session.close)
        _log_out(login)


def generate_token_key(where: TokenKey, pin_file: Path | None, kind: KeyKind) -> None:
    """Makes a key pair on a token, under the reference's label; it can never leave it. Raises `KeyUnavailable`."""
    token = _find_token(where)
    login = (where.module, token.serial)
    session = _open_session(login, token, pin_file, writable=True)
    private = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False}
    try:
        if kind in _CURVES:
            curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(_CURVES[kind])}
            parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
            parameters.generate_keypair(label=where.label, store=True, private_template=private)
        else:
            bits = int(kind.removeprefix("rsa-"))
            session.generate_keypair(pkcs11.KeyType.RSA, bits, label=where.label, store=True, private_template=private)
    except pkcs11.PKCS11Error as error:
        raise _unavailable(where, error) from None
    finally:
        _quietly(session.close)
        _log_out(login)


def _spki(public: pkcs11.PublicKey, where: TokenKey) -> bytes:
    if public.key_type not in _SPKI:
        raise KeyUnavailable(f"{_describe(where)} is neither RSA nor ECDSA (D40)", "key.algorithm_not_supported")
    return _SPKI[public.key_type](public)


def _open_session(
    login: tuple[str, bytes], token: pkcs11.Token, pin_file: Path | None, *, writable: bool = False
) -> pkcs11.Session:
    """A session of its own below the process's one login."""
    _log_in(login, token, pin_file)
    try:
        return token.open(rw=writable)
    except pkcs11.PKCS11Error as error:
        _log_out(login)
        raise KeyUnavailable(f"token {token.label}: no session ({type(error).__name__}); is it there?") from None


def _find_token(where: TokenKey) -> pkcs11.Token:
    wanted: dict[str, Any] = {}
    if where.token is not None:
        wanted["token_label"] = where.token
    if where.serial is not None:
        wanted["token_serial"] = where.serial.encode()
    try:
        return pkcs11.lib(where.module).get_token(**wanted)
    except pkcs11.PKCS11Error as error:
        raise _unavailable(where, error) from None


def _log_in(identity: tuple[str, bytes], token: pkcs11.Token, pin_file: Path | None) -> None:
    with _logins_lock:
        login = _logins.get(identity)
        if login is None:
            if pin_file is None:
                raise KeyUnavailable(f"token {token.label}: no PIN; add pin-source=file:/... to the key's reference")
            pin = read_passphrase(pin_file).decode()
            try:
                login = _logins[identity] = _Login(token.open(user_pin=pin))
            except pkcs11.PKCS11Error as error:
                raise KeyUnavailable(
                    f"token {token.label}: login failed ({type(error).__name__}); check {pin_file}", "key.login_failed"
                ) from None
        login.users += 1


def _log_out(identity: tuple[str, bytes]) -> None:
    with _logins_lock:
        login = _logins[identity]
        login.users -= 1
        if login.users == 0:
            del _logins[identity]
            _quietly(login.session.close)


def _quietly(close: Callable[[], None]) -> None:
    """A token that is gone cannot be closed, and need not be."""
    try:
        close()
    except pkcs11.PKCS11Error:
        return


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
        raise KeyUnavailable(f"{_describe(where)}: {len(found)} objects of class {what}; exactly one is needed")
    return found[0]


def _describe(where: TokenKey) -> str:
    name = where.label if where.label is not None else (where.id or b"").hex()
    return f"key {name} on token {where.token or where.serial or '(any)'}"


def _unavailable(where: TokenKey, error: Exception) -> KeyUnavailable:
    return KeyUnavailable(f"{_describe(where)}: {type(error).__name__}; is the token there and initialised?")
