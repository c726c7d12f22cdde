"""The job runner's part of a mass revocation: it completes the set, then revokes it by batches (C17).

A batch's revocations, its act, its news and its progress are one transaction, so that a crash at any moment loses
nothing and repeats nothing. News go by the bulk lane: single revocations overtake them at every stage.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from prometheus_client import Counter, Gauge

from issuer.revocation import pace
from quash.errors import Kind, QuashError
from quash.pki.reasons import Decision, Outcome, Reason, decide
from quash.pki.serials import format_serial
from quash.runtime.clock import Clock
from quash.runtime.log import logger
from quash.store import (
    acts,
    blocked_keys,
    certificates,
    exemptions,
    issuers,
    mass_jobs,
    mass_sets,
    mass_signing,
    outbox,
    rates,
    revocations,
)
from quash.store.certificate_search import Wanted
from quash.store.database import Connection, Pool, acquire
from quash.store.mass_jobs import MassJob
from quash.store.mass_sets import START, Key, Member
from quash.store.revocations import Revocation

REVOKE: Final = "certificate.revoke-many"
FINISHED: Final = "mass-revocation.finish"
ACTOR: Final = "job-runner"
_TURN: Final = 1.0  # seconds, after which compromised keys and other jobs are looked at again
_WHOLE_FROM: Final = 1000  # certificates of one bucket: below, news of each are cheaper than signing the bucket anew
_ENTRY: Final = 40  # octets of a CRL entry where no published CRL tells
_PAGE: Final = 20_000
_SMOOTH: Final = 0.1
_TELL_SIGNING_EVERY: Final = 10.0  # seconds: each time the bulk news that wait are counted
_SIGNED_WITHIN: Final = 86400  # seconds after its end, in which what a job has yet to be signed is told of
_SHOWN: Final = 100  # exempt certificates in a preview; all of them have a path of their own

_REVOKED = Counter("quash_mass_revocations_total", "Certificates that mass revocations dealt with", ["outcome"])
_LEFT = Gauge("quash_mass_revocation_left", "Certificates that are left of the running mass revocations")
_TO_SIGN = Gauge(
    "quash_mass_revocation_to_sign", "Certificates of mass revocations: revoked, yet to be signed for OCSP"
)
_SIGNING_SECONDS = Gauge("quash_mass_revocation_to_sign_seconds", "Until they are signed, at the rate measured last")
_LATE = Gauge("quash_mass_revocation_late", "Running mass revocations that miss their finish_by as they go (alarm)")
_SECONDS = Gauge("quash_mass_revocation_left_seconds", "Until the running mass revocations are done, at their own rate")
_PAUSED = Gauge("quash_mass_revocation_paused", "Mass revocations that are paused: nothing of them goes on")
_SET_CHANGED = Counter("quash_mass_revocation_set_changed_total", "Alarm: paused, the set is not what was approved")


_Upgrade = tuple[Member, Revocation, Decision]
"""A certificate that was revoked before, how it stands, and what is to stand."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What all batches of a job share. `since`: the revocation date (B26); `whole`: (issuer id, rank) of buckets."""

    actor: str
    since: int
    whole: set[tuple[int, int]]
    issuers: Mapping[int, str]


