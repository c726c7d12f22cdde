"""Steps 8 and 13: waiting until every public responder says `good`. Asks strangers alone, and holds no connection."""

from __future__ import annotations

from typing import Final

from issuer.issuance.means import Means
from quash.store.issuers import Issuer

_FIRST_WAIT: Final = 0.02
LONGEST_WAIT: Final = 0.5
_PATIENCE: Final = 5.0
"""Seconds after which the order is read again: it may have been revoked meanwhile."""


class Waiting:
    """Knows how long news have taken of late, so that the first look is seldom in vain: a look is two OCSP requests."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._usual = 0.0

    async def answered(self, issuer: Issuer, certificate: bytes, serial: bytes, deadline: float, *, new: bool) -> bool:
        """Looks until `deadline` (monotonic), once at least. `new`: what is waited for was committed just now."""
        clock, answers = self._means.clock, self._means.answers
        began = clock.monotonic()
        until, wait = min(deadline, began + _PATIENCE), _FIRST_WAIT
        if new and 0 < self._usual < until - began:
            await clock.sleep(self._usual)
        looks = 1
        while not await answers.good(issuer, certificate, serial):
            if clock.monotonic() + wait >= until:
                return False
            await clock.sleep(wait)
            wait, looks = min(wait * 1.5, LONGEST_WAIT), looks + 1
        if new:
            self._learn(clock.monotonic() - began, looks)
        return True

    def _learn(self, seconds: float, looks: int) -> None:
        """Towards what it took; a first look that was late enough tries to be earlier next time."""
        aim = self._usual * 0.9 if looks == 1 else seconds
        self._usual = min(0.8 * self._usual + 0.2 * aim, LONGEST_WAIT)
