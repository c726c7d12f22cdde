"""What linters said before a signature. Append-only; every result is kept, clean ones too (D47)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class LintResult:
    """One linter's result for one document of an order; `findings` as JSON objects; `at`: Unix seconds."""

    at: int
    order_id: UUID
    document: str
    linter: str
    version: str
    findings: list[dict[str, Any]]
    refused: bool


_COLUMNS = "at, order_id, document, linter, version, findings, refused"


async def add(conn: Connection, results: Sequence[LintResult]) -> None:
    await conn.executemany(
        f"insert into lint_result ({_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7)",
        [(r.at, r.order_id, r.document, r.linter, r.version, r.findings, r.refused) for r in results],
    )