class MassRunner:
    """Any number of runners may run: a batch locks its job, and what a runner remembers only saves it work."""

    def __init__(self, pool: Pool, clock: Clock, *, batch: int) -> None:
        self._pool = pool
        self._clock = clock
        self._batch = batch
        self._plans: dict[int, _Plan] = {}
        self._rates: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._tell_signing_at = 0.0

    async def step(self) -> int:
        """Works on every job for at most about a second; returns how many certificates it dealt with."""
        done = 0
        async with acquire(self._pool) as conn:
            for job in await mass_jobs.in_state(conn, "gathering"):
                await self.gather(conn, job)
            for job in await mass_jobs.in_state(conn, "running"):
                done += await self._turn(conn, job)
            # Also where nothing runs: what an officer or another runner ended meanwhile must not stand for ever.
            open_jobs = await mass_jobs.in_state(conn, "running", "paused")
            self._tell(open_jobs)
            await self._tell_signing(conn, open_jobs)
        return done

    async def _turn(self, conn: Connection, job: MassJob) -> int:
        ends, done = self._clock.monotonic() + _TURN, 0
        while self._clock.monotonic() < ends:
            count = await self.run_batch(conn, job.id)
            if not count:
                break
            done += count
        return done

    def _tell(self, open_jobs: Sequence[MassJob]) -> None:
        running = [job for job in open_jobs if job.state == "running"]
        _PAUSED.set(len(open_jobs) - len(running))
        _LEFT.set(sum((job.total or 0) - job.done for job in running))
        _SECONDS.set(max((job.seconds_left or 0.0 for job in running), default=0.0))
        _LATE.set(sum(pace.is_late(job, self._clock.now()) for job in running))

    async def _tell_signing(self, conn: Connection, open_jobs: Sequence[MassJob]) -> None:
        """Beyond a job's end: with slow keys what it revoked is signed long after it."""
        if self._clock.monotonic() < self._tell_signing_at:
            return
        now = int(self._clock.now())
        jobs = [*open_jobs, *await mass_jobs.ended_since(conn, now - _SIGNED_WITHIN)]
        to_sign = sum((await mass_signing.to_sign(conn, [job.id for job in jobs], now)).values()) if jobs else 0
        rate = await rates.last(conn, rates.SIGNING) if to_sign else None
        _TO_SIGN.set(to_sign)
        _SIGNING_SECONDS.set(to_sign / rate if rate else 0)
        self._tell_signing_at = self._clock.monotonic() + _TELL_SIGNING_EVERY

    # --- The set.

    async def gather(self, conn: Connection, job: MassJob) -> None:
        """Completes and fixes the set. Each page is a statement of its own, and all of it may be repeated."""
        now = int(self._clock.now())
        if job.listed is None:
            await self._select(conn, job, now)
            await mass_jobs.set_listed(conn, job.id, await mass_sets.count(conn, job.id))
        if job.reason == Reason.keyCompromise:
            await mass_sets.add_siblings(conn, job.id, now)
        buckets = [
            (issuer_id, rank, count, await _is_whole(conn, issuer_id, rank, count, now))
            for issuer_id, rank, count in await mass_sets.by_bucket(conn, job.id)
        ]
        exempt = await _exempt_of(conn, job, now)
        preview = await _preview(conn, job, exempt)
        sha256 = await set_hash(conn, job.id)
        total = sum(count for _, _, count, _ in buckets)
        async with conn.transaction():
            locked = await mass_jobs.try_lock(conn, job.id)
            if locked is not None and locked.state == "gathering":
                await mass_jobs.add_exempt(conn, job.id, exempt)
                await mass_jobs.set_ready(
                    conn, job.id, total=total, sha256=sha256, preview=preview, buckets=buckets, now=now
                )
                logger().info("mass.ready", job=job.id, certificates=total, sha256=sha256.hex())

    async def _select(self, conn: Connection, job: MassJob, now: int) -> None:
        asked = job.selection
        if "spki_sha256" in asked:
            await mass_sets.add_of_key(conn, job.id, bytes.fromhex(asked["spki_sha256"]), now)
        if "case" in asked:
            await mass_sets.add_of_case(conn, job.id, asked["case"], now)
        if "filter" in asked:
            await mass_sets.add_of_filter(conn, job.id, await _wanted(conn, asked["filter"]), now)
        if "issuer" in asked:
            issuer = await issuers.find_by_name(conn, asked["issuer"])
            assert issuer is not None  # noqa: S101 - it was there when the job was made, and none is ever deleted
            period = {"after": asked["after"], "before": asked["before"], "unexpired_at": now}
            for bucket in range(issuer.bucket_count):
                await mass_sets.add_of_period(conn, job.id, issuer.id, bucket, **period)

    # --- Batches.

    async def run_batch(self, conn: Connection, job_id: int) -> int:
        """Revokes one batch and counts it; 0: the job is over, not running or not due, or another runner has it."""
        job = await mass_jobs.get(conn, job_id)
        if job is None or job.state != "running" or self._clock.now() < job.next_at:
            return 0
        most = pace.batch(pace.rate(job, self._clock.now()), self._batch)
        if job_id not in self._plans:
            self._plans[job_id] = await self._begin(conn, job)
        async with conn.transaction():
            # Locks before anything is read that may change: until the commit nobody issues for these keys, or revokes
            # one of them.
            found = await mass_sets.lock_members(conn, job_id, job.cursor, most + 1)
            locked = await mass_jobs.try_lock(conn, job_id)
            if locked is None or locked.state != "running" or locked.cursor != job.cursor:
                return 0
            return await self._batch_of(conn, locked, found[:most], found[most:])

    async def _begin(self, conn: Connection, job: MassJob) -> _Plan:
        """Before this runner's first batch: is it still the set that was previewed and approved?"""
        if await set_hash(conn, job.id) != job.sha256:
            now = int(self._clock.now())
            async with conn.transaction():
                await mass_jobs.set_state(conn, job.id, "paused", now)
                subject = {"job": job.id, "code": "mass.set_changed"}
                await acts.record(conn, at=now, actor=ACTOR, action="mass-revocation.pause", subject=subject)
            _SET_CHANGED.inc()
            raise QuashError(
                "mass.set_changed", f"the set of mass revocation {job.id} is not what was approved", Kind.INTERNAL
            )
        start = await acts.get(conn, job.start_act_id or job.act_id)
        assert start is not None  # noqa: S101 - the table's foreign key
        since = start.at if job.revoked_at is None else job.revoked_at
        whole = await mass_jobs.whole_buckets(conn, job.id)
        return _Plan(start.actor, since, whole, {each.id: each.name for each in await issuers.all_issuers(conn)})

    async def _batch_of(
        self, conn: Connection, job: MassJob, batch: Sequence[Member], following: Sequence[Member]
    ) -> int:
        now = int(self._clock.now())
        if not batch:
            await self._finish(conn, job, now)
            return 0
        left_out = await self._leave_out(conn, job, batch, now)
        due = [each for each in batch if each.not_after >= now]
        if left_out:
            due = [each for each in due if each.key not in left_out]
        standing = {
            (each.issuer_id, each.serial): each
            for each in await revocations.latest_of(conn, [each.key for each in due])
        }
        first = [each for each in due if each.key not in standing] if standing else due
        upgrades = self._upgrades(job, [(each, standing[each.key]) for each in due if each.key in standing])
        changed = [*first, *(each for each, _, _ in upgrades)]
        if changed:
            await self._write(conn, job, first, upgrades, now)
        await self._tell_presigner(conn, job, batch, following, changed)
        await mass_jobs.advance(
            conn,
            job.id,
            batch[-1].cursor,
            done=len(batch),
            changed=len(changed),
            per_second=self._rate(job.id, len(batch)),
            next_at=pace.next_at(pace.rate(job, self._clock.now()), len(batch), job.next_at, self._clock.now()),
            now=now,
        )
        _REVOKED.labels("changed").inc(len(changed))
        _REVOKED.labels("unchanged").inc(len(batch) - len(changed))
        return len(batch)

    async def _leave_out(self, conn: Connection, job: MassJob, batch: Sequence[Member], now: int) -> set[Key]:
        """What two officers exempted: before the preview, which shows it, or since, which is recorded now."""
        if job.reason == Reason.keyCompromise:
            return set()
        decided, known = await exemptions.in_force(conn, now), await mass_jobs.exempt(conn, job.id)
        new = {each.key: decided[each.key] for each in batch if each.key in decided and each.key not in known}
        if new:
            await mass_jobs.add_exempt(conn, job.id, new)
        return set(known) | set(new)

    def _upgrades(self, job: MassJob, standing: Iterable[tuple[Member, Revocation]]) -> list[_Upgrade]:
        """Of those revoked before, what is to change by B25; the others stand as asked, or may not change."""
        if job.reason != Reason.keyCompromise:
            return []
        since = self._plans[job.id].since
        decided = [
            (member, before, decide((Reason(before.reason), before.revoked_at), Reason.keyCompromise, since))
            for member, before in standing
        ]
        return [each for each in decided if each[2].outcome is not Outcome.UNCHANGED]

    async def _write(
        self, conn: Connection, job: MassJob, first: Sequence[Member], upgrades: Sequence[_Upgrade], now: int
    ) -> None:
        """The revocations and the one act that names them all; compromised keys are blocked with them (C9)."""
        plan, reason, serials = self._plans[job.id], Reason(job.reason), defaultdict(list)
        changed = [*first, *(each for each, _, _ in upgrades)]
        for each in changed:
            serials[plan.issuers[each.issuer_id]].append(format_serial(each.serial))
        subject: dict[str, Any] = {"job": job.id, "cause": job.start_act_id, "reason": reason.name}
        subject |= {"revoked_at": plan.since, "certificates": serials}
        act_id = await acts.record(conn, at=now, actor=plan.actor, action=REVOKE, subject=subject)
        if first:
            await revocations.add_first(
                conn,
                [(each.issuer_id, each.serial, each.shard, each.not_after) for each in first],
                reason=reason,
                revoked_at=plan.since,
                recorded_at=now,
                act_id=act_id,
            )
        if upgrades:
            await revocations.add(
                conn,
                [
                    replace(
                        before,
                        version=before.version + 1,
                        reason=decision.reason,
                        revoked_at=decision.revoked_at,
                        recorded_at=now,
                        act_id=act_id,
                    )
                    for _, before, decision in upgrades
                ],
            )
        if reason is Reason.keyCompromise:
            keys = await certificates.public_keys(conn, [each.key for each in changed])
            await blocked_keys.block_many(conn, keys, reason=reason.name, added_at=now, act_id=act_id)

    async def _tell_presigner(
        self,
        conn: Connection,
        job: MassJob,
        batch: Sequence[Member],
        following: Sequence[Member],
        changed: Sequence[Member],
    ) -> None:
        """Each certificate, or, with its last one, a bucket of which nearly everything was revoked."""
        whole = self._plans[job.id].whole
        single = [each.key for each in changed if each.place not in whole]
        if single:
            await outbox.add_certificates(conn, single, lane=outbox.BULK)
        under_way = {each.place for each in following}
        over: dict[int, list[int]] = defaultdict(list)
        for place, member in {each.place: each for each in batch}.items():
            if place in whole and place not in under_way:
                over[member.issuer_id].append(member.bucket)
        for issuer_id, buckets in over.items():
            await outbox.add_buckets(conn, issuer_id, buckets)

    async def _finish(self, conn: Connection, job: MassJob, now: int) -> None:
        await mass_jobs.set_state(conn, job.id, "done", now)
        subject = {"job": job.id, "cause": job.start_act_id, "done": job.done, "changed": job.changed}
        await acts.record(conn, at=now, actor=ACTOR, action=FINISHED, subject=subject)
        self._plans.pop(job.id, None)
        logger().info("mass.finished", job=job.id, done=job.done, changed=job.changed)

    def _rate(self, job_id: int, count: int) -> float | None:
        """Certificates a second, smoothed; None with the first batch."""
        now = self._clock.monotonic()
        before = self._last.get(job_id)
        self._last[job_id] = now
        if before is None or now <= before:
            return None
        rate = count / (now - before)
        self._rates[job_id] = (
            rate if job_id not in self._rates else (1 - _SMOOTH) * self._rates[job_id] + _SMOOTH * rate
        )
        return self._rates[job_id]


