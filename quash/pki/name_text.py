"""Distinguished names as people write them."""

from __future__ import annotations

from cryptography import x509

from quash.errors import QuashError
from quash.pki.names import SHORT_NAMES, build_name


def parse_name(text: str) -> dict[str, str]:
    """Attributes by short name of a name as text (RFC 4514, such as `O=Example\\, Inc.,C=DE`), one in each RDN.

    Nothing is guessed or left out. Raises `name.malformed`, `name.attribute_unknown`, `name.attribute_twice`,
    `name.attribute_value`.
    """
    try:
        rdns = x509.Name.from_rfc4514_string(text).rdns
    except ValueError:
        rdns = []
    if not rdns or any(len(list(rdn)) != 1 for rdn in rdns):
        raise QuashError(
            "name.malformed",
            f"{text!r} is no name: write C=TN, or C=TN,O=Name, without spaces around commas, and a backslash before"
            ' each of , + " \\ < > ; in a value (RFC 4514)',
        )
    found: dict[str, str] = {}
    for (attribute,) in rdns:
        short = SHORT_NAMES.get(attribute.oid.dotted_string, attribute.oid.dotted_string)
        if short in found:
            raise QuashError("name.attribute_twice", f"give {short} once")
        found[short] = str(attribute.value)
    build_name(found)
    return found
