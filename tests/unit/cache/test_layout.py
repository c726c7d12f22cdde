"""The bytes of records, feed payloads and keys."""

from __future__ import annotations

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quash.cache import layout
from quash.cache.layout import IssuerRow, Record, TemplateRow
from quash.errors import QuashError
from tests.golden import layout_v1

TIMES = st.integers(0, 2**32 - 1)
SERIALS = st.binary(min_size=1, max_size=64)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Any record the layout can hold."""
    good = draw(st.booleans())
    this_update = draw(TIMES)
    size = draw(st.sampled_from([1, 64, 96, 132, 256, 512]))
    return Record(
        version=draw(st.integers(0, 2**15 - 1)),
        reason=None if good else draw(st.integers(0, 14)),
        revoked_at=0 if good else draw(TIMES),
        this_update=this_update,
        next_update=this_update + draw(st.integers(1, 2**28 - 1)),
        signer_id=draw(st.integers(0, 2**15 - 1)),
        signatures=(draw(st.binary(min_size=size, max_size=size)), draw(st.binary(min_size=size, max_size=size))),
    )


@given(records())
def test_record_survives_its_encoding(record: Record) -> None:
    """Whatever is encoded is decoded again, field by field."""
    assert layout.decode_record(layout.encode_record(record)) == record


@given(records(), records())
def test_byte_order_refines_the_order_of_records(a: Record, b: Record) -> None:
    """The byte-wise greater record is never the one with the smaller (version, thisUpdate)."""
    x, y = layout.encode_record(a), layout.encode_record(b)
    assert layout.record_order(x) == (a.version, a.this_update)
    if layout.record_order(x) < layout.record_order(y):
        assert x < y


def test_p256_record_is_145_octets() -> None:
    """The size budget counts on 17 octets and two signatures of 64."""
    record = Record(0, None, 0, 1_800_000_000, 1_800_172_799, 1, (b"a" * 64, b"b" * 64))
    assert len(layout.encode_record(record)) == 145


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2**15},
        {"version": -1},
        {"reason": 15, "revoked_at": 1},
        {"revoked_at": 1},
        {"this_update": 2**32},
        {"next_update": 100},
        {"next_update": 100 + 2**28},
        {"signer_id": 2**15},
        {"signatures": (b"a", b"bb")},
        {"signatures": (b"", b"")},
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    """A value that the layout cannot hold raises instead of wrapping around."""
    fields: dict[str, object] = {
        "version": 0,
        "reason": None,
        "revoked_at": 0,
        "this_update": 100,
        "next_update": 200,
        "signer_id": 1,
        "signatures": (b"a", b"b"),
    }
    layout.encode_record(Record(**fields))  # type: ignore[arg-type]
    with pytest.raises(QuashError, match=r"cache\.bad_layout"):
        layout.encode_record(Record(**(fields | change)))  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 2**15 - 1), SERIALS, st.binary(max_size=200))))
def test_batch_survives_its_encoding(items: list[tuple[int, bytes, bytes]]) -> None:
    """A feed row gives back the records it was made of, in order."""
    assert list(layout.decode_batch(layout.encode_batch(items))) == items


@given(st.integers(0, 2**15 - 1), SERIALS)
def test_key_survives_its_encoding(issuer_id: int, serial: bytes) -> None:
    """Key and (issuer, serial) are the same thing."""
    assert layout.split_key(layout.record_key(issuer_id, serial)) == (issuer_id, serial)


@given(st.integers(0, 2**15), st.integers(0, 2**15), st.text(max_size=30), st.binary(max_size=2000))
def test_template_survives_its_encoding(signer_id: int, issuer_id: int, algorithm: str, certificate: bytes) -> None:
    """A signer's row gives back what it was made of."""
    row = TemplateRow(signer_id, issuer_id, algorithm, certificate)
    assert layout.decode_template(layout.encode_template(row)) == row


@given(st.text(max_size=30), st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 2**40))
def test_issuer_survives_its_encoding(text: str, subject: bytes, spki: bytes, number: int) -> None:
    """An issuer's row gives back what it was made of."""
    row = IssuerRow(3, text, subject, spki, b"certificate", text, number, number)
    assert layout.decode_issuer(layout.encode_issuer(row)) == row


