"""The rules' numbers and refusals, which no configuration relaxes (G25). Dates are data (D-4), times are Unix seconds.

Intervals are inclusive: `start` to `start + n * DAY - 1` is n days (BR 4.9.9, 6.3.2).
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from quash.errors import Kind, QuashError
from quash.pki import dated
from quash.pki.algorithms import algorithm_for_spki

HOUR, DAY = 3_600, 86_400

EMAIL_VALIDITY = 825 * DAY  # D49: longest validity of an S/MIME leaf
SHORT_LIVED = 7 * DAY  # D4: at most so long, a leaf needs neither CRLDP nor OCSP

# A1, A44 (S/MIME), and of CA certificates too, which A6 would give 12 months: 8 h by BR 4.9.9; 4 d is the founding
# promise (G3), stricter than Microsoft's 7 d and the BR's 10 d.
RESPONSE_VALIDITY_MIN, RESPONSE_VALIDITY_MAX = 8 * HOUR, 4 * DAY
# A2, A3: a new response is published before half of the validity has gone by, not begun to be signed: half an
# hour for what may be late then: a slow token, a presigner that takes over.
REFRESH_MARGIN = HOUR // 2
# B2: 10 d when subscriber certificates are covered. CA certificates: 6 months (founding, G4).
CRL_VALIDITY_MAX_SUBSCRIBERS, CRL_VALIDITY_MAX_CAS = 10 * DAY, 184 * DAY

RSA_MIN_BITS, RSA_MAX_BITS = 2048, 8192  # D40; above 8192 D42 has no list of weak keys to check against
RSA_MIN_EXPONENT, RSA_MAX_EXPONENT = 1 << 16 | 1, (1 << 256) - 1  # D41
_SMALL_PRIMES = math.prod(p for p in range(3, 752, 2) if all(p % q for q in range(3, math.isqrt(p) + 1, 2)))


def leaf_validity_limit(issued_at: int) -> int:
    """Longest validity in seconds, inclusive, of a leaf issued at that time (D2): notAfter <= notBefore + limit - 1."""
    return dated.at(dated.LEAF_VALIDITY, issued_at)


def check_crl_validity(this_update: int, next_update: int, *, subscribers: bool) -> None:
    """Raises `crl.validity` outside B2. `subscribers`: the scope covers other than CA certificates."""
    limit = CRL_VALIDITY_MAX_SUBSCRIBERS if subscribers else CRL_VALIDITY_MAX_CAS
    if not 0 < next_update - this_update + 1 <= limit:
        raise QuashError("crl.validity", f"this CRL is valid for at most {limit // DAY} days (B2)", Kind.REFUSED)


def answers_late_after(validity: int) -> int:
    """Seconds of an answer's age from which it is a person's business that no newer one has replaced it (A2 to A4).

    An hour before a day is over (G3), or where validities are short, with half of the margin left until half of them.
    """
    return min(23 * HOUR, validity // 2 - REFRESH_MARGIN // 2)


def renewal_due(not_before: int, not_after: int, now: int) -> bool:
    """Whether a certificate that is replaced regularly (A17) has passed half of its life."""
    return now - not_before >= (not_after + 1 - not_before) // 2


def _refuse(code: str, message: str) -> QuashError:
    return QuashError(code, message, Kind.REFUSED)


@lru_cache(maxsize=1024)  # each key is looked at several times on its way, and RSA keys long
def check_public_key(spki: bytes, *, private: bool = False) -> None:
    """Refuses keys outside D40 and D41. Known weak keys (D42-D45) are the issuing checks' business.

    `private`: Ed25519 too, which no public rule set allows a CA or an OCSP signer.

    Raises `key.type_not_allowed`, `key.malformed`, `key.not_canonical`, `key.too_small`, `key.too_large`, `key.size`,
    `key.exponent`, `key.small_factor`, `key.modulus`.
    """
    try:
        name = algorithm_for_spki(spki).name
        key = load_der_public_key(spki)
    except QuashError as error:
        raise error if error.code == "key.type_not_allowed" else _refuse("key.malformed", error.message) from None
    except ValueError:
        raise _refuse("key.malformed", "this is no valid public key: make a new one") from None
    if name == "ed25519" and not private:
        raise _refuse("key.type_not_allowed", "use an RSA key or a named curve P-256, P-384 or P-521 (D40)")
    # Siblings are found by the SHA-256 of the SPKI (C8), so one key must have one encoding: no compressed points.
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki:
        raise _refuse("key.not_canonical", "encode the key in DER, with an uncompressed point")
    if isinstance(key, rsa.RSAPublicKey):
        _check_rsa(key.public_numbers())


def _check_rsa(numbers: rsa.RSAPublicNumbers) -> None:
    n, bits = numbers.n, numbers.n.bit_length()
    if bits < RSA_MIN_BITS:
        raise _refuse("key.too_small", f"an RSA key has at least {RSA_MIN_BITS} bits, this one has {bits} (D40)")
    if bits > RSA_MAX_BITS:
        raise _refuse("key.too_large", f"use an RSA key of at most {RSA_MAX_BITS} bits (D42)")
    if bits % 8:
        raise _refuse("key.size", "an RSA key's bits are a multiple of 8 (D40)")
    if not (RSA_MIN_EXPONENT <= numbers.e <= RSA_MAX_EXPONENT and numbers.e % 2):
        raise _refuse("key.exponent", "use the public exponent 65537 (D41)")
    if n % 2 == 0 or math.gcd(n, _SMALL_PRIMES) != 1:
        raise _refuse("key.small_factor", "the modulus has a factor below 752: make a new key (D41)")
    # A prime p divides 2^n - 2 when n is a power of p; when n is an honest product of two primes it has no chance to.
    if math.gcd(pow(2, n, n) - 2, n) != 1:
        raise _refuse("key.modulus", "the modulus is no product of two primes: make a new key (D41)")


_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


_MAY_BE_ADDRESS = re.compile(r"[:\[\]]")
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.*\Z")


def _is_ip_address(name: str) -> bool:
    """An address, or what software takes for one: a last label of digits or 0x… (WHATWG URL, ends in a number)."""
    if _ENDS_IN_NUMBER.search(name):
        return True
    if not _MAY_BE_ADDRESS.search(name):  # an exception costs as much as all other checks
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _labels(name: str) -> list[str]:
    return name.split(".")


# In this order, so that each name gets the code that says most. Code -> (does it apply?, what to do).
_NAME_RULES: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("name.empty", lambda name: not name, "give a DNS name"),
    ("name.not_ascii", lambda name: not name.isascii(), "names are ASCII only (G29)"),
    ("name.ip_address", _is_ip_address, "IP addresses are not certified (G28)"),
    ("name.wildcard", lambda name: "*" in name, "wildcards are not certified (G27)"),
    ("name.underscore", lambda name: "_" in name, "names have no underscore (D11)"),
    ("name.trailing_dot", lambda name: name.endswith("."), "write the name without a dot at its end (D11)"),
    ("name.too_long", lambda name: len(name) > 253, "a DNS name has at most 253 characters"),
    ("name.not_ldh", lambda name: not all(map(_LABEL.fullmatch, _labels(name))), "labels are letters, digits, hyphens"),
    ("name.reserved_label", lambda name: any(x[2:4] == "--" for x in _labels(name)), "no -- at 3-4 (D11, G29)"),
    ("name.single_label", lambda name: "." not in name, "give a fully qualified name (D11)"),
    ("name.reverse_zone", re.compile(r"(?i:.*\.)?(?i:(?:in-addr|ip6)\.arpa)").fullmatch, "no reverse zone (D11)"),
)


_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_MAX_LOCAL_PART, _MAX_MAILBOX = 64, 254  # RFC 5321 4.5.3.1


def check_mailbox(address: str) -> None:
    """Refuses an e-mail address by form alone (D49, G29): ASCII, a dotted local part, a host by `check_dns_name`.

    Quoted local parts too: no mailbox that anybody validates has one, and readers differ about them.
    Raises `email.not_ascii`, `email.malformed`, `email.too_long`, `name.*`.
    """
    local, at, host = address.rpartition("@")
    if not address.isascii():
        raise _refuse("email.not_ascii", f"{address[:_MAX_MAILBOX]!r}: addresses are ASCII only (G29)")
    if len(local) > _MAX_LOCAL_PART or len(address) > _MAX_MAILBOX:
        raise _refuse("email.too_long", f"an address has {_MAX_MAILBOX} characters, {_MAX_LOCAL_PART} before @")
    if not at or not _LOCAL_PART.fullmatch(local):
        raise _refuse("email.malformed", f"{address!r}: give an address like name@example.org")
    check_dns_name(host)


def check_dns_name(name: str) -> None:
    """Refuses what may not stand in a SAN, by form alone (D11, G27-G29); public suffixes (D12) are issuing checks.

    Raises the codes of `_NAME_RULES`: `name.not_ascii`, `name.ip_address`, `name.wildcard`, `name.underscore`, ...
    """
    for code, applies, advice in _NAME_RULES:
        if applies(name):
            raise _refuse(code, f"{name[:253]!r}: {advice}")
