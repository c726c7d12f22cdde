"""Distinguished names: order, types and limits (D13), and reading anybody's."""

from __future__ import annotations

from unicodedata import is_normalized

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from quash.errors import QuashError
from quash.pki import der
from quash.pki.name_text import parse_name
from quash.pki.names import _NOTHING, build_name, check_country, name_attributes
from tests.support.authority import refuses_only

OIDS = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "postalCode": NameOID.POSTAL_CODE,
    "street": NameOID.STREET_ADDRESS,
    "O": NameOID.ORGANIZATION_NAME,
    "SN": NameOID.SURNAME,
    "GN": NameOID.GIVEN_NAME,
    "CN": NameOID.COMMON_NAME,
}
LIMITS = {"ST": 128, "L": 128, "postalCode": 40, "street": 128, "O": 64, "SN": 64, "GN": 64, "CN": 64}
# pyca counts octets of UTF-8 where RFC 5280 counts characters: 16 characters stay below 64 either way.
TEXT = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=16).filter(
    # Values that say nothing (D6), or that look like others, are refused: that has tests of its own.
    lambda text: any(map(str.isalnum, text)) and text.casefold() not in _NOTHING and is_normalized("NFC", text)
)


@given(
    st.fixed_dictionaries({}, optional={"C": st.sampled_from(["TN", "DE"]), **dict.fromkeys(LIMITS, TEXT)}),
    st.randoms(),
)
def test_names_are_pycas_in_the_order_of_d13(values: dict[str, str], random: object) -> None:
    """Given in any order, the Name is pyca's for C, ST, L, postal, street, O, CN, one to an RDN (D13)."""
    shuffled = list(values.items())
    random.shuffle(shuffled)
    expected = [x509.NameAttribute(oid, values[short]) for short, oid in OIDS.items() if short in values]
    name = build_name(dict(shuffled))
    assert name == x509.Name(expected).public_bytes()
    assert name_attributes(name) == [(short, values[short]) for short in OIDS if short in values]


def test_long_names_mean_the_same() -> None:
    """An attribute may be given by its name in RFC 5280."""
    assert build_name({"commonName": "Essai", "countryName": "TN"}) == build_name({"C": "TN", "CN": "Essai"})


def test_types_are_printable_for_countries_and_utf8_else() -> None:
    """countryName is a PrintableString, all else UTF8String (D13)."""
    assert build_name({"C": "TN"}).hex() == "300d310b300906035504061302544e"
    assert build_name({"CN": "A"}).hex() == "300c310a300806035504030c0141"


@pytest.mark.parametrize(("short", "limit"), LIMITS.items())
def test_values_have_limits(short: str, limit: int) -> None:
    """At most 64 characters of CN and O, 128 of ST, L and street, 40 of a postal code (D13); characters, not octets."""
    assert name_attributes(build_name({short: "é" * limit})) == [(short, "é" * limit)]
    with pytest.raises(QuashError, match=r"name\.attribute_value"):
        build_name({short: "é" * (limit + 1)})


@pytest.mark.parametrize(
    "value", ["", " ", "-", ".", "- . -", " Agence", "Agence ", "A\nB", "A\0B", "A\u200bB", "\u202eA"]
)
def test_placeholders_and_invisible_characters_are_refused(value: str) -> None:
    """Values that say nothing (D6), or say what is not seen, are refused."""
    with pytest.raises(QuashError, match=r"name\.attribute_value"):
        build_name({"O": value})


@pytest.mark.parametrize("country", ["tn", "TUN", "T", "T1", "ÀÉ", "TN\n"])
def test_countries_are_two_capitals(country: str) -> None:
    """countryName is two capital letters."""
    with pytest.raises(QuashError, match=r"name\.attribute_value"):
        build_name({"C": country})


@pytest.mark.parametrize("attribute", ["OU", "serialNumber", "emailAddress", "cn", ""])
def test_other_attributes_are_refused(attribute: str) -> None:
    """No OU, nothing that no profile of ours carries (D6, G26)."""
    with pytest.raises(QuashError, match=r"name\.attribute_unknown"):
        build_name({"CN": "Essai", attribute: "any"})


@pytest.mark.parametrize(
    "value", ["NTRTN-B12345", "VATDE-123", "NTRUS+CA-1", "GOVTN", "INTXG", "LEIXG-" + "A1" * 9 + "42"]
)
def test_registrations_have_a_form(value: str) -> None:
    """D49: organizationIdentifier names a register by SBR appendix A; anything else says nothing."""
    assert name_attributes(build_name({"organizationIdentifier": value})) == [("organizationIdentifier", value)]
    for wrong in (value.lower(), f"X{value}", "12345", "NTR-1"):
        with pytest.raises(QuashError, match=r"name\.attribute_value"):
            build_name({"organizationIdentifier": wrong})


