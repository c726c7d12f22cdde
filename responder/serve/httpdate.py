"""HTTP dates (RFC 9110 5.6.7), in both directions, fast enough to be made for every answer."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from functools import lru_cache

_DAYS = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")  # 1970-01-01 was a Thursday
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY = 86_400


@lru_cache(maxsize=4096)  # records are signed in batches, so their times are few
def http_date(at: int) -> str:
    """IMF-fixdate of Unix seconds, for example `Sun, 06 Nov 1994 08:49:37 GMT`."""
    day, second = divmod(at, _DAY)
    minute, second = divmod(second, 60)
    hour, minute = divmod(minute, 60)
    return f"{_day(day)} {hour:02}:{minute:02}:{second:02} GMT"


def parse_http_date(text: str) -> int | None:
    """Unix seconds of any of the three forms that recipients must take; None when it is none of them."""
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError, TypeError):
        return None


@lru_cache(maxsize=1024)
def _day(day: int) -> str:
    parts = time.gmtime(day * _DAY)
    return f"{_DAYS[day % 7]}, {parts.tm_mday:02} {_MONTHS[parts.tm_mon - 1]} {parts.tm_year}"
