"""quash.pki.der against asn1crypto and the calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from asn1crypto import core
from hypothesis import given
from hypothesis import strategies as st

from quash.errors import QuashError
from quash.pki import der
from tests.support.authority import refuses_only

SECONDS = st.integers(0, 253_402_300_799)


@given(st.binary(max_size=300), st.sampled_from([der.OCTET_STRING, der.SEQUENCE, 0xA0, 0x86]))
def test_tlv_reads_back(content: bytes, tag: int) -> None:
    """What tlv writes, read_tlv reads, anywhere in a buffer."""
    written = der.tlv(tag, content[:7], content[7:])
    found = der.read_tlv(b"xyz" + written + b"tail", 3)
    assert found == (tag, len(written) - len(content), 3 + len(written) - len(content), 3 + len(written))


@given(st.integers(0, 1 << 40))
def test_length_is_minimal(n: int) -> None:
    """Length octets are those of X.690 10.1: short below 128, else the fewest octets."""
    octets = der.length(n)
    if n < 128:
        assert octets == bytes([n])
    else:
        assert octets[0] == 0x80 + len(octets) - 1
        assert octets[1] != 0
        assert int.from_bytes(octets[1:], "big") == n


@given(st.integers(-(1 << 300), 1 << 300))
def test_integer_is_asn1cryptos(value: int) -> None:
    """INTEGERs are those of asn1crypto, and read back."""
    written = der.integer(value)
    assert written == core.Integer(value).dump()
    start, end = der.only(written, der.INTEGER)
    assert der.read_integer(written[start:end]) == value


@pytest.mark.parametrize("content", ["", "0000", "007f", "ffff", "ff80", "0001ff"])
def test_integer_must_be_minimal(content: str) -> None:
    """An INTEGER that is empty or has a superfluous first octet is refused (X.690 8.3.2)."""
    with pytest.raises(QuashError, match=r"der\.malformed"):
        der.read_integer(bytes.fromhex(content))


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 1 << 70), max_size=6))
def test_oid_is_asn1cryptos(first: int, second: int, rest: list[int]) -> None:
    """OBJECT IDENTIFIERs are those of asn1crypto, and read back."""
    dotted = ".".join(map(str, [first, second, *rest]))
    written = der.oid(dotted)
    assert written == core.ObjectIdentifier(dotted).dump()
    assert der.read_oid(written[2:]) == dotted


@pytest.mark.parametrize("content", ["", "80", "2a80", "2a8001", "ff"])
def test_oid_must_be_minimal_and_whole(content: str) -> None:
    """An OBJECT IDENTIFIER that is empty, ends early or pads an arc is refused."""
    with pytest.raises(QuashError, match=r"der\.malformed"):
        der.read_oid(bytes.fromhex(content))


@given(SECONDS)
def test_times_are_the_calendars(at: int) -> None:
    """Both time forms say the calendar's moment, in Zulu with seconds (A29), and read back."""
    moment = datetime.fromtimestamp(at, UTC)
    long = der.generalized_time(at)
    assert long == b"\x18\x0f" + moment.strftime("%4Y%m%d%H%M%SZ").encode()
    assert der.read_time(0x18, long[2:]) == at
    either = der.utc_or_generalized_time(at)
    assert der.read_time(either[0], either[2:]) == at


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (0, b"\x17\x0d700101000000Z"),
        (2_524_607_999, b"\x17\x0d491231235959Z"),
        (2_524_608_000, b"\x18\x0f20500101000000Z"),
        (951_782_400, b"\x17\x0d000229000000Z"),
    ],
)
def test_form_of_time_changes_in_2050(at: int, expected: bytes) -> None:
    """UTCTime through 2049, GeneralizedTime from 2050 (B19)."""
    assert der.utc_or_generalized_time(at) == expected


def test_utc_time_means_1950_to_2049() -> None:
    """Two digits of a year from 50 mean the last century (RFC 5280 4.1.2.5.1)."""
    assert der.read_time(0x17, b"500101000000Z") == int(datetime(1950, 1, 1, tzinfo=UTC).timestamp())
    assert der.read_time(0x17, b"491231235959Z") == 2_524_607_999


@pytest.mark.parametrize(
    ("tag", "content"),
    [
        (0x17, b"2601010000Z"),
        (0x17, b"260101000000+0100"),
        (0x17, b"20260101000000Z"),
        (0x17, b"261301000000Z"),
        (0x17, b"260229000000Z"),
        (0x17, b"260101240000Z"),
        (0x17, b"260101006000Z"),
        (0x17, b"260101000060Z"),
        (0x17, b"26010100000 Z"),
        (0x18, b"20260101000000.5Z"),
        (0x18, b"20260101000000"),
        (0x18, b"00000101000000Z"),
        (0x04, b"20260101000000Z"),
    ],
)
def test_other_forms_of_time_are_refused(tag: int, content: bytes) -> None:
    """No zone, no fraction, no missing seconds, no day or hour that does not exist (A29, B19)."""
    with pytest.raises(QuashError, match=r"der\.malformed"):
        der.read_time(tag, content)


@pytest.mark.parametrize("at", [-1, 253_402_300_800])
def test_times_outside_the_calendar_are_refused(at: int) -> None:
    """A time that GeneralizedTime cannot express, or before 1970, has its own code."""
    with pytest.raises(QuashError, match=r"der\.time_range"):
        der.generalized_time(at)


@pytest.mark.parametrize(
    "data",
    ["", "30", "3003020100ff"[:8], "3080020101 0000", "308101 00", "30820001 00", "1f2100", "3085ffffffffff", "3081"],
)
def test_ber_and_truncation_are_refused(data: str) -> None:
    """Indefinite, non-minimal and over-long lengths, long tags and truncated values are refused."""
    with pytest.raises(QuashError, match=r"der\.malformed"):
        der.only(bytes.fromhex(data), der.SEQUENCE)


def test_trailing_octets_and_wrong_tags_are_refused() -> None:
    """`only` wants one TLV of the tag and nothing after it."""
    for data in (b"\x30\0\0", b"\x31\0"):
        with pytest.raises(QuashError, match=r"der\.malformed"):
            der.only(data, der.SEQUENCE)


@given(st.binary(max_size=60))
def test_any_octets_read_or_are_refused(data: bytes) -> None:
    """Whatever the octets, the reader returns positions inside them or raises its one error."""
    with refuses_only("der.malformed"):
        _, header, start, end = der.read_tlv(data, 0)
        assert 2 <= header == start <= end <= len(data)


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_children_are_what_was_put_in(contents: list[bytes]) -> None:
    """The children of a SEQUENCE are its TLVs in order, each with where it begins."""
    parts = [der.tlv(der.OCTET_STRING, content) for content in contents]
    data = der.tlv(der.SEQUENCE, *parts)
    found = list(der.children(data, *der.only(data, der.SEQUENCE)))
    assert [data[start:end] for _, _, start, end in found] == contents
    assert [data[offset:end] for _, offset, _, end in found] == parts
