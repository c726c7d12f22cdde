"""The self-audit (F12, G50): a random sample of what was issued, for linters that had no say when it was.

1. period       from the end of the last audit's until now (BR 8.7), or until a calendar quarter ends, by when CA keys
                signed; what is signed later, or was not committed yet, is the next one's
2. sample       of each issuer 3 %, at least one
3. lint         each by every configured linter that did not gate it; one that none is left for stops the audit
4. answers      what the public responders say of each that has not expired, by pkilint (A42)
5. store        results and act in one transaction, whatever was found
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from issuer.checks import adapters
from issuer.checks.findings import Finding, Report
from issuer.checks.lint import LintGate
from issuer.checks.workers import Inline
from issuer.issuance import prepare
from issuer.issuance.visible import PublicAnswers
from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.store import acts, self_audits
from quash.store.database import Connection, Pool, acquire
from quash.store.self_audits import Period, Result, Sampled

ACTOR: Final = "command:self-audit"
PERCENT: Final = 3
"""F12: of what each issuer made, and at least one."""
_PARALLEL: Final = 4
_QUARTER: Final = re.compile(r"(\d{4})-?Q([1-4])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Audited:
    """What one linter said of one sampled certificate."""

    certificate: Sampled
    report: Report


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole audit; `since` and `until` are Unix seconds."""

    id: int
    since: int
    until: int
    population: int
    sample: int
    audited: Sequence[Audited]

    @property
    def refused(self) -> list[Audited]:
        return [each for each in self.audited if each.report.refusing]


def sample_size(population: int) -> int:
    """The greater of one and 3 %, rounded up; of nothing nothing."""
    return -(-population * PERCENT // 100)


def read_quarter(text: str) -> tuple[int, int]:
    """`2026-Q3` as Unix seconds, UTC, the end exclusive. Raises `self_audit.period`."""
    found = _QUARTER.fullmatch(text)
    if found is None:
        raise QuashError("self_audit.period", f"{text!r} is no quarter: write it like 2026-Q3")
    year, month = int(found[1]), 3 * int(found[2]) - 2
    after = (year + 1, 1) if month == 10 else (year, month + 3)
    try:
        ends = datetime(year, month, 1, tzinfo=UTC), datetime(*after, 1, tzinfo=UTC)
    except ValueError:
        raise QuashError("self_audit.period", f"{text!r} is no quarter of our calendar") from None
    return int(ends[0].timestamp()), int(ends[1].timestamp())


async def audit(
    pool: Pool, config: Config, clock: Clock, quarter: str | None = None, *, responders: PublicAnswers | None = None
) -> Outcome:
    """One audit by the recipe above. `pool`: of the owner's role. Without `responders` step 4 falls away.

    Raises `self_audit.period`, `self_audit.nothing`, `self_audit.no_linter`, `lint.*`.
    """
    now = int(clock.now())
    async with acquire(pool) as conn, conn.transaction(isolation="repeatable_read"):  # one snapshot for all of it
        counted = await self_audits.snapshot(conn)
        period = await _period(conn, quarter, now)
        counts = await self_audits.population(conn, period)
        sampled = [
            each
            for issuer_id, count in counts.items()
            for each in await self_audits.sample(conn, issuer_id, period, sample_size(count))
        ]
    if not sampled:
        raise QuashError("self_audit.nothing", "nothing was issued in this period", Kind.NOT_FOUND)
    audited = await _lint(config, sampled)
    if responders is not None:
        audited += [found for each in sampled if (found := await _answers(pool, config, responders, each, now))]
    results = [
        Result(each.certificate.issuer_id, each.certificate.serial, each.report.linter, each.report.version,
               each.report.as_json(), bool(each.report.refusing))
        for each in audited
    ]  # fmt: skip
    total, refused = sum(counts.values()), sum(each.refused for each in results)
    subject = {"since": period.since, "until": period.until, "population": total, "sample": len(sampled)}
    subject["refused"] = refused
    async with acquire(pool) as conn, conn.transaction():
        act_id = await acts.record(conn, at=now, actor=ACTOR, action="self-audit", subject=subject)
        audit_id = await self_audits.add(
            conn, at=now, period=period, counted=counted, population=total, act_id=act_id, results=results
        )
    return Outcome(audit_id, period.since, period.until, total, len(sampled), audited)


async def _period(conn: Connection, quarter: str | None, now: int) -> Period:
    """So that whatever was signed is in some audit's population: a period leaves no gap to the last one's end."""
    last, unseen = await self_audits.last(conn)
    if not quarter:
        return Period(last, now, unseen)
    begin, end = read_quarter(quarter)
    return Period(min(begin, last), min(end, now), unseen)


async def _lint(config: Config, sampled: Sequence[Sampled]) -> list[Audited]:
    gate, room = LintGate(config.lint, Inline()), asyncio.Semaphore(_PARALLEL)
    linters = [each for each in config.self_audit.linters if adapters.found_at(each)]

    async def look(certificate: Sampled) -> list[Audited]:
        left = [each for each in linters if each.name not in certificate.gated_by]
        if not left:
            raise QuashError(
                "self_audit.no_linter",
                f"no linter of self_audit.linters is on this machine that had no say in what {certificate.issuer}"
                f" issued (its gate: {', '.join(certificate.gated_by)}): install one (F12)",
                Kind.UNAVAILABLE,
            )
        async with room:
            return [Audited(certificate, await gate.external(each, certificate.der)) for each in left]

    found = await asyncio.gather(*map(look, sampled))
    return [each for several in found for each in several]


async def _answers(
    pool: Pool, config: Config, responders: PublicAnswers, certificate: Sampled, now: int
) -> Audited | None:
    """All answers of one certificate; None once it has expired. Who does not answer is others' business to notice."""
    if x509.load_der_x509_certificate(certificate.der).not_valid_after_utc.timestamp() < now:
        return None
    async with acquire(pool) as conn:
        (issuer, own), *_ = await prepare.read_chain(conn, certificate.issuer_id)
    heard = await responders.ask(issuer, own, certificate.serial)
    silent = [Finding("info", "no_answer", f"{each.url}: {each.why}") for each in heard if not each.body]
    report = await LintGate(config.lint, Inline()).answers([each.body for each in heard if each.body])
    return Audited(certificate, replace(report, findings=(*report.findings, *silent)))


def told(findings: Sequence[Finding]) -> str:
    """Findings on one line."""
    return "; ".join(f"{each.severity} {each.code} {each.message}".strip() for each in findings)
