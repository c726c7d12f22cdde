"""News become records: a few on the desk, at once; thousands by the crew, in slices, while urgent ones go on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.store.statuses import CertificateStatus
from responder.presign.desk import Desk
from responder.presign.obstacles import Obstacles
from responder.presign.pipeline import CREW_SLICE, Choose, Until
from responder.presign.refresh import Pace
from responder.presign.signing import Batch

_SLICE = CREW_SLICE // 3

Meanwhile = Callable[[], Awaitable[object]]
"""What must not wait for the crew: urgent news and heartbeats."""


@dataclass(slots=True)
class SignedNews:
    """Records, and the statuses of the issuers that nothing could be signed for."""

    batches: list[Batch] = field(default_factory=list)
    unsigned: list[CertificateStatus] = field(default_factory=list)

    @property
    def records(self) -> int:
        return sum(each.count for each in self.batches)


class NewsSigner:
    """`choose` says who signs, `pace` learns how long that takes here. An issuer's failure is an obstacle, no error."""

    def __init__(
        self, *, desk: Desk, crew: Desk, choose: Choose, obstacles: Obstacles, pace: Pace, clock: Clock, validity: int
    ) -> None:
        self._desk = desk
        self._crew = crew
        self._choose = choose
        self._obstacles = obstacles
        self._pace = pace
        self._clock = clock
        self._validity = validity

    async def by_desk(self, found: Collection[CertificateStatus], as_of: int) -> SignedNews:
        out = SignedNews()
        for issuer_id, group in _by_issuer(found).items():
            began = self._clock.monotonic()
            try:
                out.batches.append(await self._sign(self._desk, issuer_id, group, as_of))
            except QuashError as error:
                self._obstacles.pause(issuer_id, error, len(group))
                out.unsigned += group
            else:
                self._pace.learn(len(group), self._clock.monotonic() - began)
        return out

    async def by_crew(
        self, found: Collection[CertificateStatus], as_of: int, until: Until, meanwhile: Meanwhile
    ) -> SignedNews:
        """As `by_desk`, in slices by several processes; `meanwhile` runs whenever `until` returns."""
        slices = [group[n : n + _SLICE] for group in _by_issuer(found).values() for n in range(0, len(group), _SLICE)]
        signing = asyncio.gather(*(self._slice(each, as_of) for each in slices))
        try:
            while not signing.done():
                await until([signing])
                await meanwhile()
        except BaseException:
            signing.cancel()
            raise
        out = SignedNews()
        for part, signed in zip(slices, signing.result(), strict=True):
            if isinstance(signed, QuashError):
                self._obstacles.pause(part[0].issuer_id, signed, len(part))
                out.unsigned += part
            else:
                out.batches.append(signed)
        return out

    async def _slice(self, part: list[CertificateStatus], as_of: int) -> Batch | QuashError:
        """An error is returned, so that it does not hide what the other slices made."""
        try:
            return await self._sign(self._crew, part[0].issuer_id, part, as_of)
        except QuashError as error:
            return error

    async def _sign(self, desk: Desk, issuer_id: int, group: Sequence[CertificateStatus], as_of: int) -> Batch:
        signer, certificate = self._choose(issuer_id, as_of)
        return await desk.sign(signer, certificate, group, as_of, self._validity)


def _by_issuer(found: Collection[CertificateStatus]) -> dict[int, list[CertificateStatus]]:
    groups = defaultdict(list)
    for status in found:
        groups[status.issuer_id].append(status)
    return groups
