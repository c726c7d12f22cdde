"""Weak keys, one made for each check, and good keys of every size."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from importlib import import_module
from typing import Final

import gmpy2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuer.checks.weak_keys import RSA_CHECKS, check_key
from quash.errors import Kind, QuashError

TOP: Final = 3 << 1022  # two such primes make a modulus of 2048 bits


def _prime(start: int) -> int:
    return int(gmpy2.next_prime(start))


def _random_prime() -> int:
    return _prime(TOP | secrets.randbits(1022))


def _spki(n: int, e: int = 65537) -> bytes:
    return rsa.RSAPublicNumbers(e, n).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _beginning_with(top: int) -> int:
    """A product of two primes that begins with these 1024 bits, the last ten apart."""
    p = _random_prime()
    return p * _prime((top << 1024) // p)


def _close_primes() -> int:
    p = _random_prime()
    return p * _prime(p + (1 << 400))


def _roca() -> int:
    """The library's primes are k * M + (65537 ** a mod M), M the product of the first 126 primes."""
    primes, candidate = [], 2
    while len(primes) < 126:
        primes.append(candidate)
        candidate = _prime(candidate)
    m = math.prod(primes)

    def prime() -> int:
        while True:
            k, a = secrets.randbits(1024 - m.bit_length()), secrets.randbits(60)
            found = k * m + pow(65537, a, m)
            if found > TOP and gmpy2.is_prime(found):
                return found

    return prime() * prime()


def _small_factor() -> int:
    return 10_007 * _prime((1 << 2047) // 10_007 + (secrets.randbits(2000)))


def _sparse() -> int:
    """Most bits of both primes, and so of their product, are zero."""
    return _prime(TOP + secrets.randbits(90)) * _prime(TOP + (1 << 900) + secrets.randbits(90))


def _mostly_ones() -> int:
    return _beginning_with((3 << 1022) | secrets.randbits(1022) | secrets.randbits(1022) | secrets.randbits(1022))


def _repeating() -> int:
    return _beginning_with(int.from_bytes(b"\xb5" + b"\x5a" * 20 + secrets.token_bytes(107), "big"))


def _xz() -> int:
    """The first words of the DER integer are a, b and -a * b, as the backdoor's payload has them."""
    head = b"\0\xc5" + secrets.token_bytes(6)
    a, b = (int.from_bytes(word, "little") for word in (head[:4], head[4:]))
    c = (-a * b) % (1 << 64)
    return _beginning_with(int.from_bytes((head + c.to_bytes(8, "little"))[1:] + secrets.token_bytes(113), "big"))


SHARED = _random_prime()
MAKERS: dict[str, Callable[[], int]] = {
    "fermat": _close_primes,
    "roca": _roca,
    "smallfactors": _small_factor,
    "sharedprimes": lambda: SHARED * _random_prime(),
    "rsapoly": _sparse,
    "rsabias": _mostly_ones,
    "pattern": _repeating,
    "xzbackdoor": _xz,
}


@pytest.fixture
def known_primes(monkeypatch: pytest.MonkeyPatch) -> None:
    """badkeys knows a product of primes that many devices share; here it also knows one whose other owner we are."""
    module = import_module("badkeys.rsakeys.sharedprimes")
    monkeypatch.setattr(module, "_moduli", {2048: gmpy2.mpz(SHARED * _random_prime())})


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
        check_key(_spki(n))
    assert (error.value.code, error.value.kind) == (f"key.weak.{check}", Kind.REFUSED)


def test_primes_beyond_a_hundred_rounds_of_fermat_pass() -> None:
    """D44: a difference that needs far more than 100 rounds is no finding; neither is an honest random key."""
    p = _random_prime()
    check_key(_spki(p * _prime(p + (1 << 600))))
    check_key(_spki(_random_prime() * _random_prime()))


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
