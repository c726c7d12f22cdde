"""Which names are flagged (G19)."""

from __future__ import annotations

import pytest

from issuer.checks.high_profile import flagged
from issuer.profiles import LeafContent

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
    assert flagged(LeafContent(b"", ("a.example.org", name), {}), WORDS) == ([name] if hit else [])


@pytest.mark.parametrize(
    ("mailbox", "organization", "hits"),
    [
        ("amel@paypal.com", "Essai", ["amel@paypal.com"]),
        ("paypal@example.org", "Essai", []),
        ("amel@example.org", "PayPal, Inc.", ["PayPal, Inc."]),
        ("amel@bank.example", "Bank of Essai", ["amel@bank.example", "Bank of Essai"]),
    ],
)
def test_mailboxes_and_organizations_count_too(mailbox: str, organization: str, hits: list[str]) -> None:
    """S/MIME for somebody at such a host, or of such an organization; what a mailbox is called there is its host's."""
    assert flagged(LeafContent(b"", (), {"O": organization}, (mailbox,)), WORDS) == hits
