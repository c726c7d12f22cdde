"""Challenges for proofs of compromise, and the proofs that were accepted (C14). Append-only; no private key is kept."""

from __future__ import annotations

from dataclasses import dataclass

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class Challenge:
    """`used_by`: the SHA-256 of the proof over it that was accepted. Times are Unix seconds."""

    challenge: str
    expires_at: int
    used_by: bytes | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """An accepted proof: `proof` verifies with `spki` alone, `sha256` is of what was handed in."""

    kind: str
    spki: bytes
    proof: bytes
    sha256: bytes
    challenge: str | None


async def add_challenge(conn: Connection, challenge: str, *, at: int, expires_at: int, act_id: int) -> None:
    await conn.execute(
        "insert into compromise_challenge (challenge, at, expires_at, act_id) values ($1, $2, $3, $4)",
        challenge,
        at,
        expires_at,
        act_id,
    )


async def find_challenge(conn: Connection, challenge: str) -> Challenge | None:
    row = await conn.fetchrow(
        "select c.challenge, c.expires_at, e.sha256 as used_by from compromise_challenge c"
        " left join key_evidence e on e.challenge = c.challenge where c.challenge = $1",
        challenge,
    )
    return Challenge(**row) if row else None


async def add(conn: Connection, evidence: Evidence, *, at: int, act_id: int) -> bool:
    """False: a proof over its challenge was accepted before."""
    done = await conn.fetchval(
        "insert into key_evidence (at, kind, spki, proof, sha256, challenge, act_id)"
        " values ($1, $2, $3, $4, $5, $6, $7) on conflict (challenge) do nothing returning true",
        at,
        evidence.kind,
        evidence.spki,
        evidence.proof,
        evidence.sha256,
        evidence.challenge,
        act_id,
    )
    return bool(done)


async def of_key(conn: Connection, spki_sha256: bytes) -> list[tuple[int, Evidence]]:
    """The accepted proofs of a key with their times, oldest first."""
    rows = await conn.fetch(
        "select at, kind, spki, proof, sha256, challenge from key_evidence where sha256(spki) = $1 order by id",
        spki_sha256,
    )
    return [(row["at"], Evidence(**{name: row[name] for name in Evidence.__slots__})) for row in rows]
