"""RSA moduli with one weakness each, as badkeys looks for them (D43-D45)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Final

import gmpy2
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TOP: Final = 3 << 1022  # two such primes make a modulus of 2048 bits


def prime_after(start: int) -> int:
    return int(gmpy2.next_prime(start))


def random_prime() -> int:
    return prime_after(TOP | secrets.randbits(1022))


def rsa_spki(n: int, e: int = 65537) -> bytes:
    return rsa.RSAPublicNumbers(e, n).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _beginning_with(top: int) -> int:
    """A product of two primes that begins with these 1024 bits, the last ten apart."""
    p = random_prime()
    return p * prime_after((top << 1024) // p)


def _close_primes() -> int:
    p = random_prime()
    return p * prime_after(p + (1 << 400))


def _roca() -> int:
    """The library's primes are k * M + (65537 ** a mod M), M the product of the first 126 primes."""
    primes, candidate = [], 2
    while len(primes) < 126:
        primes.append(candidate)
        candidate = prime_after(candidate)
    m = math.prod(primes)

    def prime() -> int:
        while True:
            k, a = secrets.randbits(1024 - m.bit_length()), secrets.randbits(60)
            found = k * m + pow(65537, a, m)
            if found > TOP and gmpy2.is_prime(found):
                return found

    return prime() * prime()


def _small_factor() -> int:
    return 10_007 * prime_after((1 << 2047) // 10_007 + (secrets.randbits(2000)))


def _sparse() -> int:
    """Most bits of both primes, and so of their product, are zero."""
    return prime_after(TOP + secrets.randbits(90)) * prime_after(TOP + (1 << 900) + secrets.randbits(90))


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


SHARED = random_prime()
MAKERS: dict[str, Callable[[], int]] = {
    "fermat": _close_primes,
    "roca": _roca,
    "smallfactors": _small_factor,
    "sharedprimes": lambda: SHARED * random_prime(),
    "rsapoly": _sparse,
    "rsabias": _mostly_ones,
    "pattern": _repeating,
    "xzbackdoor": _xz,
}
