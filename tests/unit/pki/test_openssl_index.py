"""The reader of OpenSSL's index: every flag, every reason, and lines that lost something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quash.pki.openssl_index import IndexEntry, read_index
from quash.pki.reasons import Reason

VALID = b"V\t271121000000Z\t\t0A\tunknown\t/CN=valid"
REVOKED = b"R\t271121000000Z\t261101120000Z,keyCompromise\t0B\tunknown\t/CN=revoked"
EXPIRED = b"E\t20200101000000Z\t\t0C\tunknown\t/CN=expired"


def index(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def test_reads_the_three_flags() -> None:
    """V, R and E lines come back with their times; UTCTime and GeneralizedTime are read alike."""
    read = read_index(index(VALID, REVOKED, EXPIRED))
    assert read.entries == [
        IndexEntry(1, b"\x0a", 1826755200, None, None),
        IndexEntry(2, b"\x0b", 1826755200, Reason.keyCompromise, 1793534400),
        IndexEntry(3, b"\x0c", 1577836800, None, None),
    ]
    assert not read.bad
    assert not read.warnings


@pytest.mark.parametrize(
    ("written", "reason", "warned"),
    [
        (b"", Reason.unspecified, False),
        (b",unspecified", Reason.unspecified, False),
        (b",keyCompromise", Reason.keyCompromise, False),
        (b",CACompromise", Reason.keyCompromise, True),
        (b",affiliationChanged", Reason.affiliationChanged, False),
        (b",superseded", Reason.superseded, False),
        (b",cessationOfOperation", Reason.cessationOfOperation, False),
        (b",certificateHold", Reason.unspecified, True),
        (b",removeFromCRL", Reason.unspecified, True),
        (b",holdInstruction,1.2.840.10040.2.2", Reason.unspecified, True),
        (b",keyTime,20260101000000Z", Reason.keyCompromise, True),
        (b",CAkeyTime,20260101000000Z", Reason.keyCompromise, True),
        (b",nonsense", Reason.unspecified, True),
    ],
)
def test_maps_openssl_reasons(written: bytes, reason: Reason, warned: bool) -> None:
    """A compromise stays one; what B11 does not allow becomes unspecified; the date stays; each change is warned of."""
    read = read_index(index(REVOKED.replace(b",keyCompromise", written)))
    assert [(entry.reason, entry.revoked_at) for entry in read.entries] == [(reason, 1793534400)]
    assert bool(read.warnings) == warned
    assert not read.bad


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (b"V\t271121000000Z\t\t0A\tunknown", False),
        (b"X\t271121000000Z\t\t0A\tunknown\t/CN=x", False),
        (b"V\tnever\t\t0A\tunknown\t/CN=x", False),
        (b"V\t271341000000Z\t\t0A\tunknown\t/CN=x", False),
        (b"V\t271121000000Z\t\tzz\tunknown\t/CN=x", False),
        (b"V\t271121000000Z\t261101120000Z\t0A\tunknown\t/CN=x", False),
        (b"R\tnever\t261101120000Z\t0B\tunknown\t/CN=x", True),
        (b"R\t271121000000Z\tnever,superseded\t0B\tunknown\t/CN=x", True),
        (b"R\t271121000000Z\t261101120000Z\t0B\tunknown", True),
        (b"R\t271121000000Z\t261101120000Z\t\tunknown\t/CN=x", False),
    ],
)
def test_bad_lines_keep_a_readable_revocation(line: bytes, kept: bool) -> None:
    """An unreadable line is reported with its number; a revoked one with a serial is imported nonetheless."""
    read = read_index(index(VALID, line))
    assert {bad.line for bad in read.bad} == {2}
    assert [entry.line for entry in read.entries] == ([1, 2] if kept else [1])
    assert all(entry.revoked for entry in read.entries[1:])


@pytest.mark.parametrize("cut", range(1, len(REVOKED) + 1))
def test_a_truncated_file_is_noticed_wherever_it_was_cut(cut: int) -> None:
    """A file that ends within a line is bad, and a serial that may be half a serial is not taken for a whole one."""
    read = read_index(index(VALID) + REVOKED[:cut])
    assert {bad.line for bad in read.bad} == {2}
    assert all(entry.serial in (b"\x0a", b"\x0b") for entry in read.entries)


def test_a_serial_on_two_lines_stays_revoked() -> None:
    """Of two lines with one serial, the revoked one counts, in either order, and the second is reported."""
    again = VALID.replace(b"\t0A\t", b"\t0B\t")
    for lines in ((REVOKED, again), (again, REVOKED)):
        read = read_index(index(*lines))
        assert [entry.reason for entry in read.entries] == [Reason.keyCompromise]
        assert [bad.line for bad in read.bad] == [2]


@given(st.binary(max_size=400))
def test_never_raises_and_accounts_for_every_line(data: bytes) -> None:
    """Whatever the bytes, each line with anything on it is an entry, a bad line, or both."""
    read = read_index(data)
    seen = {entry.line for entry in read.entries} | {bad.line for bad in read.bad}
    lines = data.split(b"\n")
    assert seen == {n for n, line in enumerate(lines, 1) if line.strip() and not line.startswith(b"#")}


@pytest.mark.parametrize("lines", [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])
def test_of_two_lines_of_one_serial_the_graver_counts(lines: tuple[int, int]) -> None:
    """In any order: revoked before valid, for keyCompromise before any other reason; reported in any case."""
    texts = (
        b"R\t301121000000Z\t261101000000Z,keyCompromise\t1000\tunknown\t/CN=a\n",
        b"R\t301121000000Z\t261101000000Z,superseded\t1000\tunknown\t/CN=a\n",
        b"V\t301121000000Z\t\t1000\tunknown\t/CN=a\n",
    )
    index = read_index(b"".join(texts[line] for line in lines))
    wanted = {0: Reason.keyCompromise, 1: Reason.superseded}
    assert [entry.reason for entry in index.entries] == [wanted[min(lines)]]
    assert [bad.line for bad in index.bad] == [2]
