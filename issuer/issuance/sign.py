"""Steps 5 to 7 and 11, 12: under the locks re-check, have the CA signer sign what is committed, commit what it signed.

The locks and the commit are on one connection: when it is lost, so is the commit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from issuer.issuance import ending, prepare
from issuer.issuance.means import Means, SignCertificate
from issuer.issuance.prepare import Plan, Reserved
from issuer.issuance.reserve import begun
from quash.errors import Kind, QuashError
from quash.pki.serials import format_serial
from quash.store import issuing
from quash.store.database import Connection
from quash.store.locks import locks_to_sign
from quash.store.orders import Order


async def sign_precertificate(means: Means, conn: Connection, order: Order, plan: Plan, reserved: Reserved) -> Reserved:
    """T2: from here on the presigner knows of it."""
    if means.logging is None:
        message = "this order began with logs, now there are none: order again"
        raise QuashError("ct.not_configured", message, Kind.REFUSED)
    async with locks_to_sign(conn, reserved.spki_sha256) as locks:
        der = await _signed(means, conn, locks, plan, reserved, by=means.logging.sign_precertificate)
        await means.passed("presign")
        begun(order, await issuing.set_precertificate(conn, *reserved.key, der))
    await means.passed("precommit")
    return replace(reserved, state="precertificate", tbs=None, der=der)


async def sign_certificate(
    means: Means, conn: Connection, order: Order, plan: Plan, reserved: Reserved, *, answered: Callable[[], bool]
) -> tuple[Order, Reserved]:
    """T3. After a precertificate it is no news: OCSP answers for the serial, and those answers are out (step 8).

    `answered`: whether this worker saw them just now, asked before the commit; then the order is `issued`, unless the
    serial was revoked meanwhile.
    """
    async with locks_to_sign(conn, reserved.spki_sha256) as locks:
        der = await _signed(means, conn, locks, plan, reserved, by=means.sign)
        await means.passed("sign")
        now = means.now()
        subject = {
            "order": str(order.id),
            "profile": order.profile,
            "issuer": plan.issuer.name,
            "serial": format_serial(reserved.serial),
            "spki_sha256": reserved.spki_sha256.hex(),
        }
        state = await issuing.complete(
            conn,
            order,
            der,
            now,
            news=reserved.state != "precertificate",
            logged=plan.kind.logged and means.logging is not None,
            answered=answered(),
            action="certificate.issue",
            subject=subject,
        )
        begun(order, state is not None)
    await means.passed("commit")
    done = replace(reserved, state="issued", tbs=None, der=der)
    return replace(order, state=state or order.state, updated_at=now), done


async def _signed(
    means: Means, conn: Connection, locks: tuple[int, int], plan: Plan, reserved: Reserved, *, by: SignCertificate
) -> bytes:
    """May it still be, and did the CA signer sign the committed bytes? Takes the locks."""
    if await prepare.recheck(conn, locks, plan, reserved.serial):
        raise ending.revoked()
    prepare.check_reserved(reserved, plan, means.now())
    if (expired := ending.expired(means, reserved)) is not None:
        raise expired
    der = await by(*reserved.key)
    prepare.check_signed(der, reserved.tbs, plan.issuer_certificate.der)
    return der
