"""What one revocation leaves behind: who, why, with what proof, when it was recorded, signed, sent out and first seen.

With the ledger's proof: the links from the act to the first checkpoint behind it, which anybody can hash again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from issuer.audit.chain import GENESIS, Entry
from issuer.revocation.find import Found
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.store import acts, blocked_keys, cases, issuers, key_evidence, ledger, revocations, sightings
from quash.store.acts import Act
from quash.store.blocked_keys import BlockedKey
from quash.store.database import Connection
from quash.store.issuers import IssuerCertificate
from quash.store.key_evidence import Evidence
from quash.store.revocations import Revocation
from quash.store.sightings import Sighting

_MOST_LINKS: Final = 20_000  # checkpoints are signed every 1000 rows by default


@dataclass(frozen=True, slots=True)
class Proof:
    """`entries`: canonical JSON of each link with its hash, from the act's on; `previous`: the hash before them.

    `checkpoint`: its line, which signs the hash of the last of them.
    """

    previous: bytes
    entries: Sequence[tuple[bytes, bytes]]
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a revocation. `position`: of its act in the ledger; `proof` None: no checkpoint covers it yet."""

    revocation: Revocation
    act: Act
    sightings: Sequence[Sighting]
    position: int | None
    proof: Proof | None


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything about a certificate's revocation; `proofs` (at, proof) and `blocked` are its key's."""

    found: Found
    issuer_certificate: IssuerCertificate | None
    versions: Sequence[Version]
    proofs: Sequence[tuple[int, Evidence]]
    blocked: BlockedKey | None
    cases: Sequence[int]


async def trace(conn: Connection, found: Found) -> Trace:
    """Raises `revocation.none`, and `ledger.proof_too_long`, `ledger.row_missing` for its ledger."""
    certificate = found.certificate
    history = await revocations.history(conn, certificate.issuer_id, certificate.serial)
    if not history:
        raise QuashError("revocation.none", "this certificate is not revoked: see quash status", Kind.NOT_FOUND)
    key = certificate.spki_sha256 if history[-1].reason == Reason.keyCompromise else None
    return Trace(
        found,
        await issuers.certificate(conn, certificate.issuer_id),
        [await _version(conn, each) for each in history],
        [] if key is None else await key_evidence.of_key(conn, key),
        None if key is None else await blocked_keys.get(conn, key),
        await cases.holding(conn, certificate.issuer_id, certificate.serial),
    )


async def _version(conn: Connection, revocation: Revocation) -> Version:
    act = await acts.get(conn, revocation.act_id)
    assert act is not None  # noqa: S101 - the row's foreign key
    name = (revocation.issuer_id, revocation.serial, revocation.version)
    position = await ledger.position_of(conn, "act", act.id)
    proof = None if position is None else await prove(conn, position)
    return Version(revocation, act, await sightings.of(conn, name), position, proof)


async def prove(conn: Connection, position: int) -> Proof | None:
    """The links from a position to the first checkpoint at or behind it; None: there is none yet."""
    checkpoint = await ledger.checkpoint_from(conn, position)
    if checkpoint is None:
        return None
    count = checkpoint.position - position + 1
    if count > _MOST_LINKS:
        raise QuashError("ledger.proof_too_long", f"{count} links up to the checkpoint: use quash audit export")
    entries = []
    for row in await ledger.page(conn, position - 1, count):
        if row.content is None:
            raise QuashError("ledger.row_missing", f"position {row.position} has lost its row: see quash audit verify")
        entry = Entry(row.position, row.source, row.source_id, row.chained_at, row.content)
        entries.append((entry.canonical, row.hash))
    return Proof(await ledger.hash_at(conn, position - 1) or GENESIS, entries, checkpoint.line.encode())
