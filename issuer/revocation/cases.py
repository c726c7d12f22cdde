"""Cases: what must be revoked, by when, and whether relying parties see it (C1-C7). The clock starts with the receipt.

A duty is met when OCSP, asked as a stranger for both hashes, and the published CRL show every certificate: not when the
database says so (C5).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client import Gauge

from issuer.api import timestamp
from issuer.issuance.visible import PublicAnswers
from issuer.revocation.find import Target, check_single, find_one
from issuer.revocation.revoke import Request, revoke
from issuer.revocation.triggers import PICK_UP, PRELIMINARY_REPORT, Trigger, find_trigger
from quash.errors import Kind, QuashError
from quash.pki.ocsp_response import Status
from quash.pki.reasons import Reason, strongest
from quash.runtime.clock import Clock
from quash.runtime.log import logger
from quash.store import acts, cases, certificates, crls, exemptions, issuers, rates
from quash.store.cases import Case, File, Member
from quash.store.database import Connection, Pool, acquire
from quash.store.operators import Operator

FILE: Final = "case.evidence"
MAX_CERTIFICATES: Final = 500  # of one request; a case may have any number
_WATCHED: Final = 200  # certificates of one step
_AT_ONCE: Final = 8
_PAGE: Final = 1000
_NEAR: Final = 6 * 3600  # seconds before a deadline at which a case that is not met is at risk
_LEFT = Gauge("quash_case_seconds_left", "Until the deadline of the open case that ends first; negative: missed")
_OPEN = Gauge("quash_cases_open", "Cases that are neither met nor closed")
_AT_RISK = Gauge("quash_cases_at_risk", "Open cases whose deadline will be missed as things go, or is near (alarm)")
_BURN = Gauge("quash_case_certificates_left", "Certificates of an open case that are not yet seen revoked", ["case"])
_EXPECTED = Gauge(
    "quash_case_expected_seconds", "Until all of an open case is visible, as it goes; NaN: not measured", ["case"]
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A case with its deadlines (Unix seconds) and how it stands; `late` also when it was met too late.

    `expected_at`: when all is visible if it goes on as measured; None: nothing was measured. `at_risk`: the deadline
    will be missed so, or is near and not met.
    """

    case: Case
    trigger: Trigger
    report_by: int
    publish_by: int
    state: Literal["open", "met", "closed"]
    late: bool
    pick_up_by: int
    expected_at: int | None = None
    at_risk: bool = False

    @property
    def neglected(self) -> bool:
        """Whether nobody has picked it up (G39)."""
        return self.state == "open" and self.case.picked_up_at is None


def standing(case: Case, now: int, per_second: float | None = None) -> Standing:
    """What is due, whether it was done in time, and whether it will be.

    `per_second`: what the deployment was measured to do, for cases of which nothing was seen yet.
    """
    trigger = find_trigger(case.trigger)
    publish_by = case.received_at + trigger.seconds
    met = case.total > 0 and case.seen == case.total
    closed = case.closed_at is not None and not met
    ended = case.last_seen_at if met and case.last_seen_at is not None else case.closed_at if closed else now
    is_open = not met and not closed
    expected_at = _expected(case, now, per_second) if is_open else None
    near = publish_by - now < _NEAR
    return Standing(
        expected_at=expected_at,
        at_risk=is_open and (near or (expected_at is not None and expected_at > publish_by)),
        case=case,
        trigger=trigger,
        report_by=case.received_at + PRELIMINARY_REPORT,
        publish_by=publish_by,
        state="met" if met else "closed" if closed else "open",
        late=(now if ended is None else ended) > publish_by,
        pick_up_by=case.received_at + PICK_UP,
    )


def _expected(case: Case, now: int, per_second: float | None) -> int | None:
    """From the rate at which the case's certificates became visible so far, a standstill included."""
    if case.total == 0:
        return None
    if case.seen and case.first_seen_at is not None:
        per_second = case.seen / max(1, now - case.first_seen_at)
    return now + math.ceil((case.total - case.seen) / per_second) if per_second else None


