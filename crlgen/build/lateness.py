"""How late a scope's CRL is: since when one is due that is not out, and how long that may last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from crlgen.build.schedule import Memory
from quash.runtime.config import Crl as CrlConfig
from quash.store.crls import ScopeState

_REVOCATION_ALLOWED = 2 * 3600  # G1; B4 would allow 24 hours
_FIRST_ALLOWED = 24 * 3600  # B5
_ALARM = 0.5  # of what is allowed


@dataclass(frozen=True, slots=True)
class Late:
    """`seconds` since a CRL is due, of `allowed`."""

    why: str
    seconds: float
    allowed: int

    @property
    def alarming(self) -> bool:
        """Past half of what is allowed: a person has the other half to mend it."""
        return self.seconds >= _ALARM * self.allowed

    def __str__(self) -> str:
        return f"late by {timedelta(seconds=int(self.seconds))} of {timedelta(seconds=self.allowed)} ({self.why})"


def lateness(state: ScopeState, memory: Memory, now: float, config: CrlConfig) -> Late | None:
    """The worst of what is due; None: nothing. `memory.wrong_since` is when the file or the first CRL was missed."""
    due: list[Late] = []
    if state.dirty_since is not None:
        due.append(Late("revoked", now - state.dirty_since, _REVOCATION_ALLOWED))
    if state.published is not None and state.regular is not None:
        # The next regular CRL after the one that is due would be one schedule later: B3 leaves at least as much again.
        due.append(Late("schedule", now - state.regular.this_update - config.every, config.every))
    wrong = memory.published is None or not memory.good or memory.differs
    if wrong and memory.wrong_since is not None:
        allowed = _FIRST_ALLOWED if state.published is None else _REVOCATION_ALLOWED
        due.append(Late("file" if state.published else "first", now - memory.wrong_since, allowed))
    return max((late for late in due if late.seconds > 0), key=lambda late: late.seconds / late.allowed, default=None)
