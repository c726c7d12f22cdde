"""Cases: what must be revoked, by when, and whether relying parties see it (C1-C7). The clock starts with the receipt.

A duty is met when OCSP, asked as a stranger for both hashes, and the published CRL show every certificate: not when the
database says so (C5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import Gauge

from issuer.issuance.visible import PublicAnswers
from issuer.revocation.find import Target, find_one
from issuer.revocation.revoke import Request, revoke
from issuer.revocation.triggers import PRELIMINARY_REPORT, Trigger, find_trigger
from quash.errors import Kind, QuashError
from quash.pki.ocsp_response import Status
from quash.runtime.clock import Clock
from quash.store import acts, cases, crls, issuers
from quash.store.cases import Case, Member
from quash.store.database import Connection, Pool, acquire
from quash.store.operators import Operator

OPEN: Final = "case.open"
ADD: Final = "case.add-certificates"
MAX_CERTIFICATES: Final = 500  # of one request; a case may have any number
_WATCHED: Final = 200  # certificates of one step
_AT_ONCE: Final = 8
_LEFT = Gauge("quash_case_seconds_left", "Until the deadline of the open case that ends first; negative: missed")
_OPEN = Gauge("quash_cases_open", "Cases that are not met")


@dataclass(frozen=True, slots=True)
class Standing:
    """A case with its deadlines (Unix seconds) and how it stands; `late` also when it was met too late."""

    case: Case
    trigger: Trigger
    report_by: int
    publish_by: int
    state: Literal["open", "met"]
    late: bool


def standing(case: Case, now: int) -> Standing:
    """What is due, and whether it was done in time."""
    trigger = find_trigger(case.trigger)
    publish_by = case.received_at + trigger.seconds
    met = case.total > 0 and case.seen == case.total
    ended = case.last_seen_at if met and case.last_seen_at is not None else now
    return Standing(
        case=case,
        trigger=trigger,
        report_by=case.received_at + PRELIMINARY_REPORT,
        publish_by=publish_by,
        state="met" if met else "open",
        late=ended > publish_by,
    )


async def open_case(
    conn: Connection, operator: Operator, *, trigger: str, received_at: int, reporter: str, summary: str, now: int
) -> int:
    """Opens a case. Raises `case.trigger_unknown`, `case.received_in_future`."""
    find_trigger(trigger)
    if not 0 <= received_at <= now:
        raise QuashError("case.received_in_future", "a report is received before its case is opened")
    async with conn.transaction():
        subject = {"trigger": trigger, "received_at": received_at, "reporter": reporter}
        act_id = await acts.record(conn, at=now, actor=operator.actor, action=OPEN, subject=subject)
        return await cases.add(
            conn,
            trigger=trigger,
            received_at=received_at,
            opened_at=now,
            reporter=reporter,
            summary=summary,
            act_id=act_id,
        )


async def find_case(conn: Connection, case_id: int) -> Case:
    """Raises `case.unknown`."""
    found = await cases.get(conn, case_id)
    if found is None:
        raise QuashError("case.unknown", "no case has this number: see quash case list", Kind.NOT_FOUND)
    return found


async def add_certificates(
    conn: Connection, operator: Operator, case_id: int, targets: Sequence[Target], now: int
) -> int:
    """Adds certificates; returns how many were new. Raises `find_one`'s errors, and then adds none."""
    await find_case(conn, case_id)
    found = [(await find_one(conn, target)).certificate for target in targets]
    async with conn.transaction():
        subject = {"case": case_id, "certificates": len(found)}
        act_id = await acts.record(conn, at=now, actor=operator.actor, action=ADD, subject=subject)
        return await cases.add_certificates(conn, case_id, [(each.issuer_id, each.serial) for each in found], act_id)


async def record_event(
    conn: Connection, operator: Operator, case_id: int, *, kind: str, text: str, sha256: bytes | None, now: int
) -> None:
    """A note, an evidence file (by its hash), or that the preliminary report went out (C6)."""
    await find_case(conn, case_id)
    async with conn.transaction():
        subject = {"case": case_id, "text": text} | ({"sha256": sha256.hex()} if sha256 else {})
        act_id = await acts.record(conn, at=now, actor=operator.actor, action=f"case.{kind}", subject=subject)
        await cases.add_event(conn, case_id, at=now, kind=kind, text=text, sha256=sha256, act_id=act_id)


async def revoke_members(
    conn: Connection, clock: Clock, operator: Operator, case_id: int, *, batch: int
) -> tuple[int, int]:
    """Revokes some certificates of a case with its trigger's reason; (how many, how many are left).

    What has expired or is revoked is left as it is. Call again until none is left.
    """
    reason = find_trigger((await find_case(conn, case_id)).trigger).reason
    names = {each.id: each.name for each in await issuers.all_issuers(conn)}
    due = await _due(conn, case_id, int(clock.now()))
    for member in due[:batch]:
        request = Request(Target(names[member.issuer_id], member.serial), reason)
        await revoke(conn, clock, request, actor=operator.actor, batch=1000)
    return len(due[:batch]), len(due[batch:])


async def _due(conn: Connection, case_id: int, now: int) -> list[Member]:
    due: list[Member] = []
    after = (-1, b"")
    while page := await cases.members(conn, case_id, after, 1000):
        due += [each for each in page if each.reason is None and each.not_after >= now]
        after = (page[-1].issuer_id, page[-1].serial)
    return due


class CaseWatcher:
    """Looks, as a stranger would, whether what cases revoked is visible, and remembers when it first was."""

    def __init__(self, pool: Pool, answers: PublicAnswers, clock: Clock) -> None:
        self._pool = pool
        self._answers = answers
        self._clock = clock
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def step(self) -> int:
        """Returns how many certificates of cases it saw for the first time."""
        now = int(self._clock.now())
        async with acquire(self._pool) as conn:
            waiting = await cases.unseen(conn, now, _WATCHED)
            known = {each.id: each for each in await issuers.all_issuers(conn)}
            certificates = {key: await issuers.certificate(conn, key) for key in {m.issuer_id for _, m in waiting}}
            covered = [await crls.is_covered(conn, each.issuer_id, each.serial) for _, each in waiting]
        looks = []
        for (_, member), in_crl in zip(waiting, covered, strict=True):
            own = certificates[member.issuer_id]
            looks.append(self._sees(known[member.issuer_id], own.der if own else b"", member, in_crl=in_crl, now=now))
        seen = await asyncio.gather(*looks)
        now = int(self._clock.now())
        async with acquire(self._pool) as conn:
            for (case_id, member), visible in zip(waiting, seen, strict=True):
                if visible:
                    await cases.add_sighting(conn, case_id, member.issuer_id, member.serial, now)
            await self._measure(conn, now)
        return sum(seen)

    async def _sees(
        self, issuer: issuers.Issuer, certificate: bytes, member: Member, *, in_crl: bool, now: int
    ) -> bool:
        if member.not_after < now:
            return True  # expired: no relying party takes it, and its answers may end
        if not in_crl or member.reason is None or member.revoked_at is None:
            return False
        async with self._slots:
            status = Status(member.reason, member.revoked_at)
            return await self._answers.say(issuer, certificate, member.serial, status)

    async def _measure(self, conn: Connection, now: int) -> None:
        standings = [standing(each, now) for each in await cases.everything(conn)]
        left = [each.publish_by - now for each in standings if each.state == "open"]
        _OPEN.set(len(left))
        _LEFT.set(min(left, default=0))
