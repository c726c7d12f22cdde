"""Flow 2: revoke. One transaction holds the revocation, its act and the news of it; effects follow its commit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from issuer.revocation.find import Found, Target, find_one
from quash.errors import Kind, QuashError
from quash.pki.reasons import Decision, Outcome, Reason, decide
from quash.pki.serials import format_serial
from quash.runtime.clock import Clock
from quash.store import acts, blocked_keys, certificates, issuers, jobs, outbox, revocations
from quash.store.certificates import Certificate
from quash.store.database import Connection
from quash.store.locks import spki_lock
from quash.store.revocations import Revocation, Standing

REVOKE = "certificate.revoke"
REVOKE_SIBLING = "certificate.revoke-sibling"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. `revoked_at`: Unix seconds; None: the moment of recording."""

    target: Target
    reason: Reason = Reason.unspecified
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """How things stand afterwards (for a dry run: would stand).

    `changed`: some certificate's status did. `siblings`: (issuer, serial) of the other unexpired certificates of a
    compromised key, as many as one batch takes; `siblings_total` counts all. `act_id`: who and when; None: dry run.
    """

    issuer: str
    serial: bytes
    reason: Reason
    revoked_at: int
    changed: bool
    siblings: tuple[tuple[str, bytes], ...]
    siblings_total: int
    act_id: int | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a request comes to, before anything is written; `siblings` are those still to change, one batch at most."""

    found: Found
    standing: Standing
    decision: Decision
    asked_at: int
    siblings: Sequence[Standing]
    siblings_left: int

    @property
    def changes(self) -> bool:
        return self.decision.outcome is not Outcome.UNCHANGED or bool(self.siblings)

    @property
    def compromised_key(self) -> bytes | None:
        return self.found.certificate.spki_sha256 if self.decision.reason is Reason.keyCompromise else None


async def revoke(
    conn: Connection, clock: Clock, request: Request, *, actor: str, batch: int, dry_run: bool = False
) -> Revoked:
    """Revokes a certificate and, for keyCompromise, its key's every unexpired certificate (C8); again changes nothing.

    `batch`: siblings revoked in the transaction; more become a job that commits with it. Raises `find_one`'s errors,
    `certificate.expired`, `revocation.not_upgradable`, `revocation.date_in_future`, `revocation.date_too_early`,
    `revocation.reason_required`.
    """
    # 1. Which certificate is meant?
    found = await find_one(conn, request.target)
    # 2. From here on nobody issues for its key or revokes the same; held past the commit (see `spki_lock`).
    async with spki_lock(conn, lock_name(found.certificate)), conn.transaction():
        now = int(clock.now())
        # 3. What is to change, by B25 and by the key's other certificates? Nothing is written yet.
        plan = await _plan(conn, found, request, now=now, batch=batch)
        act_id = None
        if not dry_run:
            # 4. Revocations, acts, blocked key, job and news: all or nothing.
            act_id = await _write(conn, plan, actor=actor, now=now)
        # 5. The commit sends hints to presigner, CRL builder and job runner, which do the rest, and poll beside.
        return await _outcome(conn, plan, act_id=act_id, now=now, batch=batch)


def lock_name(certificate: Certificate) -> bytes:
    """What `spki_lock` is taken on: the key; for an import whose key nobody knows, the certificate alone."""
    own = b"%d:%s" % (certificate.issuer_id, certificate.serial)
    return certificate.spki_sha256 or hashlib.sha256(own).digest()


async def _plan(conn: Connection, found: Found, request: Request, *, now: int, batch: int) -> _Plan:
    standing = await _standing(conn, found.certificate)
    asked_at = _date(request, standing, now)
    decision = decide(_says(standing), request.reason, asked_at)
    if decision.outcome is not Outcome.UNCHANGED:
        _check_allowed(found, decision, now)
    plan = _Plan(found, standing, decision, asked_at, (), 0)
    key = plan.compromised_key
    if key is None or await jobs.covers_key(conn, key, reason=decision.reason, revoked_at=asked_at):
        return plan
    own = (found.certificate.issuer_id, found.certificate.serial)
    unsettled = await revocations.unsettled(conn, key, unexpired_at=now, revoked_at=asked_at, limit=batch + 2)
    siblings = [each for each in unsettled if (each.issuer_id, each.serial) != own]
    left = 0
    if len(siblings) > batch:
        total = await revocations.count_unsettled(conn, key, unexpired_at=now, revoked_at=asked_at)
        # The count includes the certificate itself, unless it stands as asked.
        left = total - (decision.outcome is not Outcome.UNCHANGED) - batch
    return _Plan(found, standing, decision, asked_at, siblings[:batch], left)


def _date(request: Request, standing: Standing, now: int) -> int:
    """The date asked for; without one, now, but never before what stands: a clock that stepped back moves no date."""
    if request.revoked_at is None:
        return max(now, standing.revoked_at or now)
    if request.revoked_at > now:
        raise QuashError("revocation.date_in_future", "a revocation cannot begin later than now: leave revoked_at out")
    # Signers cannot write an earlier time, and rows are for ever: one such would keep its whole CRL from being built.
    if request.revoked_at < 0:
        raise QuashError("revocation.date_too_early", "give a revoked_at from 1970 on")
    return request.revoked_at


def _check_allowed(found: Found, decision: Decision, now: int) -> None:
    if found.certificate.not_after < now:
        raise QuashError(
            "certificate.expired",
            "the certificate has expired: nobody may accept it; if its key was stolen, block that with quash key",
            Kind.REFUSED,
        )
    # A root issues certificates of CAs and OCSP signers only (D14, G4): those need a reason (A25, B10).
    if found.issuer.kind == "root" and decision.reason is Reason.unspecified:
        raise QuashError("revocation.reason_required", "a CA certificate needs a --reason (B10)", Kind.REFUSED)


async def _standing(conn: Connection, certificate: Certificate) -> Standing:
    latest = await revocations.latest(conn, certificate.issuer_id, certificate.serial)
    version, reason, revoked_at = (latest.version, latest.reason, latest.revoked_at) if latest else (0, None, None)
    return Standing(certificate.issuer_id, certificate.serial, certificate.shard, version, reason, revoked_at)


def _says(standing: Standing) -> tuple[Reason, int] | None:
    if standing.reason is None or standing.revoked_at is None:
        return None
    return Reason(standing.reason), standing.revoked_at


async def _write(conn: Connection, plan: _Plan, *, actor: str, now: int) -> int:
    """Writes the plan and returns the act that caused it; where nothing changes, the act of the standing revocation."""
    key = plan.compromised_key
    blocks = key is not None and not await blocked_keys.is_blocked(conn, key)
    if not plan.changes and not blocks:
        latest = await revocations.latest(conn, plan.standing.issuer_id, plan.standing.serial)
        assert latest is not None  # noqa: S101 - unchanged means that it stands
        return latest.act_id
    subject = {
        "issuer": plan.found.issuer.name,
        "serial": format_serial(plan.standing.serial),
        "reason": plan.decision.reason.name,
        "revoked_at": plan.decision.revoked_at,
        "outcome": plan.decision.outcome.value,
    }
    if key is not None:
        subject |= {"spki_sha256": key.hex(), "asked_at": plan.asked_at}
    act_id = await acts.record(conn, at=now, actor=actor, action=REVOKE, subject=subject)
    if plan.decision.outcome is not Outcome.UNCHANGED:
        await _append(conn, [(plan.standing, plan.decision, act_id)], now=now, lane=outbox.URGENT)
    if key is not None:
        await blocked_keys.block(conn, key, reason=plan.decision.reason.name, added_at=now, act_id=act_id)
        await revoke_siblings(
            conn, plan.siblings, revoked_at=plan.asked_at, actor=actor, cause=act_id, now=now, lane=outbox.URGENT
        )
    if key is not None and plan.siblings_left:
        done = len(plan.siblings)
        await jobs.add(
            conn,
            spki_sha256=key,
            reason=Reason.keyCompromise,
            revoked_at=plan.asked_at,
            total=done + plan.siblings_left,
            done=done,
            act_id=act_id,
            created_at=now,
        )
    return act_id


async def revoke_siblings(
    conn: Connection, siblings: Sequence[Standing], *, revoked_at: int, actor: str, cause: int, now: int, lane: int
) -> None:
    """Revokes certificates of a compromised key, each with an act of its own that names its `cause`.

    To be called inside a transaction under the key's lock.
    """
    if not siblings:
        return
    names = await _issuer_names(conn)
    decided = [(each, decide(_says(each), Reason.keyCompromise, revoked_at)) for each in siblings]
    subjects = [
        {
            "issuer": names[each.issuer_id],
            "serial": format_serial(each.serial),
            "reason": decision.reason.name,
            "revoked_at": decision.revoked_at,
            "outcome": decision.outcome.value,
            "cause": cause,
        }
        for each, decision in decided
    ]
    written = await acts.record_many(conn, at=now, actor=actor, action=REVOKE_SIBLING, subjects=subjects)
    act_ids = {(act.subject["issuer"], act.subject["serial"]): act.id for act in written}
    rows = [(each, decision, act_ids[names[each.issuer_id], format_serial(each.serial)]) for each, decision in decided]
    await _append(conn, rows, now=now, lane=lane)


async def _append(conn: Connection, rows: Sequence[tuple[Standing, Decision, int]], *, now: int, lane: int) -> None:
    """The next version of each certificate's revocation, and the news of it."""
    await revocations.add(
        conn,
        [
            Revocation(
                issuer_id=standing.issuer_id,
                serial=standing.serial,
                version=standing.version + 1,
                reason=decision.reason,
                revoked_at=decision.revoked_at,
                recorded_at=now,
                shard=standing.shard,
                act_id=act_id,
            )
            for standing, decision, act_id in rows
        ],
    )
    await outbox.add_certificates(conn, [(s.issuer_id, s.serial) for s, _, _ in rows], lane=lane)


