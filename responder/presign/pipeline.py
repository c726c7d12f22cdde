"""Flow 4 as a pipeline: while slices of a pass are being signed, the next are read and those before are fed.

Small passes are signed on the desk, in this process; large ones by the crew, several slices at once, and then the next
pass begins while the last slices of the one before are out. A pass is told of as complete with its last slice alone,
whatever the order in which they come back. News of a bucket drop every pass that read it before them, and a new signer,
or the revocation of one, drops those of the signer before it: nothing more is fed that a revoked one signed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from quash.errors import QuashError
from quash.store.database import Connection
from quash.store.ocsp_signers import OcspSigner
from quash.store.statuses import CertificateStatus
from responder.presign.agreement import ClockAgreement
from responder.presign.desk import Desk
from responder.presign.permit import Permitted
from responder.presign.refresh import Pass, begin_pass
from responder.presign.signing import Batch

LOOK_AWAY = 0.1
"""Seconds to wait for the crew before urgent news are looked for without a hint: each look costs several queries."""
LARGE = 2000
"""Statuses of a pass from which on it is worth to wake the crew."""
CREW_SLICE = 1500
FED_AT_ONCE = 16
"""Slices that are fed by one transaction, however many processes sign: it must be over within 200 ms."""

Permit = Callable[[Connection, Collection[CertificateStatus]], Awaitable[Permitted]]
Choose = Callable[[int, int], tuple[OcspSigner, bytes]]
Hinted = Callable[[float], Awaitable[object]]
"""Returns at the next hint of urgent news, after so many seconds at the latest."""
Until = Callable[[Iterable["asyncio.Future[Any]"]], Awaitable[None]]
"""Waits until one of these is over, though not for longer than urgent news may wait."""


def until_hinted(hinted: Hinted) -> Until:
    """Waits for what the crew signs, and looks away from it for urgent news at a hint, or after `LOOK_AWAY`."""

    async def until(tasks: Iterable[asyncio.Future[Any]]) -> None:
        hint = asyncio.ensure_future(hinted(LOOK_AWAY))
        try:
            await asyncio.wait([*tasks, hint], return_when=asyncio.FIRST_COMPLETED)
            if hint.done():
                hint.result()
        finally:
            hint.cancel()

    return until


@dataclass(slots=True, eq=False)
class Signed:
    """One slice of a pass: its records, or why there are none. `seconds`: until it came back, waiting included.

    With records of all that was permitted, or with none.
    """

    of: Pass
    permitted: Permitted
    seconds: float
    batch: Batch | None = None
    error: QuashError | None = None

    @property
    def count(self) -> int:
        return len(self.permitted.statuses)


class Pipeline:
    """The passes of one tenure. `permit` sorts out what may be signed, `choose` says by whom."""

    def __init__(
        self, desk: Desk, crew: Desk, agreement: ClockAgreement, *, permit: Permit, choose: Choose, validity: int
    ) -> None:
        self._desk = desk
        self._crew = crew
        self._agreement = agreement
        self._permit = permit
        self._choose = choose
        self._validity = validity
        self._most_passes = max(2, crew.at_once * CREW_SLICE // LARGE)  # with slices for all who sign
        self._passes: list[Pass] = []
        self._tasks: dict[asyncio.Task[Signed], Pass] = {}

    @property
    def idle(self) -> bool:
        return not self._passes

    async def fill(self, conn: Connection, size: int, paused: Collection[int]) -> None:
        """Reads and hands out as much as is worth handing out; `size`: statuses in a slice for the desk."""
        while (current := await self._current(conn, paused)) is not None:
            desk = self._crew if current.large else self._desk
            if len(self._tasks) >= desk.at_once:
                return
            permitted = await self._permit(conn, current.take(CREW_SLICE if current.large else size))
            current.begun = True
            current.out += 1
            self._tasks[asyncio.ensure_future(self._sign(desk, current, permitted))] = current

    async def signed(self, until: Until) -> list[Signed]:
        """Slices that came back, at most `FED_AT_ONCE`; none when `until` waited as long as urgent news may wait."""
        if not self._tasks:
            return []
        await until(self._tasks)
        done = [task for task in self._tasks if task.done()][:FED_AT_ONCE]
        back = [(self._tasks.pop(task), task.result()) for task in done]
        found = [signed for of, signed in back if of in self._passes]
        for signed in found:
            if signed.error is not None:
                self._abandon([signed.of])  # incomplete; its buckets stay due
        return found

    def completes(self, of: Pass, slices: Sequence[Signed]) -> bool:
        """Whether nothing of the pass is missing once these slices are fed."""
        return of in self._passes and not of.rest and of.out == sum(each.of is of for each in slices)

    def fed(self, slices: Sequence[Signed]) -> None:
        """They are committed, and with its last one a pass is over."""
        for each in slices:
            each.of.out -= 1
            if each.of in self._passes and each.of.complete:
                self._passes.remove(each.of)

    def drop(self, buckets: Collection[tuple[int, int]]) -> None:
        """Gives up the passes over any of these buckets; they stay due."""
        self._abandon([each for each in self._passes if not each.keys.isdisjoint(buckets)])

    def drop_replaced(self, now: int) -> None:
        """Gives up the passes of who is not the signer any more: its certificate may be revoked. They stay due."""
        self._abandon([each for each in self._passes if each.signer_id != self.signer_id(each.issuer_id, now)])

    def close(self) -> None:
        """Gives up everything."""
        self._abandon(list(self._passes))

    async def _current(self, conn: Connection, paused: Collection[int]) -> Pass | None:
        """The pass to take from: one with something left, else a new one while few are under way."""
        for each in self._passes:
            if each.rest or not each.begun:
                return each
        if len(self._passes) >= self._most_passes:
            return None
        as_of = await self._agreement.now(conn)
        taken = {key for each in self._passes for key in each.keys}
        begun = await begin_pass(conn, as_of, paused, taken)
        if begun is not None:
            begun.large = len(begun.rest) >= LARGE
            begun.signer_id = self.signer_id(begun.issuer_id, as_of)
            self._passes.append(begun)
        return begun

    def signer_id(self, issuer_id: int, as_of: int) -> int | None:
        """Who signs for an issuer; None: nobody, and what there is to sign will fail."""
        try:
            return self._choose(issuer_id, as_of)[0].id
        except QuashError:
            return None

    async def _sign(self, desk: Desk, current: Pass, permitted: Permitted) -> Signed:
        loop = asyncio.get_running_loop()
        began, signed = loop.time(), Signed(current, permitted, 0.0)
        try:
            if permitted.statuses:
                signer, certificate = self._choose(current.issuer_id, current.as_of)
                signed.batch = await desk.sign(signer, certificate, permitted.statuses, current.as_of, self._validity)
        except QuashError as error:
            signed.error = error
        signed.seconds = loop.time() - began
        return signed

    def _abandon(self, passes: Sequence[Pass]) -> None:
        self._passes = [each for each in self._passes if each not in passes]
        for task in [task for task, of in self._tasks.items() if of in passes]:
            del self._tasks[task]
            task.cancel()