async def _is_whole(conn: Connection, issuer_id: int, rank: int, count: int, now: int) -> bool:
    """Whether at least half of what the bucket has is revoked: then signing all of it is the least work."""
    return count >= _WHOLE_FROM and await mass_sets.in_bucket(conn, issuer_id, rank, now, 2 * count + 1) <= 2 * count


async def set_hash(conn: Connection, job_id: int) -> bytes:
    """SHA-256 of the set as text, a line `issuer serial` each, in its order: as `sha256sum` says of its export."""
    digest, after = hashlib.sha256(), START
    while True:
        text, following = await mass_sets.lines(conn, job_id, after, _PAGE)
        digest.update(text.encode())
        if following is None:
            return digest.digest()
        after = following


async def _wanted(conn: Connection, asked: Mapping[str, Any]) -> Wanted:
    """A filter as the job keeps it, with its issuer by name."""
    fields = dict(asked)
    name = fields.pop("issuer", None)
    issuer = None if name is None else await issuers.find_by_name(conn, name)
    return Wanted(**fields, issuer_id=None if issuer is None else issuer.id)


async def _exempt_of(conn: Connection, job: MassJob, now: int) -> dict[Key, int]:
    """What of the set is exempt now; of compromised keys nothing is (C8)."""
    decided = {} if job.reason == Reason.keyCompromise else await exemptions.in_force(conn, now)
    return {key: decided[key] for key in await mass_sets.of_set(conn, job.id, decided)} if decided else {}


async def _preview(conn: Connection, job: MassJob, exempt: Mapping[Key, int]) -> Mapping[str, Any]:
    """By issuer and by CRL scope: how many, and how large the CRL will be; and what is left out."""
    counts: dict[str, int] = defaultdict(int)
    scopes, before = [], 0
    for issuer, scope, count, revoked, octets, entries in await mass_sets.by_scope(conn, job.id):
        counts[issuer] += count
        before += revoked
        each = octets / entries if entries else _ENTRY + 12 * (job.reason != Reason.unspecified)
        added = count - revoked
        scopes.append(
            {
                "issuer": issuer,
                "scope": scope,
                "certificates": count,
                "entries": entries + added,
                "bytes": octets + round(added * each),
            }
        )
    known = {each.id: each for each in await issuers.all_issuers(conn)}
    left_out = [
        {"issuer": known[issuer_id].name, "serial": format_serial(serial), "exemption": exemption}
        for (issuer_id, serial), exemption in sorted(exempt.items())[:_SHOWN]
    ]
    return {
        "issuers": counts,
        "revoked_before": before,
        "scopes": scopes,
        "cas": await mass_sets.issuers_of_cas(conn, job.id),
        "exempt": left_out,
    }
