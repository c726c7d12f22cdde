"""Which names are flagged (G19)."""

from __future__ import annotations

import pytest

from issuer.checks.high_profile import flagged
from issuer.profiles import LeafContent
from quash.runtime.config import Config

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


LISTED = ("google", "ministere")


@pytest.mark.parametrize(
    ("organization", "held"),
    [
        ("Google @ Essai", True),
        ("Essai @ Google", True),
        ("Ｇｏｏｇｌｅ", True),  # noqa: RUF001 - fullwidth
        ("G\u043e\u043egle", True),  # Cyrillic among Latin
        ("\u0430\u0440\u0440\u04cf\u0435", True),  # Cyrillic alone
        ("G\u0131thub", True),  # Latin, but no i
        ("G\u034foogle", True),  # a joiner that nobody sees
        ("\u24bcoogle", True),  # in a circle
        ("Google\u2122", True),
        ("Ministère de l'Intérieur", True),
        ("MINISTE\u0300RE", True),
        ("وزارة الداخلية", True),  # no word of the list could be found in it
        ("Société Générale d'Œuvres", True),  # œ stays a letter of its own
        ("Société d\u2019Essai \u2013 «Île» & Straße n\u00b0 1", True),  # a sign
        ("Société d\u2019Essai \u2013 «Île» & Straße 1", False),
        ("Googleplex", False),
        ("Essai S.A.R.L. (Tunis)", False),
    ],
)
def test_an_organization_does_not_hide_by_spelling(organization: str, held: bool) -> None:
    """G19, D38: whole, folded, and by an officer's eyes where the list's words could not be found."""
    assert flagged(LeafContent(b"", (), {"O": organization}), LISTED) == ([organization] if held else [])
    assert flagged(LeafContent(b"", (), {"O": organization}), ()) == []


def test_the_list_is_folded_too() -> None:
    """Whoever writes it writes words as they are; what is no word that could be found is refused."""
    config = Config.model_validate({"issuance": {"high_profile": ["Ministère", "PayPal", "3m"]}})
    assert config.issuance.high_profile == ("ministere", "paypal", "3m")
    for wrong in ("pay pal", "", "وزارة", "pay-pal"):
        with pytest.raises(ValueError, match="Latin letters"):
            Config.model_validate({"issuance": {"high_profile": [wrong]}})
