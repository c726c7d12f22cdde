"""What changes by the calendar (D-4), as data: each table has its value from 00:00 UTC of a day on, newest first.

Switches of D-4 that we meet already stand nowhere: leaves are for serverAuth alone (D10), S/MIME leaves have an
rfc822Name, sub-CAs one purpose. Times are Unix seconds, lengths are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

DAY: Final = 86_400
T = TypeVar("T")
Table = Sequence[tuple[int, T]]
"""(since, value), the newest day first; the last one is since ever."""

_2026_03_15, _2027_03_15, _2028_03_15, _2029_03_15 = 1_773_532_800, 1_805_068_800, 1_836_691_200, 1_868_227_200

LEAF_VALIDITY: Final[Table[int]] = (  # D2, which has overtaken G15's 398 days
    (_2029_03_15, 47 * DAY),
    (_2027_03_15, 100 * DAY),
    (_2026_03_15, 200 * DAY),
    (0, 398 * DAY),
)
DOMAIN_REUSE: Final[Table[int]] = ((_2029_03_15, 10 * DAY), (0, 30 * DAY))  # D21: BR 200 and 100 d, but G13 30 d
MAILBOX_REUSE: Final[Table[int]] = ((0, 30 * DAY),)  # D50, G13
IDENTITY_REUSE: Final[Table[int]] = ((0, 365 * DAY),)  # D22: 398 d, but G14 365 d
PERSISTENT_REUSE: Final[Table[int]] = ((0, 10 * DAY),)  # D21: method .22

_ALL_METHODS = frozenset({"4", "7", "12", "13", "14", "16", "17", "18", "19", "20", "21", "22"})
DOMAIN_METHODS: Final[Table[frozenset[str]]] = (  # D23, D24: BR 3.2.2.4.<n>
    (_2028_03_15, _ALL_METHODS - {"4", "13", "14", "16", "17"}),
    (_2027_03_15, _ALL_METHODS - {"16", "17"}),
    (0, _ALL_METHODS),
)

SCT_COUNT: Final[Table[int]] = ((180 * DAY + 1, 3), (0, 2))  # E1: by lifetime, which D2 limits by the day


def at(table: Table[T], when: int) -> T:
    """The value in force at `when`; of `SCT_COUNT`, for that lifetime."""
    return next(value for since, value in table if when >= since)
