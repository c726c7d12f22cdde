"""The key after a key: of the same kind, in the same place, under a new name."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from quash.errors import QuashError
from quash.keys.pem import KeyKind, generate_pem_key
from quash.keys.pin import Pin
from quash.keys.token import generate_token_key, has_token_key
from quash.keys.uri import parse_pkcs11_uri, pem_path, renamed_uri
from quash.pki.algorithms import algorithm_for_spki
from quash.pki.certid import public_key_bits

_RSA_SIZES: tuple[tuple[int, KeyKind], ...] = ((300, "rsa-2048"), (430, "rsa-3072"), (600, "rsa-4096"))
"""Octets that an RSAPublicKey has at most: its modulus and little else."""
_KINDS: dict[str, KeyKind] = {"ecdsa-p256-sha256": "ec-p256", "ecdsa-p384-sha384": "ec-p384", "ed25519": "ed25519"}


def kind_of(spki: bytes) -> KeyKind:
    """The kind of a DER SubjectPublicKeyInfo; raises `key.type_not_allowed` for one that we do not make."""
    name = algorithm_for_spki(spki).name
    if name in _KINDS:
        return _KINDS[name]
    size = len(public_key_bits(spki))
    for most, kind in _RSA_SIZES:
        if name.startswith("rsa") and size <= most:
            return kind
    raise QuashError("key.type_not_allowed", f"no key is made that signs with {name}")


def ensure_successor(
    ref: str, name: str, kind: KeyKind, keys_dir: Path, passphrase_file: Path | None, *, logins: Path
) -> str:
    """Makes a key called `name` beside the one of `ref`, in its folder or on its token; returns its reference.

    One of that name that exists is kept: whoever asks again after a crash gets the same key. `logins`: as `open_key`.
    Raises `key.bad_reference`, `KeyUnavailable`.
    """
    if ref.startswith("pem:"):
        beside = f"pem:{PurePosixPath(ref.removeprefix('pem:')).with_name(name)}.pem"
        path = pem_path(beside, keys_dir)
        if not os.access(path, os.F_OK):  # unlike `exists`, it raises nothing where the folder is not for us
            if passphrase_file is None:
                raise QuashError("key.bad_reference", "a key in a file needs a passphrase file")
            generate_pem_key(path, kind, passphrase_file)
        return beside
    beside = renamed_uri(ref, name)
    where = parse_pkcs11_uri(beside)
    pin = Pin(where.pin_source or passphrase_file, logins)
    if not has_token_key(where, pin):
        generate_token_key(where, pin, kind)
    return beside
