"""What goes wrong with keys: each with its code, and never with a secret in the message."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448

from quash.errors import Kind, QuashError
from quash.keys import KeyUnavailable, ensure_successor, generate_pem_key, open_key
from tests.support.small_disk import fill, small_disk
from tests.support.softhsm import logins

SECRET = "hunter2-hunter2"


def code_of(ref: str, keys_dir: Path, secret: Path | None) -> str:
    with pytest.raises(QuashError) as caught:
        open_key(ref, keys_dir, secret, logins=logins())
    assert SECRET not in str(caught.value)
    return caught.value.code


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


def test_a_generated_file_is_private_and_encrypted(tmp_path: Path, secret: Path) -> None:
    """Mode 0600, PKCS#8 that needs the passphrase, and no draft left beside it."""
    generate_pem_key(tmp_path / "a.pem", "ec-p256", secret)
    assert stat.S_IMODE((tmp_path / "a.pem").stat().st_mode) == 0o600
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (tmp_path / "a.pem").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.pem", "secret"}


def test_a_key_that_finds_no_room(tmp_path: Path, secret: Path) -> None:
    """A full disk: nothing is left behind, the message says why, and room ends it."""
    (tmp_path / "keys").mkdir()
    with small_disk(tmp_path / "keys", "64k"):
        (tmp_path / "keys" / "ocsp").mkdir()
        with (tmp_path / "keys" / "ballast").open("wb", buffering=0) as ballast:
            fill(ballast)
            with pytest.raises(KeyUnavailable, match=os.strerror(errno.ENOSPC)) as caught:
                ensure_successor("pem:ocsp/a.pem", "b", "ec-p256", tmp_path / "keys", secret, logins=tmp_path)
            assert caught.value.code == "key.not_written"
            assert list((tmp_path / "keys" / "ocsp").iterdir()) == []
        (tmp_path / "keys" / "ballast").unlink()
        made = ensure_successor("pem:ocsp/a.pem", "b", "ec-p256", tmp_path / "keys", secret, logins=tmp_path)
        assert made == "pem:ocsp/b.pem"


def test_a_folder_that_is_none(tmp_path: Path, secret: Path) -> None:
    """Whatever the operating system says of the place, the error is of the family."""
    (tmp_path / "ocsp").write_text("a file")
    with pytest.raises(KeyUnavailable, match="cannot be written"):
        ensure_successor("pem:ocsp/a.pem", "b", "ec-p256", tmp_path, secret, logins=tmp_path)


def test_a_key_is_never_overwritten(tmp_path: Path, secret: Path) -> None:
    """A second generation refuses and leaves file and folder as they were."""
    generate_pem_key(tmp_path / "a.pem", "ec-p256", secret)
    before = (tmp_path / "a.pem").read_bytes()
    with pytest.raises(QuashError, match=r"key\.exists") as caught:
        generate_pem_key(tmp_path / "a.pem", "ec-p256", secret)
    assert caught.value.kind is Kind.CONFLICT
    assert (tmp_path / "a.pem").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.pem", "secret"}


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ("pem:../outside.pem", "key.bad_reference"),
        ("pem:/etc/ssl/private/key.pem", "key.bad_reference"),
        ("pem:", "key.bad_reference"),
        ("file:a.pem", "key.bad_reference"),
        ("", "key.bad_reference"),
        ("pem:missing.pem", "key.unavailable"),
        ("pkcs11:object=a", "key.bad_reference"),  # no library
        ("pkcs11:token=t?module-path=/lib.so", "key.bad_reference"),  # no key
        ("pkcs11:object=a?module-path=/lib.so&pin-value=" + SECRET, "key.bad_reference"),
        ("pkcs11:object=a;object=b?module-path=/lib.so", "key.bad_reference"),
        ("pkcs11:object=a;colour=red?module-path=/lib.so", "key.bad_reference"),
        ("pkcs11:object=a;type=public?module-path=/lib.so", "key.bad_reference"),
        ("pkcs11:object=a?module-path=/no/such/library.so", "key.unavailable"),
    ],
)
def test_references_that_open_nothing(tmp_path: Path, secret: Path, ref: str, code: str) -> None:
    """Malformed references are input errors; well-formed ones to nowhere are unavailable keys."""
    assert code_of(ref, tmp_path, secret) == code


def test_files_that_open_with_nothing(tmp_path: Path, secret: Path) -> None:
    """Wrong, missing and empty passphrases, plain keys and keys of another kind each have their code."""
    generate_pem_key(tmp_path / "a.pem", "ec-p256", secret)
    wrong, empty = tmp_path / "wrong", tmp_path / "empty"
    wrong.write_text("something else\n")
    empty.write_text("\n")
    edwards = ed448.Ed448PrivateKey.generate()
    formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (tmp_path / "plain.pem").write_bytes(edwards.private_bytes(*formats, serialization.NoEncryption()))
    locked = serialization.BestAvailableEncryption(SECRET.encode())
    (tmp_path / "edwards.pem").write_bytes(edwards.private_bytes(*formats, locked))
    (tmp_path / "cut.pem").write_bytes((tmp_path / "a.pem").read_bytes()[:100])

    assert code_of("pem:a.pem", tmp_path, wrong) == "key.wrong_passphrase"
    assert code_of("pem:a.pem", tmp_path, empty) == "key.no_passphrase"
    assert code_of("pem:a.pem", tmp_path, tmp_path / "absent") == "key.no_passphrase"
    assert code_of("pem:a.pem", tmp_path, None) == "key.unavailable"
    assert code_of("pem:cut.pem", tmp_path, secret) == "key.wrong_passphrase"
    assert code_of("pem:plain.pem", tmp_path, secret) == "key.not_encrypted"
    assert code_of("pem:edwards.pem", tmp_path, secret) == "key.algorithm_not_supported"


def test_tokens_that_do_not_open(places, token_ref, keys_dir: Path, secret: Path) -> None:
    """Wrong PIN, no PIN, unknown token, unknown key: each is told apart, and a good PIN works right after."""
    pin = keys_dir / "pin"
    assert code_of(token_ref("ec-p256", secret), keys_dir, None) == "key.login_failed"
    without_pin = token_ref("ec-p256", pin).partition("&")[0]
    assert code_of(without_pin, keys_dir, None) == "key.unavailable"
    assert code_of(token_ref("ec-p256", pin, token="elsewhere"), keys_dir, None) == "key.unavailable"
    assert code_of(token_ref("no-such-key", pin), keys_dir, None) == "key.unavailable"
    handle = open_key(without_pin, keys_dir, pin, logins=logins())
    assert handle.spki == places["token-ec-p256"].spki
    handle.close()


def test_a_key_by_id_and_label(places, token_ref, keys_dir: Path) -> None:
    """An id narrows a label; an id that does not fit finds nothing."""
    ref = token_ref("rsa-2048", keys_dir / "pin")
    handle = open_key(ref.replace("?", ";id=%03?"), keys_dir, None, logins=logins())
    assert handle.spki == places["token-rsa-2048"].spki
    handle.close()
    with pytest.raises(KeyUnavailable, match="exactly one"):
        open_key(ref.replace("?", ";id=%01?"), keys_dir, None, logins=logins())
