"""How an order ends without a certificate: refused, with what was reserved for it revoked, and an act that says so."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import Counter

from issuer.issuance.means import Means
from issuer.issuance.prepare import Reserved
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.store import acts, blocked_keys, issuers, orders, outbox, revocations
from quash.store.database import Connection
from quash.store.locks import spki_lock
from quash.store.orders import Order
from quash.store.revocations import Revocation

ENDED = Counter("quash_orders_total", "Orders that ended, by code: issued, or the refusal", ["profile", "code"])


async def ended(means: Means, conn: Connection, reserved: Reserved) -> QuashError | None:
    """Why nobody will ever answer `good` for a certificate that is not handed out yet."""
    if await revocations.latest(conn, *reserved.key) is not None:
        return revoked()
    return expired(means, reserved)


def revoked() -> QuashError:
    return QuashError("certificate.revoked", "it was revoked before it was handed out", Kind.REFUSED)


def expired(means: Means, reserved: Reserved) -> QuashError | None:
    if reserved.valid.not_after < means.now():
        return QuashError("certificate.expired", "it expired before it was handed out", Kind.REFUSED)
    return None


async def refuse(means: Means, conn: Connection, order: Order, reserved: Reserved | None, error: QuashError) -> Order:
    """Ends a pending order; what is reserved for it is revoked in the same transaction."""
    if reserved is None:
        async with conn.transaction():
            return await close(means, conn, order, error)
    async with spki_lock(conn, reserved.spki_sha256), conn.transaction():
        await _revoke(means, conn, order, reserved)
        return await close(means, conn, order, error)


async def close(means: Means, conn: Connection, order: Order, error: QuashError) -> Order:
    """The order and the act alone (F1). To be called inside a transaction."""
    now = means.now()
    await orders.refuse(conn, order, error.code, error.message, now)
    await act(means, conn, order, "order.refuse", code=error.code)
    # Profiles as clients spell them must not become metric labels without end.
    known = any(order.profile == profile.name for profile in means.config.profiles)
    ENDED.labels(order.profile if known else "unknown", error.code).inc()
    return replace(order, state="refused", code=error.code, detail=error.message, updated_at=now)


async def act(means: Means, conn: Connection, order: Order, action: str, **more: str) -> int:
    """Records what happened to an order, by whom it was sent."""
    subject = {"order": str(order.id), "profile": order.profile, **more}
    if order.issuer_id is not None and order.serial is not None:
        issuer = await issuers.get(conn, order.issuer_id)
        subject |= {"issuer": issuer.name if issuer else "", "serial": format_serial(order.serial)}
    return await acts.record(conn, at=means.now(), actor=order.actor, action=action, subject=subject)


async def _revoke(means: Means, conn: Connection, order: Order, reserved: Reserved) -> None:
    """The serial's first revocation, unless a sibling search was here before; the CA signer may have signed it."""
    if await revocations.latest(conn, *reserved.key) is not None:
        return
    compromised = await blocked_keys.is_blocked(conn, reserved.spki_sha256)
    reason, now = Reason.keyCompromise if compromised else Reason.superseded, means.now()
    act_id = await act(means, conn, order, "certificate.abandon", reason=reason.name)
    await revocations.add(conn, [Revocation(*reserved.key, 1, reason, now, now, reserved.shard, act_id)])
    await outbox.add_certificates(conn, [reserved.key])
