"""What a reseller may see and revoke (G42): certificates of its own account; of all others it hears nothing at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from issuer.revocation.find import Found, Target, find_all, only
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.store import accounts
from quash.store.database import Connection
from quash.store.operators import Operator

_FOREIGN: Final = "certificate.foreign"
_OFFERED: Final = frozenset(
    {
        Reason.unspecified,
        Reason.keyCompromise,
        Reason.affiliationChanged,
        Reason.superseded,
        Reason.cessationOfOperation,
    }
)
"""C11: what subscribers choose from; privilegeWithdrawn is the CA's."""

Siblings = tuple[tuple[tuple[str, bytes], ...], int]
"""(issuer, serial) of those that are told, and how many there are."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of the world that one operator has to do with; of the CA's own staff, all of it."""

    operator: Operator

    @property
    def whole(self) -> bool:
        return self.operator.account is None

    async def find(self, conn: Connection, target: Target) -> list[Found]:
        """As `find_all`, without what is not the operator's: as if it had never been issued."""
        if self.whole:
            return await find_all(conn, target)
        try:
            found = await find_all(conn, target)
        except QuashError as error:
            if error.code != _FOREIGN:
                raise
            return []
        return [each for each in found if await self._owns(conn, each)]

    async def narrow(self, conn: Connection, target: Target) -> Target:
        """The same target, for a reseller one that is its own. Raises `certificate.unknown` as for any other serial."""
        if self.whole:
            return target
        found = only(await self.find(conn, target))
        if found is None:
            raise QuashError("certificate.unknown", "no certificate has this serial: check it", Kind.NOT_FOUND)
        return Target(found.issuer.name, found.certificate.serial)

    async def siblings(
        self, conn: Connection, issuer: str, serial: bytes, listed: Siblings, *, now: int, limit: int
    ) -> Siblings:
        """Of the siblings of a certificate those that are told: a reseller hears of its own alone, and counts these."""
        if self.whole or not listed[1]:
            return listed
        (found,) = await find_all(conn, Target(issuer, serial))
        key = found.certificate.spki_sha256 or b""
        own = await accounts.siblings(conn, self.operator.applicant, key, now, limit + 1)
        others = tuple(each for each in own if each != (issuer, serial))
        return others[:limit], len(others)

    def check_reason(self, reason: Reason) -> None:
        """Raises `revocation.reason_not_offered` (C11)."""
        if not self.whole and reason not in _OFFERED:
            offered = ", ".join(sorted(each.name for each in _OFFERED))
            raise QuashError("revocation.reason_not_offered", f"choose one of {offered}", Kind.REFUSED)

    async def _owns(self, conn: Connection, found: Found) -> bool:
        account = await accounts.account_of(conn, found.certificate.issuer_id, found.certificate.serial)
        return account == self.operator.applicant
