"""Serial numbers: octets in code and database (the content of the DER INTEGER), hexadecimal text outside."""

from __future__ import annotations

import re
import secrets

from quash.errors import QuashError
from quash.pki import der

MAX_OCTETS = 64  # what the store holds; our own have 16, RFC 5280 allows 20, imports bring what they bring
_TEXT = re.compile(r"(-?)(?:0[xX])?([0-9A-Fa-f]{1,2}(?::[0-9A-Fa-f]{2})+|[0-9A-Fa-f]+)")


def new_serial() -> bytes:
    """A fresh serial (D1): 16 octets, positive, with 126.9 bits of randomness.

    The first octet is 1 to 127: zero would make the DER INTEGER shorter, 128 and above negative.
    """
    return bytes((1 + secrets.randbelow(127),)) + secrets.token_bytes(15)


def parse_serial(text: str) -> bytes:
    """Octets of a serial in hexadecimal: any case, with or without `0x` and colons, leading zeros ignored.

    A minus sign is read as OpenSSL writes it: old CAs issued negative serials. Raises `serial.malformed`,
    `serial.too_long`.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise QuashError("serial.malformed", "give the serial in hexadecimal, for example 0a:1b:2c or 0A1B2C")
    content = der.integer_content(int(match[1] + match[2].replace(":", ""), 16))
    if len(content) > MAX_OCTETS:
        raise QuashError("serial.too_long", f"a serial has at most {MAX_OCTETS} octets, this one has {len(content)}")
    return content


def format_serial(serial: bytes) -> str:
    """Lower-case hexadecimal without leading zeros."""
    return f"{int.from_bytes(serial, 'big', signed=True):x}"
