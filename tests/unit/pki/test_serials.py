"""Serials: randomness, octets and text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quash.errors import QuashError
from quash.pki import der
from quash.pki.serials import MAX_OCTETS, format_serial, new_serial, parse_serial


def test_new_serials_are_positive_and_of_16_octets() -> None:
    """A fresh serial is a minimal positive INTEGER of 16 octets, below 2^159, and never comes twice (D1)."""
    serials = [new_serial() for _ in range(20_000)]
    assert len(set(serials)) == len(serials)
    for serial in serials:
        assert len(serial) == 16
        assert 0 < int.from_bytes(serial, "big", signed=True) < 1 << 159
        der.check_integer(serial)


def test_new_serials_use_every_bit() -> None:
    """Over many serials each of the 127 free bits is sometimes 0 and sometimes 1 (D1: at least 64 random bits)."""
    numbers = [int.from_bytes(new_serial(), "big") for _ in range(2_000)]
    ones, zeros = 0, 0
    for number in numbers:
        ones |= number
        zeros |= ~number
    everything = (1 << 127) - 1
    assert ones == everything
    assert zeros & everything == everything


@given(st.integers(-(1 << 500), (1 << 511) - 1))
def test_text_and_octets_agree(number: int) -> None:
    """Text is the number in lower-case hexadecimal without leading zeros; it reads back to the same octets."""
    content = der.integer_content(number)
    assert format_serial(content) == f"{number:x}"
    assert parse_serial(format_serial(content)) == content


@pytest.mark.parametrize(
    ("text", "serial"),
    [
        ("0a1b2c", "0a1b2c"),
        ("0A:1B:2C", "0a1b2c"),
        ("a:1b:2c", "0a1b2c"),
        ("0x0a1B2c", "0a1b2c"),
        ("0X0A:1B:2C", "0a1b2c"),
        (" 000000ff\n", "00ff"),
        ("80", "0080"),
        ("0", "00"),
        ("1", "01"),
        ("-80", "80"),
        ("-1", "ff"),
    ],
)
def test_every_usual_form_is_read(text: str, serial: str) -> None:
    """Any case, with or without 0x, colons and leading zeros; OpenSSL's minus sign."""
    assert parse_serial(text).hex() == serial


@pytest.mark.parametrize("text", ["", "0x", "g1", "1 2", "1_2", "12:3", ":12", "12:", "1::2", "--1", "+1", "١٢"])
def test_other_text_is_refused(text: str) -> None:
    """What is not hexadecimal is refused with its code."""
    with pytest.raises(QuashError, match=r"serial\.malformed"):
        parse_serial(text)


def test_over_long_serials_are_refused() -> None:
    """64 octets are the most that the store keeps; leading zeros do not count."""
    assert len(parse_serial("7f" * MAX_OCTETS)) == MAX_OCTETS
    assert parse_serial("00" * 500 + "7f") == b"\x7f"
    with pytest.raises(QuashError, match=r"serial\.too_long"):
        parse_serial("ff" * MAX_OCTETS)
