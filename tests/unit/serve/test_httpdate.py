"""HTTP dates, in both directions."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from hypothesis import given
from hypothesis import strategies as st

from responder.serve.httpdate import http_date, parse_http_date


@given(st.integers(0, 4_102_444_800))
def test_http_dates_are_what_the_library_reads(at: int) -> None:
    """Our dates are IMF-fixdates, and are read back to the second."""
    text = http_date(at)
    assert parsedate_to_datetime(text).timestamp() == at
    assert parse_http_date(text) == at
    assert len(text) == 29


def test_an_http_date_by_the_book() -> None:
    """The example of RFC 9110."""
    assert http_date(784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT") == 784_111_777
    assert parse_http_date("Sun Nov  6 08:49:37 1994") == 784_111_777
    assert parse_http_date("no date") is None
