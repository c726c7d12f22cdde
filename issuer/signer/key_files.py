"""Where keys and their secrets are. CA, OCSP and offline keys have a secret each, and none opens another's (design 2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quash.errors import Kind, QuashError
from quash.keys import KeyHandle, open_key
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.issuers import Issuer


def ca_passphrase_file(config: Config, state: State) -> Path:
    return config.keys.ca_passphrase_file or state.secrets / "ca.passphrase"


def ocsp_passphrase_file(config: Config, state: State) -> Path:
    return config.keys.ocsp_passphrase_file or state.secrets / "ocsp.passphrase"


def offline_passphrase_file(config: Config, state: State) -> Path:
    return config.keys.offline_passphrase_file or state.secrets / "offline.passphrase"


def offline_key_ref(name: str) -> str:
    """Of an issuer whose key lives apart: no row of the database names it."""
    return f"pem:offline/{name}.pem"


def online_opener(config: Config, state: State) -> Callable[[Issuer], KeyHandle]:
    """Opens the keys that the CA signer may have; raises `signer.no_key` for the others."""
    keys_dir, secret = state.keys, ca_passphrase_file(config, state)

    def open_online(issuer: Issuer) -> KeyHandle:
        if issuer.key_ref is None:
            raise QuashError("signer.no_key", f"the key of {issuer.name} is kept offline", Kind.REFUSED)
        return open_key(issuer.key_ref, keys_dir, secret)

    return open_online


def ceremony_opener(config: Config, state: State) -> Callable[[Issuer], KeyHandle]:
    """Opens offline keys too, for explicit commands at the machine that holds them (D20)."""
    online, keys_dir, secret = online_opener(config, state), state.keys, offline_passphrase_file(config, state)

    def open_any(issuer: Issuer) -> KeyHandle:
        if issuer.key_ref is None:
            return open_key(offline_key_ref(issuer.name), keys_dir, secret)
        return online(issuer)

    return open_any