async def add_key(conn: Connection, actor: str, case_id: int, spki_sha256: bytes, now: int) -> int:
    """Adds every unexpired certificate of a key, page by page; returns how many were new."""
    added, after = 0, None
    while page := await certificates.siblings(conn, spki_sha256, now, _PAGE, after):
        after = (page[-1].issuer_id, page[-1].serial)
        async with conn.transaction():
            subject = {"case": case_id, "spki_sha256": spki_sha256.hex(), "certificates": len(page)}
            act_id = await acts.record(conn, at=now, actor=actor, action=cases.ADD, subject=subject)
            keys = [(each.issuer_id, each.serial) for each in page]
            added += await cases.add_certificates(conn, case_id, keys, act_id)
    return added


async def add_file(conn: Connection, actor: str, case_id: int, name: str, body: bytes, *, now: int) -> File:
    """Keeps an evidence file; the same octets again change nothing. Raises `case.unknown`."""
    await find_case(conn, case_id)
    kept = File(hashlib.sha256(body).digest(), name, now, len(body))
    async with conn.transaction():
        subject = {"case": case_id, "name": name, "sha256": kept.sha256.hex(), "octets": len(body)}
        if all(each.sha256 != kept.sha256 for each in await cases.files(conn, case_id)):
            act_id = await acts.record(conn, at=now, actor=actor, action=FILE, subject=subject)
            await cases.add_file(conn, case_id, kept, body, act_id)
            await cases.add_event(conn, case_id, at=now, kind="evidence", text=name, sha256=kept.sha256, act_id=act_id)
    return kept


async def open_case(
    conn: Connection,
    actor: str,
    *,
    trigger: str,
    received_at: int,
    reporter: str,
    summary: str,
    now: int,
    spki_sha256: bytes | None = None,
) -> int:
    """Opens a case, of a key where that is its ground. Raises `case.trigger_unknown`, `case.received_in_future`."""
    find_trigger(trigger)
    if not 0 <= received_at <= now:
        raise QuashError("case.received_in_future", "a report is received before its case is opened")
    async with conn.transaction():
        subject: dict[str, Any] = {"trigger": trigger, "received_at": received_at, "reporter": reporter}
        subject |= {} if spki_sha256 is None else {"spki_sha256": spki_sha256.hex()}
        act_id = await acts.record(conn, at=now, actor=actor, action=cases.OPEN, subject=subject)
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


async def add_certificates(conn: Connection, actor: str, case_id: int, targets: Sequence[Target], now: int) -> int:
    """Adds certificates; returns how many were new. Raises `find_one`'s errors, and then adds none."""
    await find_case(conn, case_id)
    found = [(await find_one(conn, target)).certificate for target in targets]
    async with conn.transaction():
        subject = {"case": case_id, "certificates": len(found)}
        act_id = await acts.record(conn, at=now, actor=actor, action=cases.ADD, subject=subject)
        return await cases.add_certificates(conn, case_id, [(each.issuer_id, each.serial) for each in found], act_id)


async def record_event(
    conn: Connection, actor: str, case_id: int, *, kind: str, text: str, sha256: bytes | None, now: int
) -> None:
    """A note, an evidence file (by its hash), that the preliminary report went out (C6), that a person picked it up

    (G39), which trigger it is judged to be, or that it is closed or open again. Raises `case.trigger_unknown`.
    """
    if kind == "judged":
        find_trigger(text)
    await find_case(conn, case_id)
    async with conn.transaction():
        subject = {"case": case_id, "text": text} | ({"sha256": sha256.hex()} if sha256 else {})
        act_id = await acts.record(conn, at=now, actor=actor, action=f"case.{kind}", subject=subject)
        await cases.add_event(conn, case_id, at=now, kind=kind, text=text, sha256=sha256, act_id=act_id)


async def judged(conn: Connection, case_id: int) -> Trigger:
    """Which trigger a case is, as judged last. Raises `case.unknown`."""
    return find_trigger((await find_case(conn, case_id)).trigger)


