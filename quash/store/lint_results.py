"""What linters said before a signature. Append-only; every result is kept, clean ones too (D47)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class LintResult:
    """One linter's result for one document of an order; `findings` as JSON objects; `at`: Unix seconds.

    Of a certificate that nobody ordered, a CA's or an OCSP signer's, `serial` instead of `order_id`, signed or not.
    """

    at: int
    order_id: UUID | None
    document: str
    linter: str
    version: str
    findings: list[dict[str, Any]]
    refused: bool
    serial: bytes | None = None


_COLUMNS = "at, document, linter, version, findings, refused"


async def add(conn: Connection, results: Sequence[LintResult]) -> None:
    """Each role has the right to what it is about alone: orders, or certificates that nobody ordered."""
    for each in results:
        about, value = ("order_id", each.order_id) if each.serial is None else ("serial", each.serial)
        await conn.execute(
            f"insert into lint_result ({_COLUMNS}, {about}) values ($1, $2, $3, $4, $5, $6, $7)",
            *(each.at, each.document, each.linter, each.version, each.findings, each.refused, value),
        )
