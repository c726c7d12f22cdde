"""Mass revocations as operators command them: made, previewed, started, paused, resumed, aborted (C17)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from issuer.revocation.cases import find_case
from issuer.revocation.find import issuer_by_name
from issuer.revocation.pace import TAIL
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.store import acts, mass_jobs, mass_sets
from quash.store.database import Connection
from quash.store.mass_jobs import MassJob
from quash.store.operators import Operator

CREATE: Final = "mass-revocation.create"
START: Final = "mass-revocation.start"
PACE: Final = "mass-revocation.pace"
# What may follow what, and the act that tells of it.
CHANGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "pause": ("paused", ("running",)),
    "resume": ("running", ("paused",)),
    "abort": ("aborted", ("draft", "gathering", "ready", "running", "paused")),
    "gather": ("gathering", ("draft",)),
}

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pace:
    """At most one of both: certificates a second, or the moment by which all is published (Unix seconds)."""

    per_second: float | None = None
    finish_by: int | None = None

    def check(self, now: int) -> None:
        """Raises `mass.finish_by`."""
        if self.finish_by is not None and self.finish_by <= now + TAIL:
            raise QuashError("mass.finish_by", f"give a moment at least {TAIL} seconds from now, or no pace at all")


async def create(
    conn: Connection,
    operator: Operator,
    selection: Mapping[str, Any],
    *,
    reason: Reason,
    revoked_at: int | None,
    now: int,
    pace: Pace = Pace(),
) -> MassJob:
    """Makes a job; a list of certificates is then sent in parts (`add_listed`), other sets are gathered at once.

    Raises `issuer.unknown`, `case.unknown`, `revocation.date_in_future`, `revocation.date_too_early`, `mass.finish_by`.
    """
    pace.check(now)
    if revoked_at is not None and revoked_at > now:
        raise QuashError("revocation.date_in_future", "a revocation cannot begin later than now: leave revoked_at out")
    if revoked_at is not None and revoked_at < 0:
        raise QuashError("revocation.date_too_early", "give a revoked_at from 1970 on")
    issuer = selection.get("filter", selection).get("issuer")
    if issuer is not None:
        await issuer_by_name(conn, issuer)
    if "case" in selection:
        await find_case(conn, selection["case"])
    async with conn.transaction():
        subject = {"selection": dict(selection), "reason": reason.name, "revoked_at": revoked_at}
        act_id = await acts.record(conn, at=now, actor=operator.actor, action=CREATE, subject=subject)
        state = "draft" if "list" in selection else "gathering"
        return await mass_jobs.add(
            conn,
            state=state,
            selection=selection,
            reason=reason,
            revoked_at=revoked_at,
            act_id=act_id,
            now=now,
            max_per_second=pace.per_second,
            finish_by=pace.finish_by,
        )


async def add_listed(
    conn: Connection, job_id: int, issuer: str | None, serials: Sequence[bytes], now: int
) -> tuple[list[bytes], list[bytes]]:
    """Adds certificates to a draft; returns the serials that nobody gave out, and those that several issuers did."""
    issuer_id = None if issuer is None else (await issuer_by_name(conn, issuer)).id
    async with conn.transaction():
        await _locked(conn, job_id, "draft")
        issuers = await mass_sets.add_listed(conn, job_id, issuer_id, serials, now)
    return [each for each, of in issuers.items() if not of], [each for each, of in issuers.items() if of > 1]


async def change(conn: Connection, operator: Operator, job_id: int, what: str, now: int) -> MassJob:
    """`what` is a key of `CHANGES`. It takes effect before the next batch; what is revoked stays revoked (C16).

    Raises `mass.unknown`, `mass.state`.
    """
    state, allowed = CHANGES[what]
    async with conn.transaction():
        job = await _locked(conn, job_id, *allowed)
        subject = {"job": job.id, "done": job.done, "total": job.total}
        await acts.record(conn, at=now, actor=operator.actor, action=f"mass-revocation.{what}", subject=subject)
        await mass_jobs.set_state(conn, job_id, state, now)
    return await find(conn, job_id)


async def set_pace(conn: Connection, operator: Operator, job_id: int, pace: Pace, now: int) -> MassJob:
    """From the next batch on; neither: as fast as it can. Who may pause may slow down: it takes no second officer.

    Raises `mass.unknown`, `mass.state`, `mass.finish_by`.
    """
    pace.check(now)
    async with conn.transaction():
        await _locked(conn, job_id, *CHANGES["abort"][1])
        subject = {"job": job_id, "per_second": pace.per_second, "finish_by": pace.finish_by}
        await acts.record(conn, at=now, actor=operator.actor, action=PACE, subject=subject)
        await mass_jobs.set_pace(conn, job_id, pace.per_second, pace.finish_by, now)
    return await find(conn, job_id)


def payload(job: MassJob) -> Payload:
    """What an officer approves: the very set, by its hash, with what is done to it."""
    preview = job.preview or {}
    return {
        "job": job.id,
        "sha256": "" if job.sha256 is None else job.sha256.hex(),
        "certificates": job.total,
        "siblings": (job.total or 0) - (job.listed or 0),
        "exempt": job.exempt,
        "issuers": preview.get("issuers"),
        "reason": Reason(job.reason).name,
        "revoked_at": job.revoked_at,
    }


def needs_approval(job: MassJob, limit: int) -> bool:
    """Whether two officers must agree: above `limit`, for CA certificates, and for a key said to be compromised.

    A compromise without a proof is an assertion; with one, `quash key compromised` needs nobody else.
    """
    asserted = "spki_sha256" in job.selection and job.reason == Reason.keyCompromise
    return asserted or (job.total or 0) > limit or bool(job.preview and job.preview["cas"])


async def start(conn: Connection, operator: Operator, job_id: int, now: int) -> MassJob:
    """Starts what one may start alone.

    Raises `mass.unknown`, `mass.state`, `mass.empty`, `revocation.reason_required`.
    """
    async with conn.transaction():
        job = await _locked(conn, job_id, "ready")
        _check_startable(job)
        act_id = await acts.record(conn, at=now, actor=operator.actor, action=START, subject=payload(job))
        await mass_jobs.start(conn, job_id, act_id, now)
    return await find(conn, job_id)


async def check_start(conn: Connection, asked: Payload) -> None:
    """Raises what `start` raises, and `proposal.changed` when the set is not the one that was shown."""
    job = await find(conn, int(asked["job"]))
    _require(job, "ready")
    _check_startable(job)
    if payload(job) != asked:
        raise QuashError("proposal.changed", "this is not what was proposed: look at it again", Kind.CONFLICT)


async def start_approved(conn: Connection, asked: Payload, now: int, act_id: int) -> None:
    """The effect of the second officer's approval."""
    await _locked(conn, int(asked["job"]), "ready")
    await mass_jobs.start(conn, int(asked["job"]), act_id, now)


def _check_startable(job: MassJob) -> None:
    if not job.total:
        raise QuashError("mass.empty", "the selection has no unexpired certificate", Kind.REFUSED)
    if job.preview and job.preview["cas"] and job.reason == Reason.unspecified:
        raise QuashError("revocation.reason_required", "a CA certificate needs a --reason (B10)", Kind.REFUSED)


async def find(conn: Connection, job_id: int) -> MassJob:
    """Raises `mass.unknown`."""
    return _known(await mass_jobs.get(conn, job_id))


async def _locked(conn: Connection, job_id: int, *states: str) -> MassJob:
    job = _known(await mass_jobs.get(conn, job_id, lock=True))
    _require(job, *states)
    return job


def _known(job: MassJob | None) -> MassJob:
    if job is None:
        raise QuashError("mass.unknown", "no mass revocation has this number: see quash job list", Kind.NOT_FOUND)
    return job


def _require(job: MassJob, *states: str) -> None:
    if job.state not in states:
        raise QuashError("mass.state", f"mass revocation {job.id} is {job.state}: look at it again", Kind.CONFLICT)
