"""DER, written and read: just what certificates, CRLs and OCSP need.

Writers return whole TLVs. Readers are strict: definite minimal lengths, single-octet tags, nothing beyond the buffer;
whatever they refuse is `QuashError("der.malformed")`. Offsets, not slices, so that a CRL of a million entries is walked
without copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import lru_cache

from quash.errors import QuashError

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, ENUMERATED = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A
UTF8_STRING, PRINTABLE_STRING, IA5_STRING, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x13, 0x16, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31

_DAY = 86_400
_UNIX_EPOCH = date(1970, 1, 1).toordinal()
_TIME_DIGITS = {UTC_TIME: 12, GENERALIZED_TIME: 14}
_YEAR_2050 = 2_524_608_000  # the first second that UTCTime must not express (B19)
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z, the last that GeneralizedTime can express


def malformed(what: str) -> QuashError:
    """The error for input that is not the strict DER we expect."""
    return QuashError("der.malformed", f"not the DER expected: {what}; send strict DER")


def length(n: int) -> bytes:
    """Definite, minimal length octets for `n` content octets."""
    if n < 0x80:
        return bytes((n,))
    octets = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


def tlv(tag: int, *content: bytes) -> bytes:
    """One TLV around the joined contents."""
    return b"".join((bytes((tag,)), length(sum(map(len, content))), *content))


def integer(value: int) -> bytes:
    """INTEGER, minimal two's complement."""
    return tlv(INTEGER, integer_content(value))


def integer_content(value: int) -> bytes:
    """The content octets of an INTEGER: minimal two's complement."""
    bits = (value if value >= 0 else ~value).bit_length()
    return value.to_bytes(bits // 8 + 1, "big", signed=True)


@lru_cache(maxsize=1024)
def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER from its dotted text."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return tlv(OID, *(_base128(arc) for arc in (40 * first + second, *rest)))


def _base128(arc: int) -> bytes:
    octets = [arc & 0x7F]
    while arc := arc >> 7:
        octets.append(0x80 | (arc & 0x7F))
    return bytes(reversed(octets))


@lru_cache(maxsize=4096)
def _day_text(day: int) -> bytes:
    return date.fromordinal(_UNIX_EPOCH + day).strftime("%Y%m%d").encode()


@lru_cache(maxsize=65_536)
def time_text(at: int) -> bytes:
    """`YYYYMMDDHHMMSSZ`, the 15 content octets of a GeneralizedTime (A29: Zulu, seconds, no fraction)."""
    if not 0 <= at <= _LAST_SECOND:
        raise QuashError("der.time_range", f"{at} is not a Unix time from 1970 to 9999")
    day, second = divmod(at, _DAY)
    minute, second = divmod(second, 60)
    return b"%b%02d%02d%02dZ" % (_day_text(day), minute // 60, minute % 60, second)


def generalized_time(at: int) -> bytes:
    """GeneralizedTime of Unix seconds (A29)."""
    return b"\x18\x0f" + time_text(at)


@lru_cache(maxsize=65_536)
def utc_or_generalized_time(at: int) -> bytes:
    """UTCTime through 2049, GeneralizedTime from 2050 (B19)."""
    return b"\x17\x0d" + time_text(at)[2:] if at < _YEAR_2050 else generalized_time(at)


def read_tlv(data: bytes, offset: int, end: int | None = None) -> tuple[int, int, int, int]:
    """Reads the TLV at `offset`: (tag, header length, content start, content end). It must lie before `end`."""
    limit = len(data) if end is None else end
    if offset + 2 > limit:
        raise malformed("it ends early")
    tag, size = data[offset], data[offset + 1]
    if tag & 0x1F == 0x1F:
        raise malformed("a tag of several octets")
    start = offset + 2
    if size >= 0x80:
        start += size & 0x7F
        size = _long_length(data, offset + 2, start, limit)
    if start + size > limit:
        raise malformed("it ends early")
    return tag, start - offset, start, start + size


def _long_length(data: bytes, begin: int, end: int, limit: int) -> int:
    """The length in its long form; indefinite (no octet) and non-minimal forms are BER, not DER."""
    if end == begin or end > limit:
        raise malformed("an indefinite or truncated length")
    size = int.from_bytes(data[begin:end], "big")
    if size < 0x80 or data[begin] == 0:
        raise malformed("a length that is not minimal")
    return size


def expect(data: bytes, offset: int, tag: int, end: int | None = None) -> tuple[int, int]:
    """Reads the TLV at `offset`, which must have this tag: (content start, content end)."""
    found, _, start, stop = read_tlv(data, offset, end)
    if found != tag:
        raise malformed(f"tag {found:#04x} where {tag:#04x} belongs")
    return start, stop


def only(data: bytes, tag: int) -> tuple[int, int]:
    """Reads `data` as one TLV of this tag with nothing after it: (content start, content end)."""
    start, end = expect(data, 0, tag)
    if end != len(data):
        raise malformed("trailing octets")
    return start, end


def children(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The TLVs that fill [start, end): (tag, offset, content start, content end) of each."""
    offset = start
    while offset < end:
        tag, _, content, stop = read_tlv(data, offset, end)
        yield tag, offset, content, stop
        offset = stop


def read_integer(content: bytes) -> int:
    """The value of an INTEGER's or ENUMERATED's content octets, which must be minimal."""
    check_integer(content)
    return int.from_bytes(content, "big", signed=True)


def check_integer(content: bytes) -> None:
    """Refuses content octets that are empty or not minimal two's complement."""
    if not content or (len(content) > 1 and content[0] in (0, 0xFF) and content[0] >> 7 == content[1] >> 7):
        raise malformed("an integer that is empty or not minimal")


@lru_cache(maxsize=1024)
def read_oid(content: bytes) -> str:
    """The dotted text of an OBJECT IDENTIFIER's content octets."""
    if not content or content[-1] & 0x80:
        raise malformed("an object identifier that ends early")
    arcs, arc, fresh = [], 0, True
    for octet in content:
        if fresh and octet == 0x80:
            raise malformed("an object identifier that is not minimal")
        arc = arc << 7 | octet & 0x7F
        fresh = not octet & 0x80
        if fresh:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def read_time(tag: int, content: bytes) -> int:
    """Unix seconds of a UTCTime or GeneralizedTime in the one form that profiles allow: Zulu, seconds, no fraction."""
    digits = content[:-1]
    if content[-1:] != b"Z" or len(digits) != _TIME_DIGITS.get(tag) or not digits.isdigit():
        raise malformed("a time that is not Zulu with seconds and without fraction")
    if tag == UTC_TIME:  # RFC 5280 4.1.2.5.1: 50 to 99 mean the last century
        digits = (b"19" if digits[:2] >= b"50" else b"20") + digits
    hour, minute, second = int(digits[8:10]), int(digits[10:12]), int(digits[12:])
    try:
        day = date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])).toordinal() - _UNIX_EPOCH
    except ValueError:
        raise malformed("a day that no calendar knows") from None
    if hour > 23 or minute > 59 or second > 59:
        raise malformed("a time that no day has")
    return day * _DAY + hour * 3600 + minute * 60 + second
