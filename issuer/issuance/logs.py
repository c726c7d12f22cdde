"""Steps 8 to 10: a precertificate that the public gets answers for is logged; its SCTs make the final TBS."""

from __future__ import annotations

from dataclasses import dataclass, replace

from issuer import profiles
from issuer.issuance import prepare
from issuer.issuance.means import Logging, Means
from issuer.issuance.prepare import Plan, Reserved
from issuer.issuance.reserve import begun, lint
from quash.store import issuing
from quash.store.database import Connection
from quash.store.orders import Order


async def log(means: Means, logging: Logging, reserved: Reserved, chain: list[bytes]) -> bytes:
    """The list of SCTs for the signed precertificate. Logging twice does no harm."""
    valid = reserved.valid
    lifetime = valid.not_after - valid.not_before + 1
    scts = await logging.transparency.sct_list(reserved.der or b"", chain, lifetime, valid.not_after)
    await means.passed("log")
    return scts


@dataclass(frozen=True, slots=True)
class Logged:
    """What logs promised, and the number of the order's lock, which the next statement takes."""

    scts: bytes
    lock: int


async def finalise(
    means: Means, conn: Connection, order: Order, plan: Plan, reserved: Reserved, *, logged: Logged
) -> Reserved:
    """Step 10. The first final TBS that is committed stays the only one, whatever SCTs come later."""
    tbs = prepare.final_tbs(reserved, logged.scts)
    twin = profiles.build_twin(tbs, plan.issuer.signature_algorithm)
    linted = await lint(means, conn, order, twin, f"{plan.kind.document}-certificate")
    begun(order, await issuing.set_final_tbs(conn, *reserved.key, tbs, linted=linted, lock=logged.lock))
    await means.passed("final")
    return replace(reserved, tbs=tbs)
