"""Where this process finds OCSP keys, and where it puts new ones. CA keys open with another secret (design 2)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from quash.keys import KeyHandle, ensure_successor, kind_of, open_key
from quash.pki.certificate import read_certificate
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.issuers import Issuer
from quash.store.ocsp_signers import OcspSigner
from responder.presign.desk import OpenKey
from responder.presign.rotation import MakeKey


def opener(config: Config, state: State) -> OpenKey:
    """Opens OCSP keys by reference; it can be pickled, for the processes that sign."""
    return partial(_open, state.keys, _passphrase_file(config, state), state.run)


def maker(config: Config, state: State) -> MakeKey:
    """A new signer's key is of the configured kind; where nothing is configured (imports), of its predecessor's."""
    kinds = {issuer.name: issuer.ocsp_signer.key for issuer in config.issuers}
    folder, secret, logins = state.keys, _passphrase_file(config, state), state.run

    def make(issuer: Issuer, last: OcspSigner, name: str) -> tuple[str, KeyHandle]:
        kind = kinds.get(issuer.name) or kind_of(read_certificate(last.certificate).spki)
        ref = ensure_successor(last.key_ref, name, kind, folder, secret, logins=logins)
        return ref, open_key(ref, folder, secret, logins=logins)

    return make


def _open(folder: Path, secret: Path, logins: Path, ref: str) -> KeyHandle:
    return open_key(ref, folder, secret, logins=logins)


def _passphrase_file(config: Config, state: State) -> Path:
    return config.keys.ocsp_passphrase_file or state.secrets / "ocsp.passphrase"
