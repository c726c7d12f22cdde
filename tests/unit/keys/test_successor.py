"""The key after a key: the same kind, in the same place, once; and the proof that its maker holds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quash.errors import QuashError
from quash.keys import KeyKind, ensure_successor, generate_pem_key, kind_of, open_key
from quash.keys.uri import parse_pkcs11_uri, renamed_uri
from quash.pki.csr import certification_request, proven_key, request_info
from quash.pki.names import build_name
from tests.support.softhsm import Token, logins

KINDS: tuple[KeyKind, ...] = ("ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096", "ed25519")


def request_of(ref: str, folder: Path, secret: Path) -> tuple[bytes, bytes]:
    """A certification request signed with the key of a reference, and the key's own SPKI."""
    key = open_key(ref, folder, secret, logins=logins())
    try:
        info = request_info(build_name({"CN": "OCSP"}), key.spki)
        return certification_request(info, key.algorithm, key.sign(info)), key.spki
    finally:
        key.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_beside_a_file(kind: KeyKind, keys_dir: Path, tmp_path: Path) -> None:
    """A new file in the same folder; asked again the same key; its request proves it and reads as its kind."""
    secret = keys_dir / "passphrase"
    (tmp_path / "ocsp").mkdir()
    old = generate_pem_key(tmp_path / "ocsp" / "old.pem", kind, secret)
    assert kind_of(old) == kind
    refs = {ensure_successor("pem:ocsp/old.pem", "new", kind, tmp_path, secret, logins=tmp_path) for _ in range(2)}
    assert refs == {"pem:ocsp/new.pem"}
    csr, spki = request_of("pem:ocsp/new.pem", tmp_path, secret)
    assert spki != old
    assert proven_key(csr) == spki
    assert kind_of(spki) == kind
    assert (tmp_path / "ocsp" / "new.pem").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048", "ed25519"])
def test_a_token_key_beside_a_token_key(
    kind: KeyKind, keys_dir: Path, softhsm: Token, token_ref: Callable[..., str]
) -> None:
    """Made on the token of the old one, which it never leaves; asked again the same key."""
    old = token_ref("signer 1", keys_dir / "pin")
    refs = {ensure_successor(old, f"signer 2 {kind}", kind, keys_dir, None, logins=logins()) for _ in range(2)}
    (new,) = refs
    assert parse_pkcs11_uri(new).token == (("token", softhsm.label),)
    csr, spki = request_of(new, keys_dir, keys_dir / "pin")
    assert proven_key(csr) == spki
    assert kind_of(spki) == kind


def test_a_renamed_reference_forgets_the_old_id() -> None:
    """`id` names the old key; token, library and PIN file stay."""
    new = renamed_uri("pkcs11:token=a%20b;id=%01?module-path=/m.so&pin-source=file:/pin", "new key")
    where = parse_pkcs11_uri(new)
    assert (where.token, where.label, where.id, where.module) == ((("token", "a b"),), "new key", None, "/m.so")
    assert where.pin_source == Path("/pin")


def test_a_spoilt_request_proves_nothing(keys_dir: Path, tmp_path: Path) -> None:
    """A signature over something else, another's key, and what is no request at all."""
    secret = keys_dir / "passphrase"
    generate_pem_key(tmp_path / "a.pem", "ec-p256", secret)
    csr, spki = request_of("pem:a.pem", tmp_path, secret)
    assert x509.load_der_x509_csr(csr).is_signature_valid
    other = generate_pem_key(tmp_path / "b.pem", "ec-p256", secret)
    codes = []
    for spoilt in (csr.replace(spki[-64:], other[-64:]), csr[:-1], b"", csr + b"\0"):
        with pytest.raises(QuashError) as caught:
            proven_key(spoilt)
        codes.append(caught.value.code)
    assert codes == ["csr.not_proven", "csr.malformed", "csr.malformed", "csr.malformed"]


def test_a_key_that_we_do_not_make() -> None:
    """P-521 keys are read but not made by rotation."""
    public = ec.generate_private_key(ec.SECP521R1()).public_key()
    with pytest.raises(QuashError, match=r"key\.type_not_allowed"):
        kind_of(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
