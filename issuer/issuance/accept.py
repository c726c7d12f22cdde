"""Steps 1 and 2: an order is checked and committed, refused, or held for an officer who then decides (G19)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID, uuid4

from issuer.checks import csr
from issuer.checks.high_profile import flagged
from issuer.issuance import ending, prepare
from issuer.issuance.means import PASSING, Means
from issuer.issuance.prepare import Asked, Plan
from quash.errors import Kind, QuashError
from quash.store import acts, operators, orders
from quash.store.database import Connection, acquire
from quash.store.locks import order_lock
from quash.store.orders import Order


def new_order(means: Means, applicant: str, profile: str, by: str | None) -> Order:
    """An order that nobody has looked at. `by`: the operator of a reseller's account that sends it."""
    now = means.now()
    return Order(uuid4(), now, applicant, profile, b"", "pending", None, None, None, None, now, submitted_by=by)


@asynccontextmanager
async def accepted(means: Means, order: Order, request: str) -> AsyncIterator[tuple[Connection, Order, Plan]]:
    """Commits a new order, `pending` or `held`; one that is pending is the block's alone, on its connection.

    Raises the refusal, once the refused order and its act are stored.
    """
    order = await _checked(means, order, request)
    async with acquire(means.pool) as conn:
        plan = await _planned(means, conn, order)
        if names := flagged(plan.content, means.config.issuance.high_profile):
            order = replace(order, state="held", detail=f"an officer looks at {', '.join(names)} first (G19)")
            await _hold(means, conn, order, names)
            await means.passed("accept")
            yield conn, order, plan
            return
        async with order_lock(conn, order.id) as lock:
            await orders.add_locked(conn, order, lock)
            await means.passed("accept")
            yield conn, order, plan


async def _checked(means: Means, order: Order, request: str) -> Order:
    """The order with its request, whose key is good; it may take long, so no connection is held meanwhile."""
    try:
        decoded = csr.decode(request)
        spki = csr.public_key(decoded)
        order = replace(order, csr=decoded)  # what is no request, a private key perhaps, is not kept
        await means.check_key(spki)
    except QuashError as error:
        error.undone = error.kind in PASSING
        if not error.undone:
            async with acquire(means.pool) as conn:
                await _store_refused(means, conn, order, error)
        raise
    return order


async def _planned(means: Means, conn: Connection, order: Order) -> Plan:
    try:
        return await make_plan(means, conn, order)
    except QuashError as error:
        error.undone = error.kind in PASSING
        if not error.undone:
            await _store_refused(means, conn, order, error)
        raise


async def _hold(means: Means, conn: Connection, order: Order, names: Sequence[str]) -> None:
    async with conn.transaction():
        await orders.add(conn, order)
        await ending.act(means, conn, order, "order.hold", names=" ".join(names))


async def make_plan(means: Means, conn: Connection, order: Order) -> Plan:
    """Step 1 by itself: also for an order that goes on after whatever held it up."""
    asked = Asked(order.operator, order.profile, order.csr, means.now())
    return await prepare.make_plan(conn, means.config, means.check_key, asked, registries=means.registries)


async def decide(means: Means, order_id: UUID, officer: str, refusal: str | None) -> Order:
    """Releases a held order, or refuses it with a reason. Four eyes: no person releases what it ordered (D38, G19)."""
    now = means.now()
    async with acquire(means.pool) as conn, conn.transaction():
        order = await get_order(conn, order_id)
        if await operators.is_behind(conn, officer, [order.operator, order.actor]):
            raise QuashError("order.own", "another person decides about your own order", Kind.FORBIDDEN)
        if refusal is None:
            await orders.release(conn, order_id, now)
        else:
            await orders.refuse_held(conn, order_id, "order.high_profile", refusal, now)
        await acts.record(
            conn,
            at=now,
            actor=officer,
            action="order.release" if refusal is None else "order.refuse",
            subject={"order": str(order_id), "profile": order.profile, "operator": order.operator},
        )
        return await get_order(conn, order_id)


async def get_order(conn: Connection, order_id: UUID) -> Order:
    order = await orders.get(conn, order_id)
    if order is None:
        raise unknown()
    return order


def unknown() -> QuashError:
    return QuashError("order.unknown", "there is no such order", Kind.NOT_FOUND)


async def _store_refused(means: Means, conn: Connection, order: Order, error: QuashError) -> None:
    """The order as it would have been, and the act (F1)."""
    async with conn.transaction():
        await orders.add(conn, order)
        await ending.close(means, conn, order, error)
    error.order_id = str(order.id)
