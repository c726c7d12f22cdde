"""Which names are flagged (G19)."""

from __future__ import annotations

import pytest

from issuer.checks.high_profile import flagged

WORDS = ("paypal", "bank")


@pytest.mark.parametrize(
    ("name", "hit"),
    [
        ("paypal.com", True),
        ("www.paypal.example.org", True),
        ("login-paypal.example.org", True),
        ("my-bank-1.example.org", True),
        ("repaypals.example.org", False),
        ("embankment.example.org", False),
        ("www.example.org", False),
    ],
)
def test_a_word_counts_where_it_stands_alone(name: str, hit: bool) -> None:
    """Between dots and hyphens, not inside other words."""
    assert flagged(["a.example.org", name], WORDS) == ([name] if hit else [])
