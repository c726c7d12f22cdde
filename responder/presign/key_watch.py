"""The look at every OCSP key: when a tenure begins, before anything is signed, and each minute after that.

A key that does not open, or is not its certificate's, is told by health and alarm at the start, not by the first
certificate that gets no answer. It concerns its issuer alone: the others are signed for.
"""

from __future__ import annotations

from quash.errors import Kind, QuashError
from quash.keys import shares_token
from responder.presign.desk import SigningDesk
from responder.presign.metrics import alarm
from responder.presign.roster import Roster


class KeyWatch:
    """`problems`: by issuer, what is wrong with the key of its present signer."""

    def __init__(self, desk: SigningDesk) -> None:
        self._desk = desk
        self.problems: dict[str, str] = {}

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
        """Opens what is not open. An issuer that has no signer at all is not the keys' business."""
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
        self.problems = found
