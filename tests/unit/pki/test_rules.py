"""The rules' numbers and refusals."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.rules import (
    DAY,
    RESPONSE_VALIDITY_MAX,
    RESPONSE_VALIDITY_MIN,
    check_crl_validity,
    check_dns_name,
    check_public_key,
    leaf_validity_limit,
)
from quash.runtime.config import Presign
from tests.support.authority import KINDS, NOW, authority

P256 = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
RSA = bytes.fromhex("300d06092a864886f70d0101010500")


def start_of(*day: int) -> int:
    return int(datetime(*day, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("day", "days"),
    [
        ((2026, 3, 14), 398),
        ((2026, 3, 15), 200),
        ((2026, 11, 21), 200),
        ((2027, 3, 14), 200),
        ((2027, 3, 15), 100),
        ((2029, 3, 14), 100),
        ((2029, 3, 15), 47),
        ((2040, 1, 1), 47),
    ],
)
def test_leaf_validity_by_day_of_issuance(day: tuple[int, int, int], days: int) -> None:
    """398, 200, 100, 47 days from the dates of BR 6.3.2 on, to the second (D2, D-4)."""
    assert leaf_validity_limit(start_of(*day)) == days * 86_400
    assert leaf_validity_limit(start_of(*day) + 86_399) == days * 86_400


def test_responses_are_valid_for_8_hours_to_4_days() -> None:
    """The BR's 8 hours and the founding 4 days (A1, G3); the configuration takes no other (A4)."""
    assert (RESPONSE_VALIDITY_MIN, RESPONSE_VALIDITY_MAX) == (28_800, 345_600)
    for validity in (28_799, 345_600):
        with pytest.raises(ValidationError, match="validity"):
            Presign(validity=validity, refresh_every=3600)


@pytest.mark.parametrize(("subscribers", "days"), [(True, 10), (False, 184)])
def test_crl_validity(subscribers: bool, days: int) -> None:
    """10 days where subscribers are covered, else six months (B2, G4)."""
    check_crl_validity(NOW, NOW + days * DAY - 1, subscribers=subscribers)
    for wrong in (NOW + days * DAY, NOW - 1):
        with pytest.raises(QuashError, match=r"crl\.validity"):
            check_crl_validity(NOW, wrong, subscribers=subscribers)


