"""Keys in files: encrypted PKCS#8, the passphrase in a file of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from quash.errors import Kind, QuashError
from quash.keys.handle import KeyUnavailable
from quash.pki.algorithms import SignatureAlgorithm, algorithm_for_spki

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KeyKind = Literal["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096", "ed25519"]

# D40, D41: the curves and sizes that an authority of ours may have; e is always 65537. Ed25519: private PKIs alone.
_GENERATE: Mapping[KeyKind, Callable[[], PrivateKey]] = {
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}

_QUICK = ("ecdsa-p256-sha256", "ed25519")  # 20 to 30 µs; the others take 0.2 ms and more
_SUPPORTED = "neither RSA nor ECDSA (D40), nor Ed25519"
_HASHES: Mapping[str, Callable[[], hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


class PemKey:
    """A `KeyHandle` over a key that pyca holds in memory."""

    def __init__(self, key: PrivateKey) -> None:
        self.spki = spki_of(key)
        self.algorithm: SignatureAlgorithm = algorithm_for_spki(self.spki)
        self.quick = self.algorithm.name in _QUICK
        self._sign: Callable[[bytes], bytes] | None = _signer(key, self.algorithm)

    def sign(self, tbs: bytes) -> bytes:
        return self._opened()(tbs)

    def sign_many(self, many: Sequence[bytes]) -> list[bytes]:
        return list(map(self._opened(), many))

    def check(self) -> None:
        self._opened()

    def _opened(self) -> Callable[[bytes], bytes]:
        if self._sign is None:
            raise KeyUnavailable("the key was closed; open it again")
        return self._sign

    def close(self) -> None:
        self._sign = None


def _signer(key: PrivateKey, algorithm: SignatureAlgorithm) -> Callable[[bytes], bytes]:
    """`tbs -> raw signature`, with everything that does not vary bound once."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign
    digest = _HASHES[algorithm.hash_name]()
    if isinstance(key, rsa.RSAPrivateKey):
        rsa_sign, pkcs1 = key.sign, padding.PKCS1v15()
        return lambda tbs: rsa_sign(tbs, pkcs1, digest)
    ec_sign, scheme, half = key.sign, ec.ECDSA(digest), (algorithm.raw_size or 0) // 2

    def sign(tbs: bytes) -> bytes:
        # Cut, not parsed: SEQUENCE { r, s } in DER, which pyca wrote this moment; parsing costs as much as a tenth of
        # the signature. An integer has a zero octet before it or lacks some.
        encoded = ec_sign(tbs, scheme)
        start = 5 if encoded[1] & 0x80 else 4
        middle = start + encoded[start - 1]
        return encoded[start:middle][-half:].rjust(half, b"\0") + encoded[middle + 2 :][-half:].rjust(half, b"\0")

    return sign


def open_pem_key(path: Path, passphrase_file: Path | None) -> PemKey:
    """Opens an encrypted PKCS#8 file; raises `KeyUnavailable` that names the file at fault."""
    if passphrase_file is None:
        raise KeyUnavailable(f"{path} is encrypted; say where its passphrase is (keys.*_passphrase_file)")
    try:
        body = path.read_bytes()
    except OSError as error:
        raise KeyUnavailable(f"{path} cannot be read ({error.strerror}); is the key in its place?") from None
    try:
        key = serialization.load_pem_private_key(body, read_passphrase(passphrase_file))
    except TypeError:
        raise KeyUnavailable(
            f"{path} is not encrypted; encrypt it with `openssl pkcs8 -topk8 -v2 aes256`", "key.not_encrypted"
        ) from None
    except ValueError:
        raise KeyUnavailable(
            f"{path} does not open with the passphrase in {passphrase_file}; do they belong together?",
            "key.wrong_passphrase",
        ) from None
    if not isinstance(key, PrivateKey):
        raise KeyUnavailable(f"{path} is {_SUPPORTED}; use another key", "key.algorithm_not_supported")
    return PemKey(key)


def generate_pem_key(path: Path, kind: KeyKind, passphrase_file: Path) -> bytes:
    """Makes a key, writes it like `write_pem_key`, and returns its DER SubjectPublicKeyInfo."""
    key = _GENERATE[kind]()
    write_pem_key(path, key, passphrase_file)
    return spki_of(key)


def write_pem_key(path: Path, key: PrivateKey, passphrase_file: Path) -> None:
    """Writes a key encrypted and durably, for its owner alone.

    Never over an existing file (`key.exists`): a key that signed something must not vanish. The file is whole or
    absent, whenever the machine stops. Raises `KeyUnavailable` when the place takes no file.
    """
    body = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(read_passphrase(passphrase_file)),
    )
    _write_new(path, body)


def adopt_pem_key(body: bytes, passphrase: bytes | None, spki: bytes, path: Path, passphrase_file: Path) -> None:
    """Keeps the private key of `spki`, made elsewhere, as `generate_pem_key` keeps its own.

    `body`: PEM, of any format and encryption that pyca reads. The same key again changes nothing. Raises
    `key.unreadable`, `key.wrong_passphrase`, `key.algorithm_not_supported`, `key.mismatch`, and `key.exists` when
    another key has the file.
    """
    try:
        key = serialization.load_pem_private_key(body, passphrase)
    except TypeError:
        what = "is not encrypted: leave its passphrase out" if passphrase else "is encrypted: give its passphrase file"
        raise QuashError("key.wrong_passphrase", f"the key {what}") from None
    except ValueError as error:
        code = "key.wrong_passphrase" if passphrase else "key.unreadable"
        raise QuashError(code, f"the key cannot be read: {error}") from None
    if not isinstance(key, PrivateKey):
        raise QuashError("key.algorithm_not_supported", f"the key is {_SUPPORTED}")
    if spki_of(key) != spki:
        raise QuashError("key.mismatch", "the key does not belong to the certificate; give the other's")
    if not path.exists() or open_pem_key(path, passphrase_file).spki != spki:
        write_pem_key(path, key, passphrase_file)


def read_passphrase(path: Path) -> bytes:
    """The first line of a passphrase file."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise KeyUnavailable(
            f"the passphrase file {path} cannot be read ({error.strerror}); put it back", "key.no_passphrase"
        ) from None
    if not lines or not lines[0]:
        raise KeyUnavailable(f"the passphrase file {path} is empty; put it back", "key.no_passphrase")
    return lines[0]


def spki_of(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _write_new(path: Path, body: bytes) -> None:
    """Write, fsync, link under the final name (which fails if it is taken), fsync the folder."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.unlink(missing_ok=True)
        try:
            _write_draft(draft, body)
            os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except FileExistsError:
        raise QuashError("key.exists", f"{path} exists already and is left as it is", Kind.CONFLICT) from None
    except OSError as error:
        raise KeyUnavailable(
            f"{path} cannot be written ({error.strerror}); make its folder writable and give it space",
            "key.not_written",
        ) from None


def _write_draft(draft: Path, body: bytes) -> None:
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
