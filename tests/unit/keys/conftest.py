"""One key of each kind, in a PEM file and on a SoftHSM2 token made for the session."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization

from quash.keys import KeyKind, generate_pem_key

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "4711-softhsm"
KINDS: tuple[KeyKind, ...] = ("ec-p256", "ec-p384", "rsa-2048")


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
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SoftHSM2 with one empty token `quash-test`; the library reads SOFTHSM2_CONF when the process first loads it."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "quash-test", "--pin", PIN, "--so-pin", "so-" + PIN],
        check=True,
        capture_output=True,
    )
    return folder


def _token_ref(label: str, pin: Path, token: str = "quash-test") -> str:
    return f"pkcs11:token={token};object={label}?module-path={quote(MODULE)}&pin-source=file:{quote(str(pin))}"


@pytest.fixture(scope="session")
def token_ref() -> Callable[..., str]:
    return _token_ref


@pytest.fixture(scope="session")
def places(keys_dir: Path, softhsm: Path) -> dict[str, Place]:
    """The same keys twice: `pem-<kind>` and `token-<kind>`."""
    made: dict[str, Place] = {}
    passphrase = keys_dir / "passphrase"
    for number, kind in enumerate(KINDS, 1):
        path = keys_dir / f"{kind}.pem"
        spki = generate_pem_key(path, kind, passphrase)
        made[f"pem-{kind}"] = Place(f"pem:{kind}.pem", keys_dir, passphrase, spki, kind)
        _import(path, passphrase, softhsm, kind, number)
        made[f"token-{kind}"] = Place(_token_ref(kind, keys_dir / "pin"), keys_dir, keys_dir / "pin", spki, kind)
    return made


def _import(path: Path, passphrase: Path, folder: Path, label: str, number: int) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), passphrase.read_bytes().strip())
    plain = folder / "plain.pem"
    plain.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    where = ("--token", "quash-test", "--pin", PIN, "--label", label, "--id", f"{number:02x}")
    subprocess.run(
        ["softhsm2-util", "--import", plain, *where],
        check=True,
        capture_output=True,
    )
    plain.unlink()
