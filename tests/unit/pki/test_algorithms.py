"""Signature algorithms: exact identifiers, both forms of ECDSA signatures, verification."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm, algorithm_for_spki, verify
from tests.support.authority import Authority, authority, refuses_only, sign

ECDSA = [algorithm for algorithm in SIGNATURE_ALGORITHMS.values() if algorithm.raw_size]


def spki(key: object) -> bytes:
    """DER SubjectPublicKeyInfo of a private key."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("ecdsa-p256-sha256", "300a06082a8648ce3d040302"),
        ("ecdsa-p384-sha384", "300a06082a8648ce3d040303"),
        ("ecdsa-p521-sha512", "300a06082a8648ce3d040304"),
        ("rsa-sha256", "300d06092a864886f70d01010b0500"),
        ("rsa-sha384", "300d06092a864886f70d01010c0500"),
        ("rsa-sha512", "300d06092a864886f70d01010d0500"),
        ("ed25519", "300506032b6570"),
    ],
)
def test_identifiers_are_those_of_d9(name: str, identifier: str) -> None:
    """AlgorithmIdentifiers are byte for byte those that BR 7.1.3.2 lists (D9, A18)."""
    assert SIGNATURE_ALGORITHMS[name].identifier.hex() == identifier


def test_there_is_no_sha1() -> None:
    """The seven algorithms of the contract, and none with SHA-1 (G32)."""
    assert len(SIGNATURE_ALGORITHMS) == 7
    assert {algorithm.hash_name for algorithm in SIGNATURE_ALGORITHMS.values()} == {"sha256", "sha384", "sha512", ""}


@given(st.sampled_from(ECDSA), st.data())
def test_ecdsa_forms_are_pycas(algorithm: SignatureAlgorithm, data: st.DataObject) -> None:
    """r||s becomes pyca's ECDSA-Sig-Value and comes back, short and long r and s among them."""
    half = algorithm.raw_size // 2
    # A bit length first, so that small numbers, and so leading zeros, are as likely as large ones.
    r, s = (
        data.draw(st.integers(1, 8 * half).flatmap(lambda bits: st.integers(1 << bits - 1, (1 << bits) - 1)))
        for _ in "rs"
    )
    raw = r.to_bytes(half, "big") + s.to_bytes(half, "big")
    assert algorithm.encode(raw) == encode_dss_signature(r, s)
    assert algorithm.decode(encode_dss_signature(r, s)) == raw


@given(st.sampled_from(ECDSA), st.binary(max_size=150))
@example(SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"], bytes.fromhex("3006020101020100"))
@example(SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"], bytes.fromhex("300702020001020101"))
@example(SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"], bytes.fromhex("3081060201010201ff"))
@example(SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"], bytes.fromhex("3006020101020101ff"))
def test_other_octets_are_no_signature(algorithm: SignatureAlgorithm, encoded: bytes) -> None:
    """Only what encode would write is decoded; all else is refused."""
    with refuses_only("signature.invalid"):
        assert algorithm.encode(algorithm.decode(encoded)) == encoded


@pytest.mark.parametrize("raw", [b"", b"\1" * 63, b"\1" * 65, bytes(64), bytes(32) + b"\1" * 32])
def test_raw_signatures_of_wrong_size_or_zero_are_refused(raw: bytes) -> None:
    """r||s has exactly its size, and neither half is zero."""
    with pytest.raises(QuashError, match=r"signature\.invalid"):
        SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"].encode(raw)


def test_verify_accepts_the_key_and_nothing_else(ca: Authority) -> None:
    """A signature verifies under its key, data and algorithm; change any of them and it does not."""
    raw = sign(ca.key, ca.algorithm, b"data")
    verify(spki(ca.key), ca.algorithm, raw, b"data")
    other, another = authority("ecdsa-p256-sha256", 1), "ed25519" if ca.algorithm.hash_name else "rsa-sha256"
    wrong = [
        (spki(ca.signer_key), ca.algorithm, raw, b"data"),
        (spki(ca.key), ca.algorithm, raw, b"Data"),
        (spki(ca.key), ca.algorithm, raw[:-1] + bytes([raw[-1] ^ 1]), b"data"),
        (spki(ca.key), ca.algorithm, raw[:-1], b"data"),
        (spki(ca.key), SIGNATURE_ALGORITHMS[another], raw, b"data"),
        (spki(other.key), ca.algorithm, raw, b"data"),
        (b"\x30\x03\x02\x01\x00", ca.algorithm, raw, b"data"),
        (spki(dsa.generate_private_key(1024)), ca.algorithm, raw, b"data"),
        (spki(ec.generate_private_key(ec.SECP256K1())), ca.algorithm, raw, b"data"),
    ]
    for arguments in wrong:
        with pytest.raises(QuashError, match=r"signature\.invalid"):
            verify(*arguments)


def test_ed25519_verifies() -> None:
    """Ed25519 hashes by itself; its raw and encoded form are the same."""
    key, algorithm = ed25519.Ed25519PrivateKey.generate(), SIGNATURE_ALGORITHMS["ed25519"]
    raw = key.sign(b"data")
    verify(spki(key), algorithm, algorithm.decode(algorithm.encode(raw)), b"data")
    with pytest.raises(QuashError, match=r"signature\.invalid"):
        verify(spki(key), algorithm, raw, b"Data")


def test_key_chooses_its_algorithm(ca: Authority) -> None:
    """A curve goes with its hash, RSA with SHA-256 (A18)."""
    expected = "rsa-sha256" if ca.algorithm.name.startswith("rsa") else ca.algorithm.name
    assert algorithm_for_spki(spki(ca.key)).name == expected


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256K1()), ec.generate_private_key(ec.SECP224R1())])
def test_other_keys_have_no_algorithm(key: ec.EllipticCurvePrivateKey) -> None:
    """A curve beyond P-256, P-384 and P-521 is refused (D40)."""
    with pytest.raises(QuashError, match=r"key\.type_not_allowed"):
        algorithm_for_spki(spki(key))


def test_rsa_parameters_must_be_null() -> None:
    """An RSA key whose AlgorithmIdentifier lacks the NULL is not that of D9."""
    written = spki(authority("rsa-sha256").key)
    assert written[4:19].hex() == "300d06092a864886f70d0101010500"
    without = b"\x30\x82" + (len(written) - 6).to_bytes(2, "big") + b"\x30\x0b" + written[6:17] + written[19:]
    with pytest.raises(QuashError, match=r"key\.type_not_allowed"):
        algorithm_for_spki(without)
