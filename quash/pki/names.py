"""Distinguished names: built to D13, and read for people."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from iso3166 import countries_by_alpha2

from quash.errors import Kind, QuashError
from quash.pki import der


class _Attribute(NamedTuple):
    short: str
    long: str
    oid: str
    tag: int
    limit: int  # characters, RFC 5280 appendix A and BR 7.1.4.2


# D13: one attribute per RDN, in this order. OU is absent: no profile of ours has it (D6, D14, D15, G26). Names of
# persons and organizationIdentifier stand in S/MIME certificates alone (D49), which profiles see to.
_ATTRIBUTES = (
    _Attribute("C", "countryName", "2.5.4.6", der.PRINTABLE_STRING, 2),
    _Attribute("ST", "stateOrProvinceName", "2.5.4.8", der.UTF8_STRING, 128),
    _Attribute("L", "localityName", "2.5.4.7", der.UTF8_STRING, 128),
    _Attribute("postalCode", "postalCode", "2.5.4.17", der.UTF8_STRING, 40),
    _Attribute("street", "streetAddress", "2.5.4.9", der.UTF8_STRING, 128),
    _Attribute("O", "organizationName", "2.5.4.10", der.UTF8_STRING, 64),
    _Attribute("organizationIdentifier", "organizationIdentifier", "2.5.4.97", der.UTF8_STRING, 128),
    _Attribute("SN", "surname", "2.5.4.4", der.UTF8_STRING, 64),
    _Attribute("GN", "givenName", "2.5.4.42", der.UTF8_STRING, 64),
    _Attribute("CN", "commonName", "2.5.4.3", der.UTF8_STRING, 64),
)
_REGISTRATION = re.compile(
    "(NTR|VAT|PSD)[A-Z]{2}(\\+[A-Z]{1,2})?-.+|LEIXG-[A-Z0-9]{18}[0-9]{2}|GOV[A-Z]{2}(\\+[A-Z]{1,2})?|INTXG"
)
_BY_NAME = {name: attribute for attribute in _ATTRIBUTES for name in (attribute.short, attribute.long)}
SHORT_NAMES: Mapping[str, str] = MappingProxyType({attribute.oid: attribute.short for attribute in _ATTRIBUTES})
"""Short name by dotted OID of what `build_name` knows."""
_SHORT = {der.oid(attribute.oid): attribute.short for attribute in _ATTRIBUTES} | {
    der.oid("2.5.4.11"): "OU",
    der.oid("2.5.4.5"): "serialNumber",
    der.oid("0.9.2342.19200300.100.1.25"): "DC",
    der.oid("1.2.840.113549.1.9.1"): "emailAddress",
}
_CODECS = {
    der.UTF8_STRING: "utf-8",
    der.PRINTABLE_STRING: "ascii",
    der.IA5_STRING: "ascii",
    0x14: "latin-1",  # TeletexString, as every implementation reads it
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
_COUNTRY = re.compile("[A-Z]{2}")
# D6: what says that there is no value, and what OpenSSL says for those who say nothing.
_NOTHING = frozenset(
    {
        *("n/a", "n.a.", "not applicable", "not available", "unknown", "undefined"),
        *("some-state", "default city", "default company ltd", "internet widgits pty ltd"),
    }
)


def build_name(attributes: Mapping[str, str]) -> bytes:
    """DER Name of attributes by short or long name (`C` or `countryName`), whatever their order (D13).

    Raises `name.attribute_unknown`, `name.attribute_twice`, `name.attribute_value`.
    """
    values: dict[_Attribute, str] = {}
    for name, value in attributes.items():
        attribute = _BY_NAME.get(name)
        if attribute is None:
            raise QuashError("name.attribute_unknown", f"{name} does not belong into a name: use {', '.join(_BY_NAME)}")
        if attribute in values:
            raise QuashError("name.attribute_twice", f"give {attribute.short} once")
        _check_value(attribute, value)
        values[attribute] = value
    return der.tlv(der.SEQUENCE, *(_rdn(a, values[a]) for a in _ATTRIBUTES if a in values))


def check_country(code: str) -> None:
    """Raises `name.country` unless ISO 3166-1 has the two letters: `build_name` asks for their form alone."""
    if code not in countries_by_alpha2:
        raise QuashError("name.country", f"{code} is no country of ISO 3166-1", Kind.REFUSED)


def _check_value(attribute: _Attribute, value: str) -> None:
    """Refuses empty and over-long values, invisible characters, placeholders such as "-" or "N/A", and what looks like
    another value but has other octets (D6)."""
    if attribute.short == "C" and not _COUNTRY.fullmatch(value):
        raise QuashError("name.attribute_value", "C is a country's two capital letters (ISO 3166)")
    if attribute.short == "organizationIdentifier" and not _REGISTRATION.fullmatch(value):
        raise QuashError(
            "name.attribute_value", "organizationIdentifier is NTR, VAT, PSD, LEI, GOV or INT by SBR appendix A"
        )
    if (
        not 0 < len(value) <= attribute.limit
        or value != value.strip()
        or not value.isprintable()
        or not any(map(str.isalnum, value))
        or value.casefold() in _NOTHING
        or not unicodedata.is_normalized("NFC", value)
    ):
        raise QuashError(
            "name.attribute_value",
            f"{attribute.short} has 1 to {attribute.limit} printable characters that say something",
        )


def _rdn(attribute: _Attribute, value: str) -> bytes:
    text = der.tlv(attribute.tag, value.encode(_CODECS[attribute.tag]))
    return der.tlv(der.SET, der.tlv(der.SEQUENCE, der.oid(attribute.oid), text))


def name_attributes(name: bytes) -> list[tuple[str, str]]:
    """(short name or dotted OID, text) of a DER Name's attributes in their order. Raises `der.malformed`.

    Reads the names of others too: several attributes in an RDN follow one another; a value that is no string is `#` and
    hexadecimal DER (RFC 4514 2.4).
    """
    found = []
    for tag, _, start, end in der.children(name, *der.only(name, der.SEQUENCE)):
        if tag != der.SET:
            raise der.malformed("an RDN that is no SET")
        for tag_, _, begin, stop in der.children(name, start, end):
            if tag_ != der.SEQUENCE:
                raise der.malformed("an attribute that is no SEQUENCE")
            found.append(_attribute(name, begin, stop))
    return found


def _attribute(data: bytes, start: int, end: int) -> tuple[str, str]:
    begin, value = der.expect(data, start, der.OID, end)
    tag, _, first, last = der.read_tlv(data, value, end)
    if last != end:
        raise der.malformed("fields after an attribute's value")
    name = _SHORT.get(data[start:value]) or der.read_oid(data[begin:value])
    try:
        return name, data[first:last].decode(_CODECS[tag])
    except (KeyError, UnicodeDecodeError):
        return name, "#" + data[value:last].hex()
