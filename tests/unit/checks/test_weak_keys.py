"""Weak keys, one made for each check, and good keys of every size."""

from __future__ import annotations

from importlib import import_module

import gmpy2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuer.checks.weak_keys import RSA_CHECKS, check_key
from quash.errors import Kind, QuashError
from tests.support.weak_keys import MAKERS, SHARED, prime_after, random_prime, rsa_spki


@pytest.fixture
def known_primes(monkeypatch: pytest.MonkeyPatch) -> None:
    """badkeys knows a product of primes that many devices share; here it also knows one whose other owner we are."""
    module = import_module("badkeys.rsakeys.sharedprimes")
    monkeypatch.setattr(module, "_moduli", {2048: gmpy2.mpz(SHARED * random_prime())})


def test_every_check_has_a_weak_key_here() -> None:
    """A check that is added without a key that it finds fails here."""
    assert set(MAKERS) == set(RSA_CHECKS)


@pytest.mark.parametrize("check", RSA_CHECKS)
@pytest.mark.usefixtures("known_primes")
def test_a_weak_key_is_refused_by_the_check_that_finds_it(check: str) -> None:
    """D43-D45: a key made with this weakness, and within D40 and D41, is refused; the code names the check."""
    n = MAKERS[check]()
    assert n.bit_length() == 2048
    with pytest.raises(QuashError) as error:
        check_key(rsa_spki(n))
    assert (error.value.code, error.value.kind) == (f"key.weak.{check}", Kind.REFUSED)


def test_primes_beyond_a_hundred_rounds_of_fermat_pass() -> None:
    """D44: a difference that needs far more than 100 rounds is no finding; neither is an honest random key."""
    p = random_prime()
    check_key(rsa_spki(p * prime_after(p + (1 << 600))))
    check_key(rsa_spki(random_prime() * random_prime()))


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_good_rsa_keys_pass(bits: int) -> None:
    """D40: keys that pyca makes pass every check, those with badkeys' real list of shared primes included."""
    key = rsa.generate_private_key(65537, bits).public_key()
    check_key(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: str(curve.name))
def test_good_ec_keys_pass(curve: ec.EllipticCurve) -> None:
    """D40: the three curves."""
    key = ec.generate_private_key(curve).public_key()
    check_key(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def test_a_point_off_its_curve_is_refused() -> None:
    """D41: public keys are validated, not only measured."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = bytearray(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    spki[-1] ^= 1
    with pytest.raises(QuashError, match=r"key\.malformed"):
        check_key(bytes(spki))
