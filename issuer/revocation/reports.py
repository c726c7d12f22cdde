"""Takes up what the public reported: opens a case, has a proof act at once, escalates what nobody picks up.

Intake is exposed to strangers, so nothing that it wrote is believed: the proof is verified again here.
"""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
from asn1crypto import pem
from prometheus_client import Counter, Gauge

from issuer.revocation import evidence, intake
from issuer.revocation.cases import add_certificates, add_key, open_case, record_event, standing
from issuer.revocation.find import Target, find_all
from issuer.revocation.notices import ESCALATE, notify
from quash.errors import QuashError
from quash.pki.serials import parse_serial
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.log import logger
from quash.store import acts, cases, key_evidence, reports
from quash.store.database import Connection, Pool, acquire
from quash.store.key_evidence import Evidence
from quash.store.reports import Report

ACTOR: Final = "intake"
_PAGE: Final = 20
_SUMMARY: Final = 1000
_TRIGGERS: Final = {"problem": "report", "key-compromise": "br-3"}

_TAKEN = Counter("quash_reports_taken_total", "Reports that opened a case", ["kind"])
_NEGLECTED = Gauge("quash_cases_not_picked_up", "Open cases that nobody picked up within two hours (alarm)")


class ReportTaker:
    """`step` takes up every new report, each at least once; of several processes one does."""

    def __init__(self, pool: Pool, config: Config, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._batch = config.admin.sibling_batch
        self._revoke_proven = config.intake.revoke_proven
        self._escalate_to = config.notices.escalate_to

    @property
    def _now(self) -> int:
        return int(self._clock.now())

    async def step(self) -> int:
        """Returns how many cases it opened."""
        opened = 0
        async with acquire(self._pool) as conn, reports.alone(conn) as mine:
            if not mine:
                return 0
            for report, case_id in await reports.waiting(conn, _PAGE):
                number = case_id
                if number is None:
                    number = await self._open(conn, report)
                    opened += 1
                await self._name(conn, report, number)
                if report.proof is not None:
                    await self._prove(conn, report, report.proof, number)
                await reports.done(conn, report, self._now)
            await self._escalate(conn)
        return opened

    async def _open(self, conn: Connection, report: Report) -> int:
        async with conn.transaction():
            case_id = await open_case(
                conn,
                ACTOR,
                trigger=_TRIGGERS[report.kind],
                received_at=min(report.received_at, self._now),
                reporter=report.contact,
                summary=report.body["description"][:_SUMMARY],
                now=self._now,
            )
            await reports.take(conn, report, case_id, self._now)
        _TAKEN.labels(report.kind).inc()
        return case_id

    async def _name(self, conn: Connection, report: Report, case_id: int) -> None:
        """Adds the certificates that the reporter named, those that we know."""
        for text in report.body.get("serials", []):
            try:
                found = await find_all(conn, Target(serial=parse_serial(text)))
                targets = [Target(each.issuer.name, each.certificate.serial) for each in found]
                await add_certificates(conn, ACTOR, case_id, targets, self._now)
            except QuashError as error:
                await self._note(conn, case_id, f"serial {text[:100]!r}: {error.message}")

    async def _prove(self, conn: Connection, report: Report, proof: Evidence, case_id: int) -> None:
        try:
            await asyncio.to_thread(verify_again, proof)
            await self._know_challenge(conn, report, proof)
            spki_sha256 = evidence.key_hash(proof)
            since = report.body.get("revoked_at")
            if self._revoke_proven:
                _, done = await intake.accept(
                    conn, self._clock, proof, actor=ACTOR, revoked_at=since, batch=self._batch, dry_run=False
                )
                await self._note(conn, case_id, f"proof verified, {done.total if done else 0} certificates to revoke")
            else:
                await self._note(conn, case_id, "proof verified: hand it in with quash key compromised")
            await add_key(conn, ACTOR, case_id, spki_sha256, self._now)
        except QuashError as error:
            await self._note(conn, case_id, f"proof not accepted: {error}")
            logger().warning("report.proof_refused", case=case_id, code=error.code)

    async def _know_challenge(self, conn: Connection, report: Report, proof: Evidence) -> None:
        """A challenge that intake gave out counts as ours, when the report came in time."""
        if proof.challenge is None or await key_evidence.find_challenge(conn, proof.challenge) is not None:
            return
        given = await reports.find_challenge(conn, proof.challenge)
        if given is None or not given.at <= report.received_at < given.expires_at:
            return  # `accept` says what is wrong with it
        async with conn.transaction():
            subject = {"challenge": proof.challenge}
            act_id = await acts.record(conn, at=self._now, actor=ACTOR, action=intake.CHALLENGE, subject=subject)
            # In time when it came: its hour may be over by now.
            expires_at = max(given.expires_at, self._now + 1)
            await key_evidence.add_challenge(conn, proof.challenge, at=given.at, expires_at=expires_at, act_id=act_id)

    async def _note(self, conn: Connection, case_id: int, text: str) -> None:
        await record_event(conn, ACTOR, case_id, kind="note", text=text, sha256=None, now=self._now)

    async def _escalate(self, conn: Connection) -> None:
        late = []
        for case in await cases.not_picked_up(conn):
            stands = standing(case, self._now)
            if stands.neglected and self._now > stands.pick_up_by:
                late.append(stands)
        _NEGLECTED.set(len(late))
        for stands in late:
            text = "Nobody has picked it up within two hours: quash case pick-up."
            once = f"pick-up:{stands.case.id}"
            if await notify(conn, ACTOR, stands, ESCALATE, self._escalate_to, now=self._now, text=text, once=once):
                logger().error("case.not_picked_up", case=stands.case.id)


def verify_again(proof: Evidence) -> None:
    """Raises `evidence.*` unless a proof that intake kept is one."""
    if proof.kind == "private-key":
        evidence.verify_kept_proof(proof)
        return
    if proof.kind == "csr":
        found = evidence.from_csr(pem.armor("CERTIFICATE REQUEST", proof.proof).decode("ascii"))
    else:
        found = evidence.from_jws(orjson.loads(proof.proof), proof.spki)
    if (found.spki, found.challenge) != (proof.spki, proof.challenge):
        raise QuashError("evidence.key_mismatch", "the proof is by another key, or over another challenge")
