"""D-4: the clock moved over every switch date, to the second."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from quash.pki import dated

DAY = 86_400


def start(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


# table -> [(day, value before it, value from it on)]
SWITCHES: dict[str, list[tuple[str, Any, Any]]] = {
    "LEAF_VALIDITY": [
        ("2026-03-15", 398 * DAY, 200 * DAY),
        ("2027-03-15", 200 * DAY, 100 * DAY),
        ("2029-03-15", 100 * DAY, 47 * DAY),
    ],
    "DOMAIN_REUSE": [("2029-03-15", 30 * DAY, 10 * DAY)],
    "MAILBOX_REUSE": [],
    "IDENTITY_REUSE": [],
    "PERSISTENT_REUSE": [],
}


@pytest.mark.parametrize(
    ("table", "day", "before", "after"), [(name, *row) for name, rows in SWITCHES.items() for row in rows]
)
def test_values_switch_at_midnight(table: str, day: str, before: int, after: int) -> None:
    """D2, D21, G15: the second before the day still has the old value."""
    rows = getattr(dated, table)
    assert (dated.at(rows, start(day) - 1), dated.at(rows, start(day))) == (before, after)


def test_there_is_no_switch_without_a_case() -> None:
    """A new row of a table needs its line above."""
    tables = {name for name in dir(dated) if name.isupper() and isinstance(getattr(dated, name), tuple)}
    assert tables == {*SWITCHES, "DOMAIN_METHODS", "SCT_COUNT"}
    assert {name: len(getattr(dated, name)) - 1 for name in SWITCHES} == {n: len(rows) for n, rows in SWITCHES.items()}


@pytest.mark.parametrize(
    ("day", "gone"),
    [("2026-11-21", ""), ("2027-03-14", ""), ("2027-03-15", "16 17"), ("2028-03-15", "4 13 14 16 17")],
)
def test_methods_retire(day: str, gone: str) -> None:
    """D23, D24: phone in 2027, e-mail in 2028; what is gone in 2024 and 2025 was never here."""
    today = dated.at(dated.DOMAIN_METHODS, start(day))
    everything = {"4", "7", "12", "13", "14", "16", "17", "18", "19", "20", "21", "22"}
    assert today == everything - set(gone.split())


@pytest.mark.parametrize(("day", "scts"), [("2026-03-14", 3), ("2026-03-15", 3), ("2027-03-15", 2), ("2029-03-15", 2)])
def test_the_longest_leaf_of_a_day_needs_so_many_scts(day: str, scts: int) -> None:
    """E1 follows from D2: from 2027-03-15 on no leaf needs three SCTs."""
    assert dated.at(dated.SCT_COUNT, dated.at(dated.LEAF_VALIDITY, start(day))) == scts
