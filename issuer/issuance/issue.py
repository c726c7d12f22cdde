"""Flow 1, issuing: the recipe. Each step is durable, and an order goes on from its last one after any crash.

 1. check            profile, request, names, validation, key, kill switch; a refusal is stored and nothing else
 2. accept           the order is committed, `pending`; with a high-profile name `held` for an officer first (G19)
 3. draft            serial, validity, CRL shard; a throw-away-signed twin, which is linted (D47)
 4. T1: reserve      commit serial, TBS and SPKI, `reserved`: from here on the serial counts as issued (A8)
 5. re-check         under the key's and the kill switch's locks: blocked key, kill switch, validity limit of the day
 6. precertificate   the CA signer signs the committed bytes, and these only; what it returns is verified
 7. T2: commit       precertificate and news for the presigner; the locks end here
 8. answers          every public responder says `good`, for both CertID hashes
 9. log              enough logs for Chrome and Apple give SCTs, each verified (E1-E7)
10. final TBS        a twin with the SCTs is linted; its TBS is committed, the only one that may be signed
11. re-check, sign   as 5 and 6; the CA signer proves the match of both TBS by itself (D19)
12. T3: commit       certificate, news, act, order `ready`; its way into a log begins (E6, `issuance/finals.py`)
13. answers          as 8
14. release          order `issued`: the certificate may leave (answer before release, A7)

Without logs, which only a demonstration may do, 6 to 10 fall away. An order that fails from 4 on, or was left for too
long, has its serial revoked, so that no committed serial stays unanswered. Sibling search and revocation see the serial
from step 4 on, whatever happens to the order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol
from uuid import UUID, uuid4

from prometheus_client import Counter, Gauge, Histogram

from issuer import profiles
from issuer.checks import csr
from issuer.checks.findings import refusal
from issuer.checks.high_profile import flagged
from issuer.checks.keys import KeyCheck
from issuer.checks.lint import Linting
from issuer.checks.registries import Registries
from issuer.ct.submit import Transparency
from issuer.ct.tbs import is_poisoned
from issuer.issuance import prepare
from issuer.issuance.prepare import Asked, Draft, Plan, Reserved
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.log import logger
from quash.store import (
    acts,
    blocked_keys,
    certificates,
    final_submissions,
    lint_results,
    orders,
    outbox,
    revocations,
)
from quash.store.database import Connection, Pool, acquire
from quash.store.issuers import Issuer
from quash.store.lint_results import LintResult
from quash.store.locks import kill_switch_lock, spki_lock, try_order_lock
from quash.store.orders import Order
from quash.store.revocations import Revocation

SignCertificate = Callable[[int, bytes], Awaitable[bytes]]
"""The CA signer: (issuer id, serial) of a reservation to the DER of its certificate; the same DER when asked again."""

_PASSING: Final = (Kind.UNAVAILABLE, Kind.INTERNAL)
"""Faults that say nothing about the order: it waits and is tried again."""
_PARALLEL: Final = 4
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 0.5
_PATIENCE = 5.0  # seconds after which the order is read again: it may have been revoked meanwhile

_ORDERS = Counter("quash_orders_total", "Orders that ended, by code: issued, or the refusal", ["profile", "code"])
_SECONDS = Histogram("quash_order_seconds", "From an order's acceptance to its release")
_OLDEST = Gauge("quash_orders_oldest_seconds", "Age of the oldest unfinished order: A7 wants answers in 900")


class Answers(Protocol):
    """Whether the public gets `good` for a certificate. May be asked as often as one likes; knows no order."""

    async def good(self, issuer: Issuer, issuer_certificate: bytes, serial: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Logging:
    """What steps 6 and 9 need. Without it, certificates have no SCTs."""

    sign_precertificate: SignCertificate
    transparency: Transparency


async def _unobserved(_step: str) -> None: ...


class Issuance:
    """The issuing use case. Any number of processes may run it on one database; each order has one worker at a time.

    `passed` is told each step of the recipe that is complete: `accept`, `reserve`, `presign`, `precommit`, `log`,
    `final`, `sign`, `commit`, `release`.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        config: Config,
        clock: Clock,
        sign: SignCertificate,
        answers: Answers,
        check_key: KeyCheck,
        linting: Linting,
        logging: Logging | None = None,
        registries: Registries | None = None,
        passed: Callable[[str], Awaitable[None]] = _unobserved,
    ) -> None:
        self._pool = pool
        self._config = config
        self._clock = clock
        self._sign_certificate = sign
        self._answers = answers
        self._check_key = check_key
        self._linting = linting
        self._logging = logging
        self.registries = registries
        self._at_logs: set[UUID] = set()
        self._watched: set[UUID] = set()
        self._passed = passed

    async def submit(self, applicant: str, profile: str, request: str, *, by: str | None = None) -> Order:
        """Steps 1 and 2. Raises the refusal, once the refused order and its act are stored.

        `by`: the operator of a reseller's account that sends it (G42).
        """
        now = self.now()
        order = Order(uuid4(), now, applicant, profile, b"", "pending", None, None, None, None, now, submitted_by=by)
        try:
            decoded = csr.decode(request)
            spki = csr.public_key(decoded)
            order = replace(order, csr=decoded)  # what is no request, a private key perhaps, is not kept
            await self._check_key(spki)  # may take long, so before a connection is held
        except QuashError as error:
            if error.kind not in _PASSING:
                async with acquire(self._pool) as conn:
                    await self._store_refused(conn, order, error)
            raise
        async with acquire(self._pool) as conn:
            try:
                plan = await self._plan(conn, order)
            except QuashError as error:
                if error.kind in _PASSING:
                    raise
                await self._store_refused(conn, order, error)
                raise
            if names := flagged(plan.content, self._config.issuance.high_profile):
                order = replace(order, state="held", detail=f"an officer looks at {', '.join(names)} first (G19)")
            async with conn.transaction():
                await orders.add(conn, order)
                if order.state == "held":
                    await self._act(conn, order, "order.hold", names=" ".join(names))
        await self._passed("accept")
        return order

    async def decide(self, order_id: UUID, officer: str, refusal: str | None) -> Order:
        """An officer releases a held order, or refuses it with a reason. Raises `order.own`, `order.conflict`.

        Four eyes: whoever ordered does not release (D38, G19).
        """
        now = self.now()
        async with acquire(self._pool) as conn, conn.transaction():
            order = await self._order(conn, order_id)
            if officer in (order.operator, order.submitted_by):
                raise QuashError("order.own", "another officer decides about your own order", Kind.FORBIDDEN)
            if refusal is None:
                await orders.release(conn, order_id, now)
            else:
                await orders.refuse_held(conn, order_id, "order.high_profile", refusal, now)
            action = "order.release" if refusal is None else "order.refuse"
            await acts.record(
                conn,
                at=now,
                actor=officer,
                action=action,
                subject={"order": str(order_id), "profile": order.profile, "operator": order.operator},
            )
            return await self._order(conn, order_id)

    async def finish(self, order_id: UUID, timeout: float) -> Order:
        """Drives an order until it ends or `timeout` seconds are over; then `step` goes on with it."""
        deadline, wait = self._clock.monotonic() + timeout, _FIRST_WAIT
        self._watched.add(order_id)
        try:
            while True:
                order = await self._try(order_id, deadline)
                if order.final or order.state == "held" or self._clock.monotonic() >= deadline:
                    return order
                await self._clock.sleep(wait)
                wait = min(wait * 1.5, _LONGEST_WAIT)
        finally:
            self._watched.discard(order_id)

    async def step(self) -> int:
        """Takes every unfinished order as far as it goes now, whoever left it; returns how many moved.

        Those that a `finish` of this process is at are left to it.
        """
        moved, after, oldest = 0, (-1, UUID(int=0)), self.now()
        while True:
            async with acquire(self._pool) as conn:
                page = await orders.unfinished(conn, _PARALLEL, after)
            if not page:
                _OLDEST.set(self.now() - oldest)
                return moved
            oldest = min(oldest, page[0].created_at)
            moved += sum(await asyncio.gather(*(self._move(each) for each in page if each.id not in self._watched)))
            after = (page[-1].created_at, page[-1].id)

    async def _move(self, order: Order) -> bool:
        """Whether the order got on; a fault of one order, whatever it is, holds up no other."""
        try:
            return (await self._try(order.id)).state != order.state
        except Exception:  # noqa: BLE001 - see above
            logger().exception("order.fault", order=str(order.id))
            return False

    async def _try(self, order_id: UUID, deadline: float = 0.0) -> Order:
        """`advance`, where a passing fault, or another worker, leaves the order as it is."""
        try:
            return await self.advance(order_id, deadline)
        except QuashError as error:
            if error.kind not in _PASSING and error.code != orders.CONFLICT:  # another worker was faster
                raise
            logger().warning("order.waits", order=str(order_id), code=error.code, detail=error.message)
        async with acquire(self._pool) as conn:
            return await self._order(conn, order_id)

    async def advance(self, order_id: UUID, deadline: float = 0.0) -> Order:
        """One attempt at steps 3 to 14, from wherever the order stands. Raises passing faults only.

        `deadline`: until when (monotonic) it may wait for public answers, rather than look once.
        """
        async with acquire(self._pool) as conn, try_order_lock(conn, order_id) as alone:
            order = await self._order(conn, order_id)
            if alone and order.state == "pending":
                order = await self._issue(conn, order, None)
        if alone and order.state == "pending" and self._logging is not None:
            order = await self._log(order, self._logging, deadline)
        return await self._release(order, deadline) if order.state == "ready" else order

    async def _answered(self, issuer: Issuer, certificate: bytes, serial: bytes, deadline: float) -> bool:
        """Steps 8 and 13: asks strangers alone, so that waiting costs no database anything."""
        until, wait = min(deadline, self._clock.monotonic() + _PATIENCE), _FIRST_WAIT
        while not await self._answers.good(issuer, certificate, serial):
            if self._clock.monotonic() + wait >= until:
                return False
            await self._clock.sleep(wait)
            wait = min(wait * 1.5, _LONGEST_WAIT)
        return True

    async def _issue(self, conn: Connection, order: Order, scts: bytes | None) -> Order:
        """Steps 3 to 7, with the SCTs at hand 10 to 12, or the refusal."""
        try:
            prepare.check_age(order.began_at, self._config.issuance.resume_seconds, self.now())
            if order.serial is not None and scts is None:
                reserved = await prepare.read_reserved(conn, order)
                if reserved.tbs is None:
                    return order  # a precertificate without SCTs: `_log` goes on
            plan = await self._plan(conn, order)
            if order.serial is None:
                logged = plan.kind.logged and self._logging is not None
                draft = await prepare.make_draft(conn, self._config, plan, self.now(), logged=logged)
                await self._lint(conn, order, draft.twin, f"{plan.kind.document}-{'pre' * logged}certificate")
                order = await self._reserve(conn, order, plan, draft)
            reserved = await prepare.read_reserved(conn, order)
            if reserved.tbs is None and scts is not None:
                reserved = await self._finalise(conn, order, plan, reserved, scts)
            if reserved.tbs is not None and is_poisoned(reserved.tbs):
                return await self._sign_precertificate(conn, order, plan, reserved)
            return await self._sign(conn, order, plan, reserved)
        except QuashError as error:
            if error.kind in _PASSING:
                raise
            return await self._refuse(conn, order, error)

    async def _plan(self, conn: Connection, order: Order) -> Plan:
        asked = Asked(order.operator, order.profile, order.csr, self.now())
        return await prepare.make_plan(conn, self._config, self._check_key, asked, registries=self.registries)

    async def _lint(self, conn: Connection, order: Order, twin: bytes, document: str) -> None:
        """Every result is stored, then the first refusal raised (D47)."""
        reports, now = await self._linting(twin, document), self.now()
        results = [
            LintResult(now, order.id, document, each.linter, each.version, each.as_json(), bool(each.refusing))
            for each in reports
        ]
        await lint_results.add(conn, results)
        if (refused := refusal(document, reports)) is not None:
            raise refused

    async def _reserve(self, conn: Connection, order: Order, plan: Plan, draft: Draft) -> Order:
        """Step 4, T1."""
        now = self.now()
        async with conn.transaction():
            await certificates.reserve(
                conn,
                issuer_id=plan.issuer.id,
                serial=draft.serial,
                profile=plan.profile.name,
                tbs=draft.tbs,
                spki_sha256=plan.spki_sha256,
                ski=None,
                not_before=draft.valid.not_before,
                not_after=draft.valid.not_after,
                shard=draft.shard,
                bucket=certificates.bucket_of(draft.serial, plan.issuer.bucket_count),
                order_id=order.id,
                created_at=now,
            )
            await orders.set_serial(conn, order.id, plan.issuer.id, draft.serial, now)
        await self._passed("reserve")
        return replace(order, issuer_id=plan.issuer.id, serial=draft.serial, updated_at=now)

    async def _sign_precertificate(self, conn: Connection, order: Order, plan: Plan, reserved: Reserved) -> Order:
        """Steps 5 to 7. The locks and T2 are on one connection: when it is lost, so is the commit."""
        if self._logging is None:
            message = "this order began with logs, now there are none: order again"
            raise QuashError("ct.not_configured", message, Kind.REFUSED)
        async with kill_switch_lock(conn, stop=False), spki_lock(conn, reserved.spki_sha256):
            der = await self._signed(conn, plan, reserved, self._logging.sign_precertificate)
            await self._passed("presign")
            async with conn.transaction():
                await certificates.set_precertificate(conn, *reserved.key, der)
                await outbox.add_certificates(conn, [reserved.key])
        await self._passed("precommit")
        return order

    async def _log(self, order: Order, logging: Logging, deadline: float) -> Order:
        """Steps 8 to 12. No connection is held while strangers and logs are asked; logging twice does no harm."""
        if order.id in self._at_logs:
            return order
        self._at_logs.add(order.id)
        try:
            async with acquire(self._pool) as conn:
                reserved = await prepare.read_reserved(conn, order)
                if reserved.state != "precertificate" or reserved.tbs is not None or reserved.der is None:
                    return order
                if (ended := await self._ended(conn, reserved)) is not None:  # a sibling search met it, perhaps (C8)
                    async with conn.transaction():
                        return await self._end_refused(conn, order, ended)
                issuer, certificate = await prepare.read_issuer(conn, reserved.issuer_id)
                chain = await prepare.chain(conn, issuer)
            if not await self._answered(issuer, certificate.der, reserved.serial, deadline):
                return order
            valid = reserved.valid
            lifetime = valid.not_after - valid.not_before + 1
            scts = await logging.transparency.sct_list(reserved.der, chain, lifetime, valid.not_after)
            await self._passed("log")
            async with acquire(self._pool) as conn, try_order_lock(conn, order.id) as alone:
                order = await self._order(conn, order.id)
                return await self._issue(conn, order, scts) if alone and order.state == "pending" else order
        finally:
            self._at_logs.discard(order.id)

    async def _finalise(self, conn: Connection, order: Order, plan: Plan, reserved: Reserved, scts: bytes) -> Reserved:
        """Step 10. The first final TBS that is committed stays the only one, whatever SCTs come later."""
        tbs = prepare.final_tbs(reserved, scts)
        twin = profiles.build_twin(tbs, plan.issuer.signature_algorithm)
        await self._lint(conn, order, twin, f"{plan.kind.document}-certificate")
        await certificates.set_final_tbs(conn, *reserved.key, tbs)
        await self._passed("final")
        return replace(reserved, tbs=tbs)

    async def _signed(self, conn: Connection, plan: Plan, reserved: Reserved, sign: SignCertificate) -> bytes:
        """Under the locks: may it still be, and did the CA signer sign the committed bytes?"""
        await prepare.recheck(conn, plan)
        prepare.check_reserved(reserved, plan, self.now())
        if (ended := await self._ended(conn, reserved)) is not None:
            raise ended
        der = await sign(*reserved.key)
        prepare.check_signed(der, reserved.tbs, plan.issuer_certificate.der)
        return der

    async def _sign(self, conn: Connection, order: Order, plan: Plan, reserved: Reserved) -> Order:
        """Steps 5 and 6, or 11, and T3."""
        async with kill_switch_lock(conn, stop=False), spki_lock(conn, reserved.spki_sha256):
            der = await self._signed(conn, plan, reserved, self._sign_certificate)
            await self._passed("sign")
            now = self.now()
            async with conn.transaction():
                await certificates.complete(conn, *reserved.key, der)
                await outbox.add_certificates(conn, [reserved.key])
                if plan.kind.logged and self._logging is not None:
                    await final_submissions.add(conn, *reserved.key, now)
                await orders.set_ready(conn, order.id, now)
                await self._act(conn, order, "certificate.issue", spki_sha256=reserved.spki_sha256.hex())
        await self._passed("commit")
        return replace(order, state="ready", updated_at=now)

    async def _refuse(self, conn: Connection, order: Order, error: QuashError) -> Order:
        """Ends a pending order; what is reserved for it is revoked in the same transaction."""
        if order.serial is None:
            async with conn.transaction():
                return await self._end_refused(conn, order, error)
        reserved = await prepare.read_reserved(conn, order)
        async with spki_lock(conn, reserved.spki_sha256), conn.transaction():
            await self._revoke(conn, order, reserved)
            return await self._end_refused(conn, order, error)

    async def _revoke(self, conn: Connection, order: Order, reserved: Reserved) -> None:
        """The serial's first revocation, unless a sibling search was here before; the CA signer may have signed it."""
        if await revocations.latest(conn, *reserved.key) is not None:
            return
        compromised = await blocked_keys.is_blocked(conn, reserved.spki_sha256)
        reason, now = Reason.keyCompromise if compromised else Reason.superseded, self.now()
        act_id = await self._act(conn, order, "certificate.abandon", reason=reason.name)
        await revocations.add(conn, [Revocation(*reserved.key, 1, reason, now, now, reserved.shard, act_id)])
        await outbox.add_certificates(conn, [reserved.key])

    async def _release(self, order: Order, deadline: float) -> Order:
        """Steps 13 and 14. No connection is held while strangers are asked."""
        async with acquire(self._pool) as conn:
            reserved = await prepare.read_reserved(conn, order)
            ended = await self._ended(conn, reserved)
            if ended is not None:
                async with conn.transaction():
                    return await self._end_refused(conn, order, ended)
            issuer, certificate = await prepare.read_issuer(conn, reserved.issuer_id)
        if not await self._answered(issuer, certificate.der, reserved.serial, deadline):
            return order
        now = self.now()
        async with acquire(self._pool) as conn:
            await orders.set_issued(conn, order.id, now)
        _ORDERS.labels(order.profile, "issued").inc()
        _SECONDS.observe(self._clock.now() - order.created_at)
        await self._passed("release")
        return replace(order, state="issued", updated_at=now)

    async def _ended(self, conn: Connection, reserved: Reserved) -> QuashError | None:
        """Why nobody will ever answer `good` for a certificate that is not handed out yet."""
        if await revocations.latest(conn, *reserved.key) is not None:
            return QuashError("certificate.revoked", "it was revoked before it was handed out", Kind.REFUSED)
        if reserved.valid.not_after < self.now():
            return QuashError("certificate.expired", "it expired before it was handed out", Kind.REFUSED)
        return None

    async def _store_refused(self, conn: Connection, order: Order, error: QuashError) -> None:
        """Step 1's refusal: the order as it would have been, and the act (F1)."""
        async with conn.transaction():
            await orders.add(conn, order)
            await self._end_refused(conn, order, error)

    async def _end_refused(self, conn: Connection, order: Order, error: QuashError) -> Order:
        """To be called inside a transaction."""
        now = self.now()
        await orders.refuse(conn, order.id, error.code, error.message, now)
        await self._act(conn, order, "order.refuse", code=error.code)
        _ORDERS.labels(self._label(order.profile), error.code).inc()
        return replace(order, state="refused", code=error.code, detail=error.message, updated_at=now)

    async def _act(self, conn: Connection, order: Order, action: str, **more: str) -> int:
        subject = {"order": str(order.id), "profile": order.profile, **more}
        if order.issuer_id is not None and order.serial is not None:
            issuer, _ = await prepare.read_issuer(conn, order.issuer_id)
            subject |= {"issuer": issuer.name, "serial": format_serial(order.serial)}
        return await acts.record(conn, at=self.now(), actor=order.actor, action=action, subject=subject)

    async def _order(self, conn: Connection, order_id: UUID) -> Order:
        order = await orders.get(conn, order_id)
        if order is None:
            raise QuashError("order.unknown", "there is no such order", Kind.NOT_FOUND)
        return order

    def _label(self, profile: str) -> str:
        """Profiles as clients spell them must not become metric labels without end."""
        return profile if any(profile == known.name for known in self._config.profiles) else "unknown"

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock.now())
