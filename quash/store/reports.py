"""Problem reports from the public: written by intake, which may do nothing else, and taken up by the admin side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from quash.errors import QuashError
from quash.store.database import Connection, owe, paid, translated
from quash.store.key_evidence import Evidence


@dataclass(frozen=True, slots=True)
class Report:
    """`received_at`: Unix seconds. `body`: as it was handed in, without any key. `proof`: verified by intake's worker.

    `kind`: problem or key-compromise.
    """

    reference: UUID
    received_at: int
    kind: str
    source: str
    contact: str
    body: dict[str, Any]
    proof: Evidence | None
    id: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class GivenChallenge:
    """`at`, `expires_at`: Unix seconds."""

    at: int
    expires_at: int


async def add(conn: Connection, report: Report) -> None:
    proof = report.proof
    await conn.execute(
        "insert into report (reference, received_at, kind, source, contact, body, proof_kind, spki, proof,"
        " proof_sha256, challenge) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        report.reference,
        report.received_at,
        report.kind,
        report.source,
        report.contact,
        report.body,
        *((None,) * 5 if proof is None else (proof.kind, proof.spki, proof.proof, proof.sha256, proof.challenge)),
    )


async def add_challenge(conn: Connection, challenge: str, *, at: int, expires_at: int) -> None:
    await conn.execute(
        "insert into report_challenge (challenge, at, expires_at) values ($1, $2, $3)", challenge, at, expires_at
    )


async def find_challenge(conn: Connection, challenge: str) -> GivenChallenge | None:
    row = await conn.fetchrow("select at, expires_at from report_challenge where challenge = $1", challenge)
    return GivenChallenge(**row) if row else None


async def waiting(conn: Connection, limit: int) -> list[tuple[Report, int | None]]:
    """Reports that are not dealt with, each with its case where it has one already, oldest first."""
    rows = await conn.fetch(
        "select r.*, c.case_id from report r left join report_case c on c.report_id = r.id"
        " where not exists (select from report_done d where d.report_id = r.id) order by r.id limit $1",
        limit,
    )
    return [(_report(row), row["case_id"]) for row in rows]


@asynccontextmanager
async def alone(conn: Connection) -> AsyncIterator[bool]:
    """Yields whether this session alone takes reports up; it does not wait."""
    owe(conn)
    mine = bool(await conn.fetchval("select pg_try_advisory_lock(hashtextextended('quash reports', 0))"))
    if not mine:
        paid(conn)
    try:
        yield mine
    finally:
        if mine:
            with suppress(QuashError), translated():  # a lost connection holds nothing
                await conn.execute("select pg_advisory_unlock(hashtextextended('quash reports', 0))")
                paid(conn)


async def of_case(conn: Connection, case_id: int) -> Report | None:
    """The report that opened a case."""
    row = await conn.fetchrow(
        "select r.* from report r join report_case c on c.report_id = r.id where c.case_id = $1", case_id
    )
    return _report(row) if row else None


async def take(conn: Connection, report: Report, case_id: int, at: int) -> None:
    """Says which case a report opened."""
    await conn.execute("insert into report_case (report_id, case_id, at) values ($1, $2, $3)", report.id, case_id, at)


async def done(conn: Connection, report: Report, at: int) -> None:
    """Nothing is left to do for it."""
    await conn.execute("insert into report_done (report_id, at) values ($1, $2)", report.id, at)


def _report(row: Any) -> Report:
    proof = None
    if row["proof_kind"] is not None:
        proof = Evidence(row["proof_kind"], row["spki"], row["proof"], row["proof_sha256"], row["challenge"])
    fields = {name: row[name] for name in ("reference", "received_at", "kind", "source", "contact", "body")}
    return Report(**fields, proof=proof, id=row["id"])
