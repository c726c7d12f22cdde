"""Private keys behind a handle: encrypted PEM files and PKCS#11 tokens.

Only `issuer.signer`, `responder.presign` and `issuer.audit` import this package (an import contract).
"""

from __future__ import annotations

from pathlib import Path

from quash.errors import QuashError
from quash.keys import memory
from quash.keys.handle import KeyHandle, KeyUnavailable
from quash.keys.pem import KeyKind, adopt_pem_key, generate_pem_key, open_pem_key, write_pem_key
from quash.keys.pin import Pin
from quash.keys.successor import ensure_successor, kind_of
from quash.keys.token import Pkcs11Key
from quash.keys.uri import parse_pkcs11_uri, pem_path, renamed_uri, shares_token

__all__ = [
    "KeyHandle",
    "KeyKind",
    "KeyUnavailable",
    "adopt_pem_key",
    "ensure_successor",
    "generate_pem_key",
    "kind_of",
    "open_key",
    "pem_path",
    "renamed_uri",
    "shares_token",
    "write_pem_key",
]


def open_key(ref: str, keys_dir: Path, passphrase_file: Path | None, *, logins: Path) -> KeyHandle:
    """Opens the key that a reference names.

    `pem:a/b.pem` is an encrypted PKCS#8 file below `keys_dir`; `pkcs11:` is an RFC 7512 URI, whose `pin-source` comes
    before `passphrase_file`. `logins`: the folder in which the processes of a machine tell each other of PINs that a
    token refused. From then on nobody but root reads this process's memory (see `memory.hide`). Raises
    `key.bad_reference`, or `KeyUnavailable` with what to repair.
    """
    memory.hide()
    if ref.startswith("pem:"):
        return open_pem_key(pem_path(ref, keys_dir), passphrase_file)
    if ref.startswith("pkcs11:"):
        where = parse_pkcs11_uri(ref)
        return Pkcs11Key(where, Pin(where.pin_source or passphrase_file, logins))
    raise QuashError("key.bad_reference", "a key reference begins with pem: or pkcs11:")
