"""Proposals that wait for a second officer, and their approvals. Append-only; one that is not approved expires."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class Proposal:
    """`sha256` is what the second officer approves. `operator`: fingerprint; times: Unix seconds.

    `approved_at` and `approved_by` (a person) are None while nobody has.
    """

    id: int
    at: int
    expires_at: int
    action: str
    payload: dict[str, Any]
    sha256: bytes
    operator: bytes
    person: str
    approved_at: int | None
    approved_by: str | None


_SELECT = (
    "select p.id, p.at, p.expires_at, p.action, p.payload, p.sha256, p.operator, p.person, a.at as approved_at,"
    " a.person as approved_by from proposal p left join approval a on a.proposal_id = p.id"
)


async def add(
    conn: Connection,
    *,
    at: int,
    expires_at: int,
    action: str,
    payload: dict[str, Any],
    sha256: bytes,
    operator: bytes,
    person: str,
    act_id: int,
) -> int:
    """Adds a proposal and returns its id."""
    new: int = await conn.fetchval(
        "insert into proposal (at, expires_at, action, payload, sha256, operator, person, act_id)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8) returning id",
        at,
        expires_at,
        action,
        payload,
        sha256,
        operator,
        person,
        act_id,
    )
    return new


async def get(conn: Connection, proposal_id: int) -> Proposal | None:
    row = await conn.fetchrow(f"{_SELECT} where p.id = $1", proposal_id)
    return Proposal(**row) if row else None


async def waiting(conn: Connection, now: int) -> list[Proposal]:
    """Those that may still be approved, oldest first."""
    rows = await conn.fetch(
        f"{_SELECT} join operator o on o.fingerprint = p.operator and o.state = 'active'"
        " where a.at is null and p.expires_at > $1 order by p.id",
        now,
    )
    return [Proposal(**row) for row in rows]


async def approve(conn: Connection, proposal_id: int, *, at: int, operator: bytes, person: str, act_id: int) -> bool:
    """False: another approval came first."""
    done = await conn.fetchval(
        "insert into approval (proposal_id, at, operator, person, act_id) values ($1, $2, $3, $4, $5)"
        " on conflict (proposal_id) do nothing returning true",
        proposal_id,
        at,
        operator,
        person,
        act_id,
    )
    return bool(done)


async def certificate(conn: Connection, proposal_id: int) -> bytes | None:
    """The client certificate that was signed for an approved proposal (DER)."""
    found: bytes | None = await conn.fetchval(
        "select der from operator_certificate where proposal_id = $1", proposal_id
    )
    return found


async def add_certificate(conn: Connection, proposal_id: int, fingerprint: bytes, der: bytes, at: int) -> None:
    """Raises a unique violation when the proposal has one."""
    await conn.execute(
        "insert into operator_certificate (proposal_id, fingerprint, der, at) values ($1, $2, $3, $4)",
        proposal_id,
        fingerprint,
        der,
        at,
    )