def spki(key: object) -> bytes:
    """DER SubjectPublicKeyInfo of a public key."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rsa_spki(n: int, e: int = 65_537) -> bytes:
    """DER SubjectPublicKeyInfo of any numbers, also such as no library makes."""
    key = der.tlv(0x30, der.integer(n), der.integer(e))
    return der.tlv(0x30, RSA, der.tlv(3, b"\0", key))


def modulus(bits: int) -> int:
    """An honest modulus."""
    return rsa.generate_private_key(65_537, bits).public_key().public_numbers().n


@pytest.mark.parametrize("kind", KINDS[:4])
def test_usual_keys_pass(kind: str) -> None:
    """P-256, P-384, P-521 and RSA-2048 (D40)."""
    check_public_key(spki(authority(kind).key.public_key()))


def test_other_sizes_and_exponents_pass() -> None:
    """Multiples of 8 above 2048, and exponents from 65537 to below 2^256 (D40, D41)."""
    check_public_key(rsa_spki(modulus(2056)))
    check_public_key(rsa_spki(authority("rsa-sha256").key.public_key().public_numbers().n, (1 << 64) - 59))


N = authority("rsa-sha256").key.public_key().public_numbers().n
P = authority("rsa-sha256").key.private_numbers().p  # of 1024 bits
COMPRESSED = der.tlv(
    0x30,
    P256,
    der.tlv(3, b"\0", authority(KINDS[0]).key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)),
)
REFUSED_KEYS = {
    "1024 bits": ("key.too_small", lambda: rsa_spki(modulus(1024))),
    "2047 bits": ("key.too_small", lambda: rsa_spki(N >> 1 | 1)),
    "2052 bits": ("key.size", lambda: rsa_spki(N << 4 | 1)),
    "8200 bits": ("key.too_large", lambda: rsa_spki(N << 6152 | 1)),
    "exponent 3": ("key.exponent", lambda: rsa_spki(N, 3)),
    "even exponent": ("key.malformed", lambda: rsa_spki(N, 65_538)),
    "huge exponent": ("key.exponent", lambda: rsa_spki(N, 1 << 256 | 1)),
    "even modulus": ("key.small_factor", lambda: rsa_spki(N - 1)),
    "factor 751": ("key.small_factor", lambda: rsa_spki(multiple_of(751))),
    "prime": ("key.modulus", lambda: rsa_spki((1 << 2048) - 1_942_289)),
    "square of a prime": ("key.modulus", lambda: rsa_spki(P * P)),
    "fourth power of a prime": ("key.modulus", lambda: rsa_spki(((1 << 512) - 569) ** 4)),
    "Ed25519": ("key.type_not_allowed", lambda: spki(ed25519.Ed25519PrivateKey.generate().public_key())),
    "Ed448": ("key.type_not_allowed", lambda: spki(ed448.Ed448PrivateKey.generate().public_key())),
    "secp256k1": ("key.type_not_allowed", lambda: spki(ec.generate_private_key(ec.SECP256K1()).public_key())),
    "compressed point": ("key.not_canonical", lambda: COMPRESSED),
    "nothing": ("key.malformed", lambda: b""),
    "no key": ("key.malformed", lambda: der.tlv(0x30, P256)),
    "point off the curve": ("key.malformed", lambda: der.tlv(0x30, P256, der.tlv(3, b"\0\4" + b"\1" * 64))),
    "no numbers": ("key.malformed", lambda: der.tlv(0x30, RSA, der.tlv(3, b"\0\x30\0"))),
    "trailing octet": ("key.malformed", lambda: spki(authority(KINDS[0]).key.public_key()) + b"\0"),
}


def multiple_of(factor: int) -> int:
    """An odd number of 2048 bits with this factor."""
    return factor * (N // factor - 1 | 1)


@pytest.mark.parametrize("what", REFUSED_KEYS)
def test_keys_outside_the_rules_are_refused(what: str) -> None:
    """Each rule of D40 and D41 has its code; a point off the curve, and other encodings of a key, are refused too."""
    code, make = REFUSED_KEYS[what]
    with pytest.raises(QuashError) as caught:
        check_public_key(make())
    assert (caught.value.code, caught.value.kind) == (code, Kind.REFUSED)


def test_a_private_pki_may_have_ed25519() -> None:
    """It alone, and nothing else that D40 leaves out."""
    check_public_key(spki(ed25519.Ed25519PrivateKey.generate().public_key()), private=True)
    for what in ("Ed448", "secp256k1", "compressed point", "exponent 3"):
        code, make = REFUSED_KEYS[what]
        with pytest.raises(QuashError, match=code):
            check_public_key(make(), private=True)


@pytest.mark.parametrize(
    "name",
    ["example.com", "EXAMPLE.Com", "a.b.c.example.tn", "1a.example", "x-y.example.org", "4.example", "a" * 63 + ".tn"],
)
def test_usual_names_pass(name: str) -> None:
    """Letters, digits and hyphens in any case (D11)."""
    check_dns_name(name)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "name.empty"),
        ("exämple.com", "name.not_ascii"),
        ("example.com\u200b", "name.not_ascii"),
        ("192.0.2.1", "name.ip_address"),
        ("2001:db8::1", "name.ip_address"),
        ("[2001:db8::1]", "name.ip_address"),
        ("192.0.2.1.", "name.ip_address"),
        ("0x7f.1", "name.ip_address"),
        ("example.0x7f", "name.ip_address"),
        ("2130706433", "name.ip_address"),
        ("*.example.com", "name.wildcard"),
        ("w*w.example.com", "name.wildcard"),
        ("a_b.example.com", "name.underscore"),
        ("_acme-challenge.example.com", "name.underscore"),
        ("example.com.", "name.trailing_dot"),
        ("a." * 126 + "com", "name.too_long"),
        ("-a.example.com", "name.not_ldh"),
        ("a-.example.com", "name.not_ldh"),
        ("a..example.com", "name.not_ldh"),
        (".example.com", "name.not_ldh"),
        ("a b.example.com", "name.not_ldh"),
        ("example.com\n", "name.not_ldh"),
        ("example.com/x", "name.not_ldh"),
        ("a" * 64 + ".com", "name.not_ldh"),
        ("xn--bcher-kva.example", "name.reserved_label"),
        ("ab--cd.example", "name.reserved_label"),
        ("localhost", "name.single_label"),
        ("1.2.0.192.in-addr.arpa", "name.reverse_zone"),
        ("in-addr.arpa", "name.reverse_zone"),
        ("8.B.D.0.1.0.0.2.IP6.ARPA", "name.reverse_zone"),
    ],
)
def test_other_names_are_refused(name: str, code: str) -> None:
    """Each rule of D11, G27, G28 and G29 has its code."""
    with pytest.raises(QuashError) as caught:
        check_dns_name(name)
    assert (caught.value.code, caught.value.kind) == (code, Kind.REFUSED)


@given(st.text(max_size=80))
def test_what_passes_is_plain(name: str) -> None:
    """Whatever the text: what passes is two or more labels of letters, digits and inner hyphens."""
    try:
        check_dns_name(name)
    except QuashError as error:
        if not error.code.startswith("name."):
            raise
        return
    labels = name.split(".")
    assert len(labels) > 1
    for label in labels:
        assert label.replace("-", "a").isalnum()
        assert label.isascii()
        assert label[0] != "-" != label[-1]
