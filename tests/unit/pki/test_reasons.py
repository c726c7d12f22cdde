"""Reasons (B11) and upgrades (B25, C16)."""

from __future__ import annotations

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from quash.errors import Kind, QuashError
from quash.pki.reasons import ALLOWED_REASONS, Decision, Outcome, Reason, decide, parse_reason

REASONS = st.sampled_from(sorted(ALLOWED_REASONS))


def test_numbers_and_names_are_rfc_5280s() -> None:
    """The names are those that pyca knows from RFC 5280 5.3.1; 7 is not used there."""
    assert {reason.name for reason in Reason} == {flag.value for flag in x509.ReasonFlags}
    assert sorted(Reason) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]


def test_allowed_reasons_are_those_of_b11() -> None:
    """0 by omission, 1, 3, 4, 5, 9, as the store's check has them too."""
    assert sorted(ALLOWED_REASONS) == [0, 1, 3, 4, 5, 9]
    for reason in ALLOWED_REASONS:
        assert parse_reason(reason.name) is reason


@pytest.mark.parametrize("name", ["certificateHold", "removeFromCRL", "cACompromise", "aACompromise"])
def test_reasons_outside_b11_are_refused(name: str) -> None:
    """A reason of RFC 5280 that may not be published is refused by policy."""
    with pytest.raises(QuashError, match=r"revocation\.reason_not_allowed") as caught:
        parse_reason(name)
    assert caught.value.kind is Kind.REFUSED


@pytest.mark.parametrize("name", ["", "key compromise", "KEYCOMPROMISE", "1", "__class__", "name"])
def test_unknown_reasons_are_bad_input(name: str) -> None:
    """Anything else is unknown, and the message lists what is possible."""
    with pytest.raises(QuashError, match=r"revocation\.reason_unknown.*keyCompromise") as caught:
        parse_reason(name)
    assert caught.value.kind is Kind.INPUT


@pytest.mark.parametrize(
    ("current", "wanted", "at", "expected"),
    [
        (None, Reason.superseded, 100, (Outcome.FIRST, Reason.superseded, 100)),
        (None, Reason.keyCompromise, 100, (Outcome.FIRST, Reason.keyCompromise, 100)),
        ((Reason.superseded, 100), Reason.superseded, 100, (Outcome.UNCHANGED, Reason.superseded, 100)),
        ((Reason.superseded, 100), Reason.superseded, 200, (Outcome.UNCHANGED, Reason.superseded, 100)),
        ((Reason.superseded, 100), Reason.keyCompromise, 200, (Outcome.UPGRADE, Reason.keyCompromise, 100)),
        ((Reason.superseded, 100), Reason.keyCompromise, 50, (Outcome.UPGRADE, Reason.keyCompromise, 50)),
        ((Reason.keyCompromise, 100), Reason.keyCompromise, 50, (Outcome.UPGRADE, Reason.keyCompromise, 50)),
        ((Reason.keyCompromise, 100), Reason.keyCompromise, 200, (Outcome.UNCHANGED, Reason.keyCompromise, 100)),
    ],
)
def test_decisions(
    current: tuple[Reason, int] | None, wanted: Reason, at: int, expected: tuple[Outcome, Reason, int]
) -> None:
    """First, the same again, and the two upgrades of B25."""
    assert decide(current, wanted, at) == Decision(*expected)


@pytest.mark.parametrize(
    ("wanted", "at"), [(Reason.unspecified, 200), (Reason.cessationOfOperation, 200), (Reason.superseded, 99)]
)
def test_no_other_change_is_made(wanted: Reason, at: int) -> None:
    """Another reason, or an earlier date without a compromise, is refused by policy (C16)."""
    with pytest.raises(QuashError, match=r"revocation\.not_upgradable") as caught:
        decide((Reason.superseded, 100), wanted, at)
    assert caught.value.kind is Kind.REFUSED


@given(st.lists(st.tuples(REASONS, st.integers(0, 1000)), min_size=1, max_size=12))
def test_revocation_only_moves_forward(requests: list[tuple[Reason, int]]) -> None:
    """Whatever is asked in whatever order: the date never rises, keyCompromise stays, and repeating changes nothing."""
    current: tuple[Reason, int] | None = None
    for wanted, at in requests:
        try:
            decision = decide(current, wanted, at)
        except QuashError:
            continue
        if current is not None:
            assert decision.revoked_at <= current[1]
            assert current[0] is not Reason.keyCompromise or decision.reason is Reason.keyCompromise
            assert (decision.outcome is Outcome.UNCHANGED) == ((decision.reason, decision.revoked_at) == current)
        current = (decision.reason, decision.revoked_at)
        assert decide(current, *current).outcome is Outcome.UNCHANGED
