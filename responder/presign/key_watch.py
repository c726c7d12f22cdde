"""The look at every OCSP key: when a tenure begins, before anything is signed, and each minute; also by who stands by.

A key that does not open, does not sign or is not its certificate's is told by health and alarm at the start, not by the
first certificate that gets no answer. It concerns its issuer alone: the others are signed for.
"""

from __future__ import annotations

from quash.errors import Kind, QuashError
from quash.keys import shares_token
from quash.runtime.clock import Clock
from responder.presign.desk import SigningDesk
from responder.presign.metrics import KEY_PROBLEMS, alarm
from responder.presign.roster import Roster

LOOK_EVERY, LOOK_AGAIN = 60.0, 10.0


class KeyWatch:
    """`problems`: by issuer, what is wrong with the key of its present signer."""

    def __init__(self, desk: SigningDesk, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self._since = 0.0
        self.problems: dict[str, str] = {}

    @property
    def pause(self) -> float:
        """Seconds until the next look: it is what decides who signs when something is wrong."""
        return LOOK_AGAIN if self.problems else LOOK_EVERY

    @property
    def failing_for(self) -> float:
        """Seconds since when there was no look without a problem."""
        return self._clock.monotonic() - self._since if self.problems else 0.0

    def check_tokens(self, roster: Roster) -> None:
        """Raises `key.shared_token` when a CA's key is on an OCSP key's token: we could sign with it (design 2)."""
        ocsp = [signer.key_ref for signer in roster.signers]
        for issuer in roster.issuers:
            if any(shares_token(issuer.key_ref or "", ref) for ref in ocsp):
                raise QuashError(
                    "key.shared_token",
                    f"the key of {issuer.name} is on the token of OCSP keys: move it to a token of its own",
                    Kind.UNAVAILABLE,
                )

    async def look(self, roster: Roster, now: int) -> None:
        """Tries every key. An issuer that has no signer at all is not the keys' business."""
        found: dict[str, str] = {}
        for issuer in roster.issuers:
            try:
                signer, certificate = roster.signer(issuer.id, now), roster.certificate(issuer.id)
            except QuashError:
                continue
            try:
                await self._desk.look(signer, certificate)
            except QuashError as error:
                found[issuer.name] = str(error)
                alarm(error.code, error.message, issuer_id=issuer.id)
        if not self.problems:
            self._since = self._clock.monotonic()
        self.problems = found
        KEY_PROBLEMS.set(len(found))
