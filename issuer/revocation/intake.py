"""Key-compromise intake (C8, C9, C14): a proof is verified, its reach shown, and the key revoked wherever it is.

Proof means that nobody else need agree: the approval of a second officer is for keys that are only asserted.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from dataclasses import dataclass
from typing import Final

from issuer.revocation.compromise import Compromised, Ground, check_date, revoke_key
from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.store import acts, certificates, key_evidence, rates
from quash.store.database import Connection
from quash.store.key_evidence import Evidence

CHALLENGE: Final = "key.challenge"
COMPROMISE: Final = "key.compromise"
EVIDENCE: Final = "key.evidence"
_CHALLENGE_LASTS: Final = 3600


@dataclass(frozen=True, slots=True)
class Reach:
    """The blast radius of a key: its unexpired certificates; all are revoked with it.

    How many there are by issuer, account and CRL (`issuer scope`). `seconds`: to sign their answers, as measured last;
    None: never measured.
    """

    certificates: int
    issuers: dict[str, int]
    accounts: dict[str, int]
    scopes: dict[str, int]
    seconds: float | None


async def give_challenge(conn: Connection, actor: str, now: int) -> tuple[str, int]:
    """A new challenge and when it expires (Unix seconds)."""
    challenge = f"quash-compromise-{secrets.token_hex(20)}"  # a common name has at most 64 characters
    async with conn.transaction():
        act_id = await acts.record(conn, at=now, actor=actor, action=CHALLENGE, subject={"challenge": challenge})
        expires_at = now + _CHALLENGE_LASTS
        await key_evidence.add_challenge(conn, challenge, at=now, expires_at=expires_at, act_id=act_id)
    return challenge, expires_at


async def accept(
    conn: Connection, clock: Clock, evidence: Evidence, *, actor: str, revoked_at: int | None, batch: int, dry_run: bool
) -> tuple[Reach, Compromised | None]:
    """Keeps a verified proof and revokes its key everywhere; a dry run checks all the same and changes nothing.

    Raises `evidence.challenge_unknown`, `.challenge_expired`, `.challenge_used`, `revocation.date_in_future`.
    """
    now = int(clock.now())
    again = await _check_challenge(conn, evidence, now)
    if revoked_at is not None:
        check_date(revoked_at, now)
    key = hashlib.sha256(evidence.spki).digest()
    reach = await reach_of(conn, key, now)
    if dry_run:
        return reach, None
    if not again:
        async with conn.transaction():
            subject = {
                "spki_sha256": key.hex(),
                "kind": evidence.kind,
                "sha256": evidence.sha256.hex(),
                "challenge": evidence.challenge,
            }
            act_id = await acts.record(conn, at=now, actor=actor, action=EVIDENCE, subject=subject)
            if not await key_evidence.add(conn, evidence, at=now, act_id=act_id):
                raise _used()
    # A crash here leaves a proof without its effect: its sender saw no answer and hands the same in again.
    proof = {"kind": evidence.kind, "evidence_sha256": evidence.sha256.hex()}
    ground = Ground(actor, COMPROMISE, proof, f"proof: {evidence.kind}")
    return reach, await revoke_key(conn, clock, key, ground, revoked_at=revoked_at, batch=batch)


async def reach_of(conn: Connection, spki_sha256: bytes, now: int) -> Reach:
    """Every unexpired certificate of the key, in whatever state, of all issuers."""
    by_issuer, by_account, by_scope = Counter[str](), Counter[str](), Counter[str]()
    for issuer, scope, account, count in await certificates.reach(conn, spki_sha256, now):
        by_issuer[issuer] += count
        by_account[account or ""] += count
        by_scope[f"{issuer} {scope or '-'}"] += count
    total, signing = by_issuer.total(), await rates.last(conn, rates.SIGNING)
    seconds = round(total / signing, 3) if signing else None
    return Reach(total, dict(by_issuer), dict(by_account), dict(by_scope), seconds)


async def _check_challenge(conn: Connection, evidence: Evidence, now: int) -> bool:
    """Whether this very proof was accepted before."""
    if evidence.challenge is None:
        return False
    challenge = await key_evidence.find_challenge(conn, evidence.challenge)
    if challenge is None:
        raise _refused("challenge_unknown", "we gave out no such challenge: ask for one")
    if challenge.used_by is not None:
        if challenge.used_by != evidence.sha256:
            raise _used()
        return True
    if now >= challenge.expires_at:
        raise _refused("challenge_expired", "the challenge has expired: ask for a new one")
    return False


def _used() -> QuashError:
    return _refused("challenge_used", "another proof over this challenge was handed in before: ask for a new one")


def _refused(code: str, message: str) -> QuashError:
    return QuashError(f"evidence.{code}", message, Kind.REFUSED)
