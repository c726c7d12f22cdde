"""Reasons for revocation, which of them may be published (B11), and how a revocation may change (B25, C16)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum

from quash.errors import Kind, QuashError


class Reason(IntEnum):
    """CRLReason of RFC 5280 5.3.1, by its names and numbers."""

    unspecified = 0
    keyCompromise = 1  # noqa: N815 - RFC 5280's own names are the outside contract
    cACompromise = 2  # noqa: N815
    affiliationChanged = 3  # noqa: N815
    superseded = 4
    cessationOfOperation = 5  # noqa: N815
    certificateHold = 6  # noqa: N815
    removeFromCRL = 8  # noqa: N815
    privilegeWithdrawn = 9  # noqa: N815
    aACompromise = 10  # noqa: N815


ALLOWED_REASONS = frozenset(
    {
        Reason.unspecified,
        Reason.keyCompromise,
        Reason.affiliationChanged,
        Reason.superseded,
        Reason.cessationOfOperation,
        Reason.privilegeWithdrawn,
    }
)  # B11; B12 would let some S/MIME certificates be held: who may take that back is not to be relied on


PRECEDENCE = (
    Reason.keyCompromise,
    Reason.privilegeWithdrawn,
    Reason.cessationOfOperation,
    Reason.affiliationChanged,
    Reason.superseded,
    Reason.unspecified,
)
"""C12: of several reasons that apply, the one that stands first here is published."""


def strongest(reasons: Iterable[Reason]) -> Reason:
    """The one of at least one reason that goes before the others (C12)."""
    return min(reasons, key=PRECEDENCE.index)


def parse_reason(name: str) -> Reason:
    """The reason of this RFC 5280 name. Raises `revocation.reason_unknown`, `revocation.reason_not_allowed` (B11)."""
    allowed = ", ".join(reason.name for reason in sorted(ALLOWED_REASONS))
    reason = Reason.__members__.get(name)
    if reason is None:
        raise QuashError("revocation.reason_unknown", f"unknown reason: use one of {allowed}")
    if reason not in ALLOWED_REASONS:
        raise QuashError(
            "revocation.reason_not_allowed", f"{name} may not be published: use one of {allowed}", Kind.REFUSED
        )
    return reason


class Outcome(Enum):
    """What asking for a revocation amounts to."""

    FIRST = "first"  # not revoked so far
    UNCHANGED = "unchanged"  # it already says so
    UPGRADE = "upgrade"  # a new version of it (B25)


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome, with the reason and date that hold from then on."""

    outcome: Outcome
    reason: Reason
    revoked_at: int


def decide(current: tuple[Reason, int] | None, wanted: Reason, revoked_at: int) -> Decision:
    """Decides what a request to revoke does to what stands: nothing is ever taken back (C16).

    `current`: reason and date of the standing revocation, None when there is none. `revoked_at`: the date asked for, or
    the clock's when the asker named none. A date never moves forward, and back only for keyCompromise (B25).
    Raises `revocation.not_upgradable` for another reason, or an earlier date, without that ground.
    """
    if current is None:
        return Decision(Outcome.FIRST, wanted, revoked_at)
    reason, since = current
    if wanted is Reason.keyCompromise:
        date = min(since, revoked_at)
        same = reason is Reason.keyCompromise and date == since
        return Decision(Outcome.UNCHANGED if same else Outcome.UPGRADE, wanted, date)
    if wanted == reason and revoked_at >= since:
        return Decision(Outcome.UNCHANGED, reason, since)
    raise QuashError(
        "revocation.not_upgradable",
        f"already revoked as {reason.name}: only keyCompromise may replace a reason or move the date back",
        Kind.REFUSED,
    )
