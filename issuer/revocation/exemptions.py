"""Exemptions from mass revocations: proposed by one officer, approved by another, for a time, with their reason.

The rules know none (MOZ 6.1.3: "no exceptions"), so each is recorded, shown wherever the certificate is left out, and
never delays the certificates of a compromised key (C8) nor one that somebody names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from issuer.revocation.find import Found, Target, find_one
from quash.errors import Kind, QuashError
from quash.pki.rules import DAY
from quash.pki.serials import format_serial, parse_serial
from quash.store import acts, blocked_keys, exemptions
from quash.store.database import Connection
from quash.store.exemptions import Exemption
from quash.store.operators import Operator

DECIDE: Final = "exemption.add"
END: Final = "exemption.end"
MAX_CERTIFICATES: Final = 100
"""Of one decision: somebody has looked at each."""
_LONGEST: Final = 30 * DAY

Payload = dict[str, Any]


async def payload(conn: Connection, targets: Sequence[Target], why: str, until: int, now: int) -> Payload:
    """What the two officers decide. Raises `exemption.until`, and what finding the certificates raises."""
    if not now < until <= now + _LONGEST:
        raise QuashError("exemption.until", "an exemption ends, at the latest after 30 days")
    found = [await find_one(conn, target) for target in targets]
    named = [{"issuer": each.issuer.name, "serial": format_serial(each.certificate.serial)} for each in found]
    return {"certificates": named, "why": why, "until": until}


async def check_decision(conn: Connection, asked: Payload) -> None:
    """Raises `exemption.key_compromised`: what has a blocked key is revoked (C8)."""
    for each in await _certificates(conn, asked):
        key = each.certificate.spki_sha256
        if key is not None and await blocked_keys.get(conn, key) is not None:
            serial = format_serial(each.certificate.serial)
            raise QuashError("exemption.key_compromised", f"the key of {serial} is blocked (C8)", Kind.REFUSED)


async def decide(conn: Connection, asked: Payload, now: int, act_id: int) -> None:
    """The effect of the second officer's approval."""
    keys = [(each.certificate.issuer_id, each.certificate.serial) for each in await _certificates(conn, asked)]
    await exemptions.add(conn, keys, why=asked["why"], until=asked["until"], at=now, act_id=act_id)


async def end(conn: Connection, operator: Operator, exemption_id: int, why: str, now: int) -> Exemption:
    """Ends one before its time: one officer is enough to return to the rule. Raises `exemption.unknown`, `.over`."""
    found = await find(conn, exemption_id)
    async with conn.transaction():
        subject = {"exemption": exemption_id, "issuer": found.issuer, "serial": format_serial(found.serial), "why": why}
        act_id = await acts.record(conn, at=now, actor=operator.actor, action=END, subject=subject)
        if found.until <= now or not await exemptions.end(conn, exemption_id, at=now, why=why, act_id=act_id):
            raise QuashError("exemption.over", "this exemption is over already", Kind.CONFLICT)
    return await find(conn, exemption_id)


async def find(conn: Connection, exemption_id: int) -> Exemption:
    """Raises `exemption.unknown`."""
    found = await exemptions.get(conn, exemption_id)
    if found is None:
        raise QuashError("exemption.unknown", "no exemption has this number: see quash exemption list", Kind.NOT_FOUND)
    return found


async def _certificates(conn: Connection, asked: Payload) -> list[Found]:
    return [
        await find_one(conn, Target(each["issuer"], parse_serial(each["serial"]))) for each in asked["certificates"]
    ]
