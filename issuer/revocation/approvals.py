"""Four eyes: what one officer proposes takes effect when another person approves exactly that (design, part E 3).

An action is data in `ACTIONS`: what is checked before, and the effect, in the transaction of the approval.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import orjson

from issuer.revocation.assertions import BLOCK, allow_import, block
from issuer.revocation.blocklists import IMPORT
from issuer.revocation.exemptions import DECIDE, check_decision, decide
from issuer.revocation.kill_switch import LIFT, lift
from issuer.revocation.mass import START, check_start, start_approved
from issuer.staff import ADD, DISABLE, approve_certificate, check_addition, check_disabling, disable
from quash.errors import Kind, QuashError
from quash.pki.rules import DAY
from quash.store import acts, operators, proposals
from quash.store.database import Connection
from quash.store.locks import kill_switch_lock, operators_lock
from quash.store.operators import Operator, same_person
from quash.store.proposals import Proposal

PROPOSE: Final = "proposal.add"
_LASTS: Final = DAY

Payload = dict[str, Any]


async def _nothing(_conn: Connection, _payload: Payload) -> None:
    """A check for what can always be proposed."""


def _no_lock(_conn: Connection) -> AbstractAsyncContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class _Action:
    """`check` raises what keeps the action from being done; `effect` does it; `lock` is held until after the commit."""

    effect: Callable[[Connection, Payload, int, int], Awaitable[None]]
    check: Callable[[Connection, Payload], Awaitable[None]] = _nothing
    lock: Callable[[Connection], AbstractAsyncContextManager[None]] = _no_lock


ACTIONS: Final[Mapping[str, _Action]] = {
    LIFT: _Action(lift, lock=lambda conn: kill_switch_lock(conn, stop=True)),
    ADD: _Action(approve_certificate, check=check_addition),
    DISABLE: _Action(disable, check=check_disabling, lock=operators_lock),
    BLOCK: _Action(block),
    IMPORT: _Action(allow_import),
    DECIDE: _Action(decide, check=check_decision),
    START: _Action(start_approved, check=check_start),
}


def digest(action: str, payload: Payload) -> bytes:
    """What the second officer approves."""
    return hashlib.sha256(orjson.dumps([action, payload], option=orjson.OPT_SORT_KEYS)).digest()


async def propose(conn: Connection, operator: Operator, action: str, payload: Payload, now: int) -> Proposal:
    """Records what an officer proposes; it may be approved for one day. Raises what its check raises."""
    await ACTIONS[action].check(conn, payload)
    sha256 = digest(action, payload)
    async with conn.transaction():
        subject = {"action": action, "sha256": sha256.hex(), "payload": payload}
        act_id = await acts.record(conn, at=now, actor=operator.actor, action=PROPOSE, subject=subject)
        new = await proposals.add(
            conn,
            at=now,
            expires_at=now + _LASTS,
            action=action,
            payload=payload,
            sha256=sha256,
            operator=operator.fingerprint,
            person=operator.person,
            act_id=act_id,
        )
    return await find(conn, new)


async def find(conn: Connection, proposal_id: int) -> Proposal:
    """Raises `proposal.unknown`."""
    found = await proposals.get(conn, proposal_id)
    if found is None:
        raise QuashError("proposal.unknown", "no proposal has this number: see quash approve", Kind.NOT_FOUND)
    return found


async def approve(conn: Connection, operator: Operator, proposal_id: int, sha256: bytes, now: int) -> Proposal:
    """Approves a proposal as it was shown (`sha256`) and does it, both in one transaction.

    Raises `proposal.unknown`, `.changed`, `.expired`, `.same_person`, `.proposer_disabled`, `.approved`, and what its
    check raises.
    """
    proposal = await find(conn, proposal_id)
    if sha256 != proposal.sha256 or digest(proposal.action, proposal.payload) != proposal.sha256:
        raise QuashError("proposal.changed", "this is not what was proposed: look at it again", Kind.CONFLICT)
    if proposal.approved_at is not None:
        raise QuashError("proposal.approved", f"{proposal.approved_by} approved it already", Kind.CONFLICT)
    if now >= proposal.expires_at:
        raise QuashError("proposal.expired", "the proposal has expired: propose it again", Kind.REFUSED)
    if same_person(operator.person, proposal.person) or operator.fingerprint == proposal.operator:
        raise _same_person()
    action = ACTIONS[proposal.action]
    async with action.lock(conn), conn.transaction():
        await _check_proposer(conn, proposal, operator)
        await action.check(conn, proposal.payload)
        subject = {"proposal": proposal.id, "proposed_by": proposal.person, "sha256": sha256.hex()}
        subject |= {"payload": proposal.payload}
        act_id = await acts.record(conn, at=now, actor=operator.actor, action=proposal.action, subject=subject)
        first = await proposals.approve(
            conn, proposal.id, at=now, operator=operator.fingerprint, person=operator.person, act_id=act_id
        )
        if not first:
            raise QuashError("proposal.approved", "another officer approved it first", Kind.CONFLICT)
        await action.effect(conn, proposal.payload, now, act_id)
    return await find(conn, proposal_id)


async def _check_proposer(conn: Connection, proposal: Proposal, operator: Operator) -> None:
    """Two persons stand for an action when it takes effect: one who was disabled meanwhile no longer does (F9).

    The proposer's name may be written otherwise since the proposal (migration 74).
    """
    proposer = await operators.find(conn, proposal.operator)
    if proposer is None or not proposer.active:
        message = f"{proposal.person} is disabled: propose it yourself, and let a third officer approve"
        raise QuashError("proposal.proposer_disabled", message, Kind.REFUSED)
    if same_person(operator.person, proposer.person):
        raise _same_person()


def _same_person() -> QuashError:
    return QuashError("proposal.same_person", "another person must approve what you proposed", Kind.FORBIDDEN)