async def _outcome(conn: Connection, plan: _Plan, *, act_id: int | None, now: int, batch: int) -> Revoked:
    siblings, total = await list_siblings(conn, plan.found, plan.decision.reason, now=now, limit=batch)
    return Revoked(
        issuer=plan.found.issuer.name,
        serial=plan.standing.serial,
        reason=plan.decision.reason,
        revoked_at=plan.decision.revoked_at,
        changed=plan.changes,
        siblings=siblings,
        siblings_total=total,
        act_id=act_id,
    )


async def list_siblings(
    conn: Connection, found: Found, reason: Reason, *, now: int, limit: int
) -> tuple[tuple[tuple[str, bytes], ...], int]:
    """(issuer, serial) of the other unexpired certificates of a compromised key, and how many there are."""
    key = found.certificate.spki_sha256
    if reason is not Reason.keyCompromise or key is None:
        return (), 0
    names = await _issuer_names(conn)
    own = (found.certificate.issuer_id, found.certificate.serial)
    alike = await certificates.siblings(conn, key, now, limit + 1)
    others = [each for each in alike if (each.issuer_id, each.serial) != own]
    total = len(others)
    if total > limit or len(alike) > limit:
        total = await certificates.count_siblings(conn, key, now) - (found.certificate.not_after >= now)
    return tuple((names[each.issuer_id], each.serial) for each in others[:limit]), total


async def _issuer_names(conn: Connection) -> Mapping[int, str]:
    return {each.id: each.name for each in await issuers.all_issuers(conn)}
