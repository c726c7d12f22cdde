"""Public keys that are known to be weak, or can be broken: badkeys' checks (D43-D45, G9). Runs in a worker process.

badkeys' own blocklist is a download and not used: `issuer.checks.blocklist` reads such files. Its checks `rsawarnings`,
`rsainvalid` and `smalld` cannot find anything once `quash.pki.rules` has let a key pass: D41 bounds size and exponent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from badkeys import checks as badkeys
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from quash.errors import Kind, QuashError
from quash.pki.rules import check_public_key

RSA_CHECKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "fermat": "its primes are so close that 100 rounds of Fermat's method find them (D44)",
        "roca": "it was made by a library with the ROCA flaw (D43)",
        "smallfactors": "its modulus has a small factor (D41)",
        "sharedprimes": "it shares a prime with another key that is public (D45)",
        "rsapoly": "its modulus shows the pattern of a broken generator (D45)",
        "rsabias": "the bits of its modulus are not random (D45)",
        "pattern": "its modulus repeats itself (D45)",
        "xzbackdoor": "its modulus carries the payload of the xz backdoor (D45)",
    }
)
"""Check by badkeys' name -> why its keys are refused. In this order; the refusal's code is `key.weak.<name>`."""


def check_key(spki: bytes, *, private: bool = False) -> None:
    """Refuses a DER SPKI by D40 and D41 (`quash.pki.rules`), then by each check of `RSA_CHECKS`.

    `private`: of a private PKI, which may have Ed25519.
    """
    check_public_key(spki, private=private)
    key = load_der_public_key(spki)
    if not isinstance(key, rsa.RSAPublicKey):
        return  # loading proved the point to be on its curve; what else is known of EC keys are blocklists
    numbers = key.public_numbers()
    for name, why in RSA_CHECKS.items():
        if badkeys.allchecks[name]["function"](numbers.n, e=numbers.e) is not False:
            raise QuashError(f"key.weak.{name}", f"the key is weak: {why}; make a new one", Kind.REFUSED)


def warm() -> None:
    """Reads badkeys' shared primes and multiplies its small ones, half a second's work, before the first order."""
    for bits in (2048, 3072, 4096):
        for name in ("sharedprimes", "smallfactors"):
            badkeys.allchecks[name]["function"]((1 << bits) - 1, e=65537)
