"""The kill switch (G21): stops issuance at once, of one issuer or of all. Revocations, CRLs and OCSP go on.

One officer or operator stops; two officers lift (`issuer.revocation.approvals`).
"""

from __future__ import annotations

from typing import Any, Final

from issuer.revocation.find import issuer_by_name
from quash.store import acts, issuers
from quash.store.database import Connection
from quash.store.locks import kill_switch_lock
from quash.store.operators import Operator

STOP: Final = "kill-switch.stop"
LIFT: Final = "kill-switch.lift"


async def stop(conn: Connection, operator: Operator, issuer: str | None, why: str, now: int) -> int:
    """Stops an issuer by name, or all (None); returns the act. When it returns, nothing under way will be signed."""
    issuer_id = None if issuer is None else (await issuer_by_name(conn, issuer)).id
    async with kill_switch_lock(conn, stop=True), conn.transaction():
        subject = {"issuer": issuer, "why": why}
        act_id = await acts.record(conn, at=now, actor=operator.actor, action=STOP, subject=subject)
        await issuers.set_stopped(conn, issuer_id, stopped=True, at=now, act_id=act_id)
    return act_id


async def lift(conn: Connection, payload: dict[str, Any], now: int, act_id: int) -> None:
    """The effect of an approved proposal `{issuer, why}`: that switch alone; a stop of all stays beside an issuer's."""
    name = payload["issuer"]
    issuer_id = None if name is None else (await issuer_by_name(conn, name)).id
    await issuers.set_stopped(conn, issuer_id, stopped=False, at=now, act_id=act_id)