def test_an_attribute_twice_is_refused() -> None:
    """Short and long name of one attribute cannot both be given."""
    with pytest.raises(QuashError, match=r"name\.attribute_twice"):
        build_name({"CN": "Essai", "commonName": "Essai"})


def test_names_of_others_are_read() -> None:
    """Several attributes to an RDN, old string types, unknown attributes and values that are no text."""
    attributes = [
        (der.oid("2.5.4.11"), der.tlv(0x14, b"R\xe9seau")),
        (der.oid("2.5.4.3"), der.tlv(0x1E, "Essai".encode("utf-16-be"))),
        (der.oid("2.5.4.10"), der.tlv(0x1C, "Agence".encode("utf-32-be"))),
        (der.oid("0.9.2342.19200300.100.1.25"), der.tlv(0x16, b"example")),
        (der.oid("1.2.3.4"), der.tlv(0x0C, b"any")),
        (der.oid("2.5.4.45"), der.tlv(0x03, b"\0\1")),
        (der.oid("2.5.4.7"), der.tlv(0x0C, b"\xff")),
    ]
    pairs = [der.tlv(0x30, *attribute) for attribute in attributes]
    name = der.tlv(0x30, der.tlv(0x31, *pairs[:2]), *(der.tlv(0x31, pair) for pair in pairs[2:]))
    assert name_attributes(name) == [
        ("OU", "Réseau"),
        ("CN", "Essai"),
        ("O", "Agence"),
        ("DC", "example"),
        ("1.2.3.4", "any"),
        ("2.5.4.45", "#03020001"),
        ("L", "#0c01ff"),
    ]


@pytest.mark.parametrize(
    "name", ["", "3100", "30023000", "300431023100", "3006310430020500", "300d310b300906035504060500 0500"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    """An RDN is a SET, an attribute a SEQUENCE of type and value."""
    with pytest.raises(QuashError, match=r"der\.malformed"):
        name_attributes(bytes.fromhex(name))


@given(st.binary(max_size=60))
def test_any_octets_read_or_are_malformed(data: bytes) -> None:
    """No octets make the reader do anything but return or refuse."""
    with refuses_only("der.malformed"):
        name_attributes(data)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("C=TN", {"C": "TN"}),
        ("C=DE,O=Example", {"C": "DE", "O": "Example"}),
        (r"O=Example\, Inc.,C=DE", {"C": "DE", "O": "Example, Inc."}),
        (r"C=DE,O=A \+ B \"C\" \\ D", {"C": "DE", "O": 'A + B "C" \\ D'}),
        ("C=TN,O=Société d'Essai", {"C": "TN", "O": "Société d'Essai"}),
        ("2.5.4.6=TN", {"C": "TN"}),
    ],
)
def test_names_as_text(text: str, found: dict[str, str]) -> None:
    """RFC 4514, commas in values escaped."""
    assert parse_name(text) == found


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "name.malformed"),
        (" ", "name.malformed"),
        ("DE", "name.malformed"),
        ("C", "name.malformed"),
        ("C=", "name.malformed"),
        ("=DE", "name.malformed"),
        ("C=DE,", "name.malformed"),
        (",C=DE", "name.malformed"),
        ("C=DE;O=Example", "name.malformed"),
        ("C=DE, O=Example", "name.malformed"),
        ("C=DE,O=Example, Inc.", "name.malformed"),
        ("C=DE,O=Example,Inc", "name.malformed"),
        ("C=DE+O=Example", "name.malformed"),
        ("Country=DE", "name.malformed"),
        ("c=DE", "name.malformed"),
        ("C=Germany", "name.malformed"),
        ("C=#zz", "name.malformed"),
        ("OU=PKI,C=DE", "name.attribute_unknown"),
        ("1.2.3=a,C=DE", "name.attribute_unknown"),
        ("C=DE,C=FR", "name.attribute_twice"),
        ("C=de", "name.attribute_value"),
        ("C=DE,O=-", "name.attribute_value"),
    ],
)
def test_no_part_of_a_name_is_dropped(text: str, code: str) -> None:
    """D16, D17: whoever forgets `C=` does not get a constraint that permits everything."""
    with pytest.raises(QuashError) as error:
        parse_name(text)
    assert error.value.code == code


def test_countries() -> None:
    """ISO 3166-1, not merely two letters."""
    check_country("TN")
    for code in ("ZZ", "tn", "", "UK"):
        with pytest.raises(QuashError) as error:
            check_country(code)
        assert error.value.code == "name.country"
