"""A compromised key: blocked for ever, and every unexpired certificate that has it revoked (C8, C9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from issuer.revocation.revoke import revoke_siblings
from quash.errors import QuashError
from quash.pki.reasons import Reason
from quash.runtime.clock import Clock
from quash.store import acts, blocked_keys, jobs, outbox, revocations
from quash.store.database import Connection
from quash.store.locks import spki_lock


@dataclass(frozen=True, slots=True)
class Ground:
    """Why a key counts as compromised: `action` and `subject` of the act, `reason` of the blocked key."""

    actor: str
    action: str
    subject: Mapping[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class Compromised:
    """What followed. `act_id` None: nothing was left to do. `revoked` at once, of `total`; a job does the rest."""

    act_id: int | None
    blocked: bool
    revoked: int
    total: int


async def revoke_key(
    conn: Connection, clock: Clock, spki_sha256: bytes, ground: Ground, *, revoked_at: int | None, batch: int
) -> Compromised:
    """Blocks the key and revokes its certificates, all or nothing; again changes nothing.

    `revoked_at`: when it was compromised (B26); None: now. Raises `revocation.date_in_future`.
    """
    async with spki_lock(conn, spki_sha256), conn.transaction():
        now = int(clock.now())
        since = now if revoked_at is None else revoked_at
        check_date(since, now)
        blocked = await blocked_keys.is_blocked(conn, spki_sha256)
        found = []
        if not await jobs.covers_key(conn, spki_sha256, reason=Reason.keyCompromise, revoked_at=since):
            found = await revocations.unsettled(conn, spki_sha256, unexpired_at=now, revoked_at=since, limit=batch + 1)
        if blocked and not found:
            return Compromised(None, False, 0, 0)
        subject = {**ground.subject, "spki_sha256": spki_sha256.hex(), "revoked_at": since}
        act_id = await acts.record(conn, at=now, actor=ground.actor, action=ground.action, subject=subject)
        await blocked_keys.block(conn, spki_sha256, reason=ground.reason, added_at=now, act_id=act_id)
        first, total = found[:batch], len(found)
        await revoke_siblings(
            conn, first, revoked_at=since, actor=ground.actor, cause=act_id, now=now, lane=outbox.URGENT
        )
        if total > batch:
            left = await revocations.count_unsettled(conn, spki_sha256, unexpired_at=now, revoked_at=since)
            total = len(first) + left
            await jobs.add(
                conn,
                spki_sha256=spki_sha256,
                reason=Reason.keyCompromise,
                revoked_at=since,
                total=total,
                done=len(first),
                act_id=act_id,
                created_at=now,
            )
    return Compromised(act_id, not blocked, len(first), total)


def check_date(since: int, now: int) -> None:
    """Raises `revocation.date_in_future`, `revocation.date_too_early`."""
    if since > now:
        raise QuashError("revocation.date_in_future", "a key cannot be compromised later than now: leave the date out")
    if since < 0:
        raise QuashError("revocation.date_too_early", "give a date from 1970 on")