async def revoke_members(
    conn: Connection, clock: Clock, operator: Operator, case_id: int, reason: Reason, *, batch: int
) -> tuple[int, int]:
    """Revokes some certificates of a case; (how many, how many are left). `reason`: its trigger's, as it was shown.

    A certificate that other open cases have as well gets the strongest of their reasons (C12); a case that strangers
    caused counts once it is judged. What has expired, stands revoked as it must or may (B25, C16), or is exempt, is
    left as it is. Call again until none is left. Raises `revocation.two_officers`: a mass revocation of the case asks
    them.
    """
    names = {each.id: each.name for each in await issuers.all_issuers(conn)}
    due = await _due(conn, case_id, reason, int(clock.now()))
    some = due[:batch]
    grounds = await cases.open_grounds(conn, [(each.issuer_id, each.serial) for each in some], alleged=False)
    for member in some:
        others = grounds.get((member.issuer_id, member.serial), ())
        applies = strongest([reason, *(find_trigger(each).reason for each in others)])
        request = Request(Target(names[member.issuer_id], member.serial), applies)
        check_single(await find_one(conn, request.target))
        try:
            await revoke(conn, clock, request, actor=operator.actor, batch=1000)
        except QuashError as error:
            if error.code != "revocation.not_upgradable":  # revoked meanwhile, perhaps with the sibling before it (C8)
                raise
    return len(some), len(due) - len(some)


async def _due(conn: Connection, case_id: int, reason: Reason, now: int) -> list[Member]:
    """What is yet to be revoked, or to be revoked as compromised: no other reason replaces one that stands (B25)."""
    compromised = reason is Reason.keyCompromise
    exempt = {} if compromised else await exemptions.in_force(conn, now)  # C8 knows none
    stands = {Reason.keyCompromise} if compromised else set(Reason)
    due: list[Member] = []
    after = (-1, b"")
    while page := await cases.members(conn, case_id, after, 1000):
        due += [each for each in page if each.reason not in stands and each.not_after >= now]
        due = [each for each in due if (each.issuer_id, each.serial) not in exempt]
        after = (page[-1].issuer_id, page[-1].serial)
    return due


Tell = Callable[[Connection, "Standing", str, int], Awaitable[int]]
"""Tells somebody of a case, once; returns to how many it is new."""


async def _nobody(_conn: Connection, _stands: Standing, _text: str, _now: int) -> int:
    """Nobody is to be told."""
    return 0


class CaseWatcher:
    """Looks, as a stranger would, whether what cases revoked is visible, and remembers when it first was.

    `tell` hears of cases at risk.
    """

    def __init__(self, pool: Pool, answers: PublicAnswers, clock: Clock, tell: Tell | None = None) -> None:
        self._pool = pool
        self._answers = answers
        self._tell = tell or _nobody
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
        signing = await rates.last(conn, rates.SIGNING)
        standings = [standing(each, now, signing) for each in await cases.everything(conn)]
        still = [each for each in standings if each.state == "open"]
        _OPEN.set(len(still))
        _LEFT.set(min((each.publish_by - now for each in still), default=0))
        _AT_RISK.set(sum(each.at_risk for each in still))
        _BURN.clear()
        _EXPECTED.clear()
        for each in still:
            _BURN.labels(each.case.id).set(each.case.total - each.case.seen)
            _EXPECTED.labels(each.case.id).set(math.nan if each.expected_at is None else each.expected_at - now)
            if each.at_risk:
                await self._warn(conn, each, now)

    async def _warn(self, conn: Connection, stands: Standing, now: int) -> None:
        """Once for each case."""
        expected = timestamp(stands.expected_at) or "not measured"
        left = stands.case.total - stands.case.seen
        text = f"Its deadline is at risk: {left} certificates are left, expected end: {expected}."
        if await self._tell(conn, stands, text, now):
            logger().error("case.at_risk", case=stands.case.id, left=left, expected=expected)
