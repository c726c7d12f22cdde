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
12. T3: commit       certificate, act, order `ready`; its way into a log begins (E6, `issuance/finals.py`)
13. answers          as 8
14. release          order `issued`: the certificate may leave (answer before release, A7)

The answers that step 8 saw a moment ago are those of 13, so T3 releases at once (`docs/adr/0007-answers-of-step-8.md`).

Without logs, which only a demonstration may do, 6 to 10 fall away. An order that fails from 4 on, or was left for too
long, has its serial revoked, so that no committed serial stays unanswered. Sibling search and revocation see the serial
from step 4 on, whatever happens to the order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from prometheus_client import Gauge, Histogram

from issuer.checks.keys import KeyCheck
from issuer.checks.lint import Linting
from issuer.checks.registries import Registries
from issuer.ct.tbs import is_poisoned
from issuer.issuance import accept, ending, logs, prepare, sign
from issuer.issuance.crl_urls import CrlUrls
from issuer.issuance.means import PASSING, Answers, Logging, Means, SignCertificate, unobserved
from issuer.issuance.prepare import Plan, Reserved
from issuer.issuance.reserve import reserve
from issuer.issuance.waiting import LONGEST_WAIT, Waiting
from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.log import logger
from quash.store import issuing, orders
from quash.store.database import Connection, Pool, acquire, translated
from quash.store.locks import order_lock, try_order_lock
from quash.store.orders import Order

_PARALLEL: Final = 4
_FIRST_WAIT: Final = 0.02
_STILL_ANSWERED: Final = 60.0
"""Seconds for which answers that step 8 saw are not asked for again in step 13."""

_SECONDS = Histogram("quash_order_seconds", "From an order's acceptance to its release")
_OLDEST = Gauge("quash_orders_oldest_seconds", "Age of the oldest unfinished order: A7 wants answers in 900")


