"""One key of each kind, in a PEM file and on a SoftHSM2 token made for the session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization

from quash.keys import KeyKind, generate_pem_key
from tests.support.softhsm import MODULE, PIN, Token, make_token

KINDS: tuple[KeyKind, ...] = ("ec-p256", "ec-p384", "rsa-2048", "ed25519")


@dataclass(frozen=True)
class Place:
    """A reference that `open_key` takes, with its arguments, and the public key that must come out."""

    ref: str
    keys_dir: Path
    secret: Path
    spki: bytes
    kind: str


@pytest.fixture(scope="session")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "passphrase").write_text("correct horse battery staple\n")
    (folder / "pin").write_text(PIN + "\n")
    return folder


@pytest.fixture(scope="session")
def softhsm() -> Token:
    """A token for all tests that do it no harm."""
    return make_token()


@pytest.fixture(scope="session")
def token_ref(softhsm: Token) -> Callable[..., str]:
    def ref(label: str, pin: Path, token: str = softhsm.label) -> str:
        return (
            f"pkcs11:token={token};object={quote(label)}?module-path={quote(MODULE)}&pin-source=file:{quote(str(pin))}"
        )

    return ref


@pytest.fixture(scope="session")
def places(keys_dir: Path, softhsm: Token, token_ref: Callable[..., str]) -> dict[str, Place]:
    """The same keys twice: `pem-<kind>` and `token-<kind>`."""
    made: dict[str, Place] = {}
    passphrase = keys_dir / "passphrase"
    for number, kind in enumerate(KINDS, 1):
        path = keys_dir / f"{kind}.pem"
        spki = generate_pem_key(path, kind, passphrase)
        made[f"pem-{kind}"] = Place(f"pem:{kind}.pem", keys_dir, passphrase, spki, kind)
        _import(path, passphrase, softhsm, kind, number)
        made[f"token-{kind}"] = Place(token_ref(kind, keys_dir / "pin"), keys_dir, keys_dir / "pin", spki, kind)
    return made


def _import(path: Path, passphrase: Path, token: Token, label: str, number: int) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), passphrase.read_bytes().strip())
    plain = path.with_suffix(".plain")
    plain.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    token.load(plain, label, number)
    plain.unlink()
