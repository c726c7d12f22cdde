"""Where keys and their secrets are. CA, OCSP, offline and ledger keys have a secret each, of no use to the others."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from quash.errors import Kind, QuashError
from quash.keys import (
    KeyHandle,
    KeyKind,
    adopt_pem_key,
    ensure_successor,
    generate_pem_key,
    open_key,
    pem_path,
    renamed_uri,
    shares_token,
)
from quash.runtime.config import Config, Keys
from quash.runtime.state import State
from quash.store.issuers import Issuer

Group = Literal["ca", "ocsp", "offline", "ledger"]
"""A folder of keys that share a secret: online CA keys, OCSP signers' keys, for explicit commands, the ledger's."""

_CONFIGURED: Final[Mapping[Group, Callable[[Keys], Path | None]]] = MappingProxyType(
    {
        "ca": lambda keys: keys.ca_passphrase_file,
        "ocsp": lambda keys: keys.ocsp_passphrase_file,
        "offline": lambda keys: keys.offline_passphrase_file,
        "ledger": lambda keys: keys.ledger_passphrase_file,
    }
)


_TOKENS: Final[Mapping[Group, Callable[[Keys], str | None]]] = MappingProxyType(
    {"ca": lambda keys: keys.ca_token, "ocsp": lambda keys: keys.ocsp_token}
)


class KeyFiles:
    """The keys of a deployment, by group and name: PEM files, or on the group's token where it has one.

    Raises `key.shared_token` when CA and OCSP keys would lie on one token: who may use the ones could use the others.
    """

    def __init__(self, config: Config, state: State) -> None:
        if shares_token(config.keys.ca_token or "", config.keys.ocsp_token or ""):
            raise QuashError("key.shared_token", "keys.ca_token and keys.ocsp_token name one token; give each its own")
        self._config = config
        self._state = state

    def passphrase_file(self, group: Group) -> Path:
        return _CONFIGURED[group](self._config.keys) or self._state.secrets / f"{group}.passphrase"

    def ref(self, group: Group, name: str) -> str:
        """The reference of a key, as it stands in `key_ref` columns; one that lies in a file stays there."""
        pem = f"pem:{group}/{name}.pem"
        token = self._token(group)
        return renamed_uri(token, name) if token and not pem_path(pem, self._state.keys).exists() else pem

    def open(self, group: Group, ref: str) -> KeyHandle:
        """Opens a key by its reference, which may also name a token; raises `KeyUnavailable`."""
        return open_key(ref, self._state.keys, self.passphrase_file(group), logins=self._state.run)

    def ensure(self, group: Group, name: str, kind: KeyKind) -> bytes:
        """The SPKI of a key, which is made when it is missing. Raises `KeyUnavailable`, `key.passphrase_lost`."""
        ref = self.ref(group, name)
        if ref.startswith("pkcs11:"):
            ensure_successor(ref, name, kind, self._state.keys, self.passphrase_file(group), logins=self._state.run)
        elif not (path := pem_path(ref, self._state.keys)).exists():
            self._ensure_passphrase(group, path.parent)
            return generate_pem_key(path, kind, self.passphrase_file(group))
        key = self.open(group, ref)
        try:
            return key.spki
        finally:
            key.close()

    def adopt(self, group: Group, name: str, spki: bytes, body: bytes, passphrase: bytes | None) -> str:
        """Keeps the private key of `spki`, made elsewhere (PEM), in a file of ours; its reference. Raises `key.*`."""
        ref = f"pem:{group}/{name}.pem"
        path = pem_path(ref, self._state.keys)
        self._ensure_passphrase(group, path.parent)
        adopt_pem_key(body, passphrase, spki, path, self.passphrase_file(group))
        return ref

    def _token(self, group: Group) -> str | None:
        return _TOKENS[group](self._config.keys) if group in _TOKENS else None

    def _ensure_passphrase(self, group: Group, folder: Path) -> None:
        """A random one when the group has no key yet; a configured file is the operator's to make."""
        folder.mkdir(mode=0o700, exist_ok=True)
        path = self.passphrase_file(group)
        if path.exists() or _CONFIGURED[group](self._config.keys) is not None:
            return
        if any(folder.glob("*.pem")):
            raise QuashError(
                "key.passphrase_lost", f"{folder} has keys but {path} is missing; put it back", Kind.UNAVAILABLE
            )
        self._state.write_secret(path, secrets.token_urlsafe(32).encode() + b"\n")


def online_opener(files: KeyFiles) -> Callable[[Issuer], KeyHandle]:
    """Opens the keys that the CA signer may have; raises `signer.no_key` for the others."""

    def open_online(issuer: Issuer) -> KeyHandle:
        if issuer.key_ref is None:
            raise QuashError("signer.no_key", f"the key of {issuer.name} is kept offline", Kind.REFUSED)
        return files.open("ca", issuer.key_ref)

    return open_online


def ceremony_opener(files: KeyFiles) -> Callable[[Issuer], KeyHandle]:
    """Opens offline keys too, for explicit commands at the machine that holds them (D20)."""

    def open_any(issuer: Issuer) -> KeyHandle:
        if issuer.key_ref is None:
            return files.open("offline", files.ref("offline", issuer.name))
        return files.open("ca", issuer.key_ref)

    return open_any