@dataclass(frozen=True, slots=True)
class _Work:
    """An order under way. `plan`: its checks, if this worker made them itself a moment ago; they are made again when
    it goes on after anything that took longer. What may change at any moment is looked at under the locks (step 5).
    `answered`: when (monotonic) this worker got public answers for its serial; it went on without a break since.
    """

    order: Order
    plan: Plan | None = None
    reserved: Reserved | None = None
    answered: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far an order came. `issued`: the certificate and the chain above it, where this worker has them at hand."""

    order: Order
    issued: tuple[Reserved, prepare.Chain] | None = None


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
        passed: Callable[[str], Awaitable[None]] = unobserved,
    ) -> None:
        self.registries = registries
        self._means = Means(
            *(pool, config, clock, sign, answers, check_key, linting, logging, registries, passed),
            crl_urls=CrlUrls(clock),
        )
        self._pool = pool
        self._clock = clock
        self._waiting = Waiting(self._means)
        self._at_logs: set[UUID] = set()
        self._watched: set[UUID] = set()

    async def submit(self, applicant: str, profile: str, request: str, *, by: str | None = None) -> Order:
        """Steps 1 and 2. Raises the refusal, once the refused order and its act are stored.

        `by`: the operator of a reseller's account that sends it (G42).
        """
        new = accept.new_order(self._means, applicant, profile, by)
        async with accept.accepted(self._means, new, request) as (_, order, _):
            return order

    async def order(self, applicant: str, profile: str, request: str, *, by: str | None, timeout: float) -> Outcome:
        """`submit`, then `finish` with what the checks found: on one connection, and in one piece, as far as T2."""
        new = accept.new_order(self._means, applicant, profile, by)
        with self._watching(new.id):
            async with accept.accepted(self._means, new, request) as (conn, order, plan):
                deadline = self._clock.monotonic() + timeout
                work = await self._begin(conn, _Work(order, plan))
            done = await self._finish(new.id, deadline, work)
        if done.order.state != "issued" or done.plan is None or done.reserved is None:
            return Outcome(done.order)
        return Outcome(done.order, (done.reserved, done.plan.chain))

    async def decide(self, order_id: UUID, officer: str, refusal: str | None) -> Order:
        """An officer releases a held order, or refuses it with a reason. Raises `order.own`, `order.conflict`."""
        return await accept.decide(self._means, order_id, officer, refusal)

    async def finish(self, order_id: UUID, timeout: float) -> Order:
        """Drives an order until it ends or `timeout` seconds are over; then `step` goes on with it."""
        with self._watching(order_id):
            return (await self._finish(order_id, self._clock.monotonic() + timeout, None)).order

    async def _finish(self, order_id: UUID, deadline: float, begun: _Work | None) -> _Work:
        wait = _FIRST_WAIT
        while True:
            work, begun = await self._try(order_id, deadline, begun), None
            if work.order.final or work.order.state == "held" or self._clock.monotonic() >= deadline:
                return work
            await self._clock.sleep(wait)
            wait = min(wait * 1.5, LONGEST_WAIT)

    @contextmanager
    def _watching(self, order_id: UUID) -> Iterator[None]:
        self._watched.add(order_id)
        try:
            yield
        finally:
            self._watched.discard(order_id)

    async def step(self) -> int:
        """Takes every unfinished order as far as it goes now, whoever left it; returns how many moved.

        Those that an `order` or a `finish` of this process is at are left to it.
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
            return (await self._try(order.id)).order.state != order.state
        except Exception:  # noqa: BLE001 - see above
            logger().exception("order.fault", order=str(order.id))
            return False

    async def _begin(self, conn: Connection, work: _Work) -> _Work | None:
        """Steps 3 to 7 of an order that was accepted just now; None: a passing fault left it as it is."""
        if work.order.state != "pending":
            return work
        try:
            with translated():
                return await self._issue(conn, work, None)
        except QuashError as error:
            _check_passes(work.order.id, error)
            return None

    async def _try(self, order_id: UUID, deadline: float = 0.0, begun: _Work | None = None) -> _Work:
        """`advance`, where a passing fault, or another worker, leaves the order as it is. `begun`: as far as T2."""
        try:
            return await (self._take_up(order_id, deadline) if begun is None else self._go_on(begun, deadline))
        except QuashError as error:
            _check_passes(order_id, error)
        async with acquire(self._pool) as conn:
            return _Work(await accept.get_order(conn, order_id))

    async def advance(self, order_id: UUID, deadline: float = 0.0) -> Order:
        """One attempt at steps 3 to 14, from wherever the order stands. Raises passing faults only.

        `deadline`: until when (monotonic) it may wait for public answers, rather than look once.
        """
        return (await self._take_up(order_id, deadline)).order

    async def _take_up(self, order_id: UUID, deadline: float) -> _Work:
        async with acquire(self._pool) as conn, try_order_lock(conn, order_id) as alone:
            work = await _read(conn, order_id)
            if alone and work.order.state == "pending":
                work = await self._issue(conn, work, None)
        return await self._go_on(work, deadline) if alone or work.order.state == "ready" else work

    async def _go_on(self, work: _Work, deadline: float) -> _Work:
        """Steps 8 to 14."""
        if work.order.state == "pending" and self._means.logging is not None:
            work = await self._log(work, self._means.logging, deadline)
        return await self._release(work, deadline) if work.order.state == "ready" else work

    async def _issue(self, conn: Connection, work: _Work, logged: logs.Logged | None) -> _Work:
        """Steps 3 to 7, of what is logged 10 to 12, or the refusal."""
        means, order, plan, reserved = self._means, work.order, work.plan, work.reserved
        try:
            prepare.check_age(order.began_at, means.config.issuance.resume_seconds, means.now())
            if reserved is not None and reserved.tbs is None and logged is None:
                return work  # a precertificate without SCTs: `_log` goes on
            plan = plan or await accept.make_plan(means, conn, order)
            if reserved is None:
                order, reserved = await reserve(means, conn, order, plan)
            if reserved.tbs is None and logged is not None:
                reserved = await logs.finalise(means, conn, order, plan, reserved, logged=logged)
            if reserved.tbs is not None and is_poisoned(reserved.tbs):
                return _Work(order, plan, await sign.sign_precertificate(means, conn, order, plan, reserved))
            order, done = await sign.sign_certificate(
                means, conn, order, plan, reserved, answered=lambda: self._is_answered_still(work)
            )
            return _Work(order, plan, done, work.answered)
        except QuashError as error:
            if _passes(error):
                raise
            return _Work(await ending.refuse(means, conn, order, reserved, error))

    async def _log(self, work: _Work, logging: Logging, deadline: float) -> _Work:
        """Steps 8 to 12. No connection is held while strangers and logs are asked.

        The order is not read again: each transaction begins with the state that it needs, and finds out by itself.
        """
        order, reserved = work.order, work.reserved
        if order.id in self._at_logs or reserved is None or reserved.der is None or reserved.tbs is not None:
            return work
        self._at_logs.add(order.id)
        try:
            chain = await self._chain(work, reserved)
            if not await self._answered(chain, reserved, deadline, new=work.plan is not None):
                return await self._look_again(work, reserved)
            work = replace(work, answered=self._clock.monotonic())
            scts = await logs.log(self._means, logging, reserved, [der for _, der in chain])
            async with acquire(self._pool) as conn, order_lock(conn, order.id) as lock:
                work = await self._issue(conn, work, logs.Logged(scts, lock))
            if work.order.state == "issued":
                await self._left(work.order)
            return work
        finally:
            self._at_logs.discard(order.id)

    async def _release(self, work: _Work, deadline: float) -> _Work:
        """Steps 13 and 14. No connection is held while strangers are asked."""
        means, order, reserved = self._means, work.order, work.reserved
        if reserved is None:
            raise prepare.inconsistent(order)
        if not (self._is_answered_still(work) or await self._is_answered(work, reserved, deadline)):
            return await self._look_again(work, reserved)
        now = self.now()
        async with acquire(self._pool) as conn:
            released = ending.expired(means, reserved) is None and await issuing.release(conn, order, now)
        if not released:
            return await self._look_again(work, reserved)
        await self._left(order)
        return replace(work, order=replace(order, state="issued", updated_at=now))

    async def _left(self, order: Order) -> None:
        ending.ENDED.labels(order.profile, "issued").inc()
        _SECONDS.observe(self._clock.now() - order.created_at)
        await self._means.passed("release")

    def _is_answered_still(self, work: _Work) -> bool:
        """OCSP answers for the serial, whichever certificate bears it; `release` itself sees a revocation since."""
        return work.answered is not None and self._clock.monotonic() - work.answered <= _STILL_ANSWERED

    async def _is_answered(self, work: _Work, reserved: Reserved, deadline: float) -> bool:
        new = work.plan is not None and work.answered is None
        return await self._answered(await self._chain(work, reserved), reserved, deadline, new=new)

    async def _chain(self, work: _Work, reserved: Reserved) -> prepare.Chain:
        if work.plan is not None:
            return work.plan.chain
        async with acquire(self._pool) as conn:
            return await prepare.read_chain(conn, reserved.issuer_id)

    async def _answered(self, chain: prepare.Chain, reserved: Reserved, deadline: float, *, new: bool) -> bool:
        issuer, certificate = chain[0]
        return await self._waiting.answered(issuer, certificate, reserved.serial, deadline, new=new)

    async def _look_again(self, work: _Work, reserved: Reserved) -> _Work:
        """Nobody is told good: perhaps nobody ever will be, since a sibling search met it (C8) or it expired."""
        async with acquire(self._pool) as conn:
            ended = await ending.ended(self._means, conn, reserved)
            if ended is None:
                return work
            async with conn.transaction():
                return _Work(await ending.close(self._means, conn, work.order, ended))

    def now(self) -> int:
        """Unix seconds."""
        return self._means.now()


def _check_passes(order_id: UUID, error: QuashError) -> None:
    """Raises what says something about the order; the rest is told, and the order waits."""
    if not _passes(error):
        raise error
    logger().warning("order.waits", order=str(order_id), code=error.code, detail=error.message)


def _passes(error: QuashError) -> bool:
    """A fault that says nothing about the order, or another worker that was faster."""
    return error.kind in PASSING or error.code == orders.CONFLICT


async def _read(conn: Connection, order_id: UUID) -> _Work:
    found = await issuing.read(conn, order_id)
    if found is None:
        raise accept.unknown()
    order, reservation = found
    return _Work(order, reserved=prepare.reserved_for(order, reservation))