@given(st.integers(0, 2**40))
def test_heartbeat_survives_its_encoding(at: int) -> None:
    """A heartbeat is its time."""
    assert layout.decode_heartbeat(layout.encode_heartbeat(at)) == at


DECODERS = [
    layout.decode_record,
    lambda data: list(layout.decode_batch(data)),
    layout.decode_template,
    layout.decode_issuer,
    layout.decode_heartbeat,
]


@pytest.mark.parametrize("decode", DECODERS)
@given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: b"\x01" + tail)))
def test_foreign_bytes_raise_the_layout_error_only(decode: object, data: bytes) -> None:
    """Bytes that nobody encoded are decoded or refused, never with an exception of another kind.

    Those that begin as a later release's would are told apart: a reader waits for those, and passes over the others.
    """
    codes = []
    try:
        decode(data)  # type: ignore[operator]
    except QuashError as error:
        codes.append(error.code)
    later = data[:1] and 2 <= data[0] <= 15
    assert codes in ([], ["cache.bad_layout"], *([["cache.newer_format"]] if later else []))


@pytest.mark.parametrize(
    "data",
    [
        layout.encode_batch([(1, b"s", b"record")])[:-1],
        layout.encode_template(TemplateRow(1, 1, "x", b"c"))[:-1],
        layout.encode_template(TemplateRow(1, 1, "x", b"c")) + b"\0",
        layout.encode_heartbeat(7)[:-1],
        b"\x10" + layout.encode_heartbeat(7)[1:],
        b"",
    ],
)
def test_cut_or_foreign_payloads_are_refused(data: bytes) -> None:
    """No decoder takes a payload that is cut short, too long or of another format."""
    for decode in DECODERS:
        with pytest.raises(QuashError, match=r"cache\.bad_layout"):
            decode(data)


ISSUER = IssuerRow(7, "tls-dv", b"subject", b"spki", b"certificate", "tls-dv", 1800, 345_599)
TEMPLATE = TemplateRow(3, 7, "ecdsa-p256-sha256", b"certificate")


@pytest.mark.parametrize("form", layout.ROW_FORMATS)
def test_rows_of_both_formats_are_read(form: int) -> None:
    """Whichever the presigner writes."""
    assert layout.decode_issuer(layout.encode_issuer(ISSUER, form)) == ISSUER
    assert layout.decode_template(layout.encode_template(TEMPLATE, form)) == TEMPLATE


def test_fields_of_a_later_release_are_passed_over_in_format_2_alone() -> None:
    """What format 2 is for; format 1 promises exactly its fields."""
    more = (5).to_bytes(4, "big") + b"later"
    assert layout.decode_issuer(layout.encode_issuer(ISSUER, 2) + more) == ISSUER
    assert layout.decode_template(layout.encode_template(TEMPLATE, 2) + more + more) == TEMPLATE
    for row in (layout.encode_issuer(ISSUER, 1) + more, layout.encode_issuer(ISSUER, 2) + more[:-1]):
        with pytest.raises(QuashError, match=r"cache\.bad_layout"):
            layout.decode_issuer(row)


def test_the_release_before_and_this_one_read_each_other() -> None:
    """Format 1 is the same octets to both; format 2 the one before refuses, and so it is not written while it runs."""
    for mine, theirs in ((layout, layout_v1), (layout_v1, layout)):
        issuer, template = astuple(ISSUER), astuple(TEMPLATE)
        assert astuple(theirs.decode_issuer(mine.encode_issuer(mine.IssuerRow(*issuer)))) == issuer
        assert astuple(theirs.decode_template(mine.encode_template(mine.TemplateRow(*template)))) == template
        record = mine.Record(1, 4, 99, 100, 200, 3, (b"a" * 64, b"b" * 64))
        assert tuple(theirs.decode_record(mine.encode_record(record))) == tuple(record)
        batch = [(7, b"serial", mine.encode_record(record))]
        assert list(theirs.decode_batch(mine.encode_batch(batch))) == batch
        assert theirs.decode_heartbeat(mine.encode_heartbeat(9)) == 9
    with pytest.raises(QuashError, match=r"cache\.bad_layout"):
        layout_v1.decode_issuer(layout.encode_issuer(ISSUER, 2))
