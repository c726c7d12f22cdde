"""When a scope's CRL is due, and what the builder remembers of a scope from step to step."""

from __future__ import annotations

from dataclasses import dataclass

from crlgen.build.entries import EntrySet
from quash.pki.crl_gate import Published
from quash.runtime.config import Crl as CrlConfig
from quash.store.crls import ScopeState

_MIN_GAP = 1.0  # seconds: thisUpdate has whole seconds and must rise
_GAP_PER_BUILD = 2.0  # a mass revocation leaves two thirds of the time to other scopes and to the database
MASS = 1000
"""Revocations that wait for one CRL: a mass revocation is under way, and more of it comes."""
REVOKED = "revoked"
_GAP_OF_MASS = 8.0  # seconds: built for each of its batches, CRLs would cost more than its signatures
_QUIET = 1.0  # seconds without a new one of its revocations: it has gone on to the next scope
_MAX_RETRY = 300.0
_MAX_RETRY_UNAVAILABLE = 10.0


@dataclass(slots=True)
class Memory:
    """One scope between steps; losing it costs one full build and nothing else. Moments are of the monotonic clock.

    `seen`: the file's tag and the newest CRL's number when the file was last read, `good`: whether it was then the CRL
    that the database says is published. `published`: what is out. `differs`: the database, when it was compared last,
    had other entries than are out; `lacks`: which revocations should be shown and are not, in words. `copied`: the tag
    of the copy beside, and what was `seen`, when both said the same. `waiting_since`: when a revocation was first seen
    that the published CRL does not cover, `newest_waiting`: the transaction of the newest of them at the last look.
    `wrong_since`: since when (Unix seconds) the file is not what it should be; `late`: how late its CRL is, in words,
    `alarmed`: whether that was an alarm already. `retired`: its issuer has ended.
    """

    path: str
    seen: tuple[str | None, int] | None = None
    good: bool = False
    looked_at: float = 0.0
    compared_at: float = 0.0
    published: Published | None = None
    entries: EntrySet | None = None
    differs: bool = False
    lacks: str = ""
    copied: tuple[str | None, tuple[str | None, int] | None] | None = None
    waiting_since: float | None = None
    newest_waiting: int = 0
    rest_until: float = 0.0
    retry_at: float = 0.0
    failures: int = 0
    problem: str = ""
    wrong_since: float | None = None
    late: str = ""
    alarmed: bool = False
    retired: bool = False

    def succeeded(self, monotonic: float, seconds: float) -> None:
        """A CRL went out, made in so many seconds."""
        self.differs, self.lacks, self.waiting_since, self.failures, self.problem = False, "", None, 0, ""
        self.wrong_since, self.late, self.alarmed, self.retired = None, "", False, False
        self.rest_until = monotonic + max(_MIN_GAP, _GAP_PER_BUILD * seconds)

    def swells(self, count: int, newest: int, monotonic: float) -> bool:
        """Whether so many wait, and more keep coming, that a CRL of now would be made anew at once; rests then.

        `newest`: the transaction of the newest that waits. The first one waits no longer than `_GAP_OF_MASS`.
        """
        grew, self.newest_waiting = newest != self.newest_waiting, newest
        ends = (monotonic if self.waiting_since is None else self.waiting_since) + _GAP_OF_MASS
        if count < MASS or not grew or monotonic + _QUIET > ends:
            return False
        self.rest_until = monotonic + _QUIET
        return True

    def retire(self, monotonic: float) -> None:
        """The issuer has ended; now and then it is looked whether it has a new certificate."""
        self.mended()
        self.retired, self.retry_at = True, monotonic + _MAX_RETRY

    def mended(self) -> None:
        """What failed turned out to have succeeded."""
        self.failures, self.problem, self.retry_at, self.retired = 0, "", 0.0, False
        self.wrong_since, self.late, self.alarmed = None, "", False

    def failed(self, monotonic: float, problem: str, *, unavailable: bool) -> None:
        """It did not; the next try comes after twice as long, soon again where something is merely down."""
        longest = _MAX_RETRY_UNAVAILABLE if unavailable else _MAX_RETRY
        self.retry_at = monotonic + min(longest, 2.0 ** min(self.failures, 10))
        self.failures += 1
        self.problem = problem


def is_scheduled(state: ScopeState, now: float, every: int) -> bool:
    """Whether a CRL made now is a regularly scheduled one (B3, B13)."""
    return state.regular is None or now >= state.regular.this_update + every


def why_due(state: ScopeState, memory: Memory, now: float, monotonic: float, config: CrlConfig) -> str | None:
    """What makes a CRL of the scope due now; None: nothing.

    A new revocation waits for the rest of its burst, and for a pause after the last CRL; nothing else does.
    """
    if state.dirty_since is None:
        memory.waiting_since = None
    elif memory.waiting_since is None:
        memory.waiting_since = monotonic
    if monotonic < memory.retry_at:
        return None
    waited = memory.waiting_since is not None and monotonic >= memory.waiting_since + config.coalesce
    grounds = (
        ("first", state.published is None),
        ("file", not memory.good),
        ("differs", memory.differs),
        ("schedule", is_scheduled(state, now, config.every)),
        (REVOKED, waited and monotonic >= memory.rest_until),
    )
    return next((why for why, due in grounds if due), None)
