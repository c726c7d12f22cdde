"""One contract for every kind of key, whether in a file or on a token."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, utils
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import load_der_public_key

from quash.keys import KeyHandle, KeyUnavailable, open_key
from quash.pki.algorithms import verify
from tests.support.softhsm import logins

ALL = [f"{where}-{kind}" for where in ("pem", "token") for kind in ("ec-p256", "ec-p384", "rsa-2048", "ed25519")]
ALGORITHMS = {
    "ec-p256": "ecdsa-p256-sha256",
    "ec-p384": "ecdsa-p384-sha384",
    "rsa-2048": "rsa-sha256",
    "ed25519": "ed25519",
}
SIZES = {"ec-p256": 64, "ec-p384": 96, "rsa-2048": 256, "ed25519": 64}


@pytest.fixture(params=ALL)
def place(request, places):
    return places[request.param]


@pytest.fixture
def handle(place):
    opened = open_key(place.ref, place.keys_dir, place.secret, logins=logins())
    yield opened
    opened.close()


def test_names_its_public_key_and_algorithm(place, handle: KeyHandle) -> None:
    """`spki` is the DER of the key that was put there, and the algorithm is the one D9 pairs with it."""
    assert handle.spki == place.spki
    assert handle.algorithm.name == ALGORITHMS[place.kind]


def test_is_quick_where_nothing_is_waited_for(place, handle: KeyHandle) -> None:
    """An event loop stands still while it signs: a token and a long key are given a thread."""
    assert handle.quick == (place.ref.startswith("pem:") and place.kind in ("ec-p256", "ed25519"))


@pytest.mark.parametrize("size", [0, 1, 200, 100_000])
def test_signatures_verify_elsewhere(place, handle: KeyHandle, size: int) -> None:
    """pyca, given the public key alone, accepts the raw signature of messages of any length."""
    tbs = b"\xa5" * size
    raw = handle.sign(tbs)
    public = load_der_public_key(place.spki)
    assert len(raw) == SIZES[place.kind]
    if isinstance(public, ec.EllipticCurvePublicKey):
        half = len(raw) // 2
        encoded = utils.encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
        public.verify(encoded, tbs, ec.ECDSA(SHA256() if half == 32 else SHA384()))
    elif isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(raw, tbs)
    else:
        public.verify(raw, tbs, padding.PKCS1v15(), SHA256())


def test_signs_many_in_order(handle: KeyHandle) -> None:
    """`sign_many` answers each message at its own place."""
    many = [hashlib.sha256(bytes([i])).digest() for i in range(20)]
    for tbs, raw in zip(many, handle.sign_many(many), strict=True):
        verify(handle.spki, handle.algorithm, raw, tbs)
    assert handle.sign_many([]) == []
    handle.check()


def test_refuses_after_close(handle: KeyHandle) -> None:
    """A closed handle raises `KeyUnavailable`, and closing it again is harmless."""
    handle.close()
    handle.close()
    with pytest.raises(KeyUnavailable):
        handle.sign(b"late")
    with pytest.raises(KeyUnavailable):
        handle.sign_many([b"late"])
    with pytest.raises(KeyUnavailable):
        handle.check()


def test_two_handles_do_not_end_each_other(place) -> None:
    """Closing one handle leaves another on the same key usable: a token's login is shared, and counted."""
    first = open_key(place.ref, place.keys_dir, place.secret, logins=logins())
    second = open_key(place.ref, place.keys_dir, place.secret, logins=logins())
    first.close()
    verify(second.spki, second.algorithm, second.sign(b"x"), b"x")
    second.close()
    third = open_key(place.ref, place.keys_dir, place.secret, logins=logins())
    verify(third.spki, third.algorithm, third.sign(b"y"), b"y")
    third.close()


def test_works_in_another_thread_than_it_was_opened_in(handle: KeyHandle) -> None:
    """One thread at a time, but any: the CA signer opens at start and signs in its signing thread."""
    with ThreadPoolExecutor(1) as pool:
        raw = pool.submit(handle.sign, b"elsewhere").result()
    verify(handle.spki, handle.algorithm, raw, b"elsewhere")
