"""The ledger: rows that chain acts and signatures by hash, and the checkpoints over them. Append-only (F1, F7, G24)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from quash.store.database import Connection

# What of a row counts, as one JSON object. Never edit an expression: rows chained with it would not fit.
SOURCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "act": "jsonb_build_object('at', at, 'actor', actor, 'action', action, 'subject', subject)::text",
        "signing_log": "jsonb_build_object('at', at, 'kind', kind, 'issuer_id', issuer_id, 'scope', scope,"
        " 'serial', encode(serial, 'hex'), 'number', number::text, 'tbs_sha256', encode(tbs_sha256, 'hex'),"
        " 'der_sha256', encode(sha256(der), 'hex'))::text",
        "system_event": "jsonb_build_object('at', at, 'kind', kind, 'subject', subject)::text",
    }
)


@dataclass(frozen=True, slots=True)
class Row:
    """One link: the row `source_id` of the table `source` stands at `position`; `content` is None when it is gone."""

    position: int
    source: str
    source_id: int
    chained_at: int
    hash: bytes
    content: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """One checkpoint; `line` is what was signed, with its signature."""

    number: int
    position: int
    at: int
    line: str


def read_content(text: str) -> dict[str, Any]:
    """A row's content as its source's expression gives it; integers of any size stay what they are."""
    content: dict[str, Any] = json.loads(text)
    return content


async def head(conn: Connection) -> tuple[int, bytes | None]:
    """Position and hash of the newest link; (0, None): there is none."""
    row = await conn.fetchrow("select position, hash from ledger order by position desc limit 1")
    return (row["position"], row["hash"]) if row else (0, None)


async def hash_at(conn: Connection, position: int) -> bytes | None:
    """The hash at a position; None: the ledger does not reach it."""
    found: bytes | None = await conn.fetchval("select hash from ledger where position = $1", position)
    return found


async def position_of(conn: Connection, source: str, source_id: int) -> int | None:
    """Where a row stands; None: it is not chained yet."""
    found: int | None = await conn.fetchval(
        "select position from ledger where source = $1 and source_id = $2", source, source_id
    )
    return found


async def checkpoint_from(conn: Connection, position: int) -> CheckpointRow | None:
    """The first checkpoint that covers a position."""
    row = await conn.fetchrow(
        "select number, position, at, line from ledger_checkpoint where position >= $1 order by number limit 1",
        position,
    )
    return CheckpointRow(**row) if row else None


async def chained(conn: Connection, source: str, ids: Sequence[int]) -> set[int]:
    """Those of these rows that the ledger has already."""
    rows = await conn.fetch(
        "select source_id from ledger where source = $1 and source_id = any($2::bigint[])", source, list(ids)
    )
    return {row["source_id"] for row in rows}


async def append(conn: Connection, rows: Sequence[Row]) -> None:
    """Appends links. Raises a unique violation when a position or a source's row is taken."""
    await conn.execute(
        "insert into ledger (position, source, source_id, chained_at, hash)"
        " select * from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[])",
        [row.position for row in rows],
        [row.source for row in rows],
        [row.source_id for row in rows],
        [row.chained_at for row in rows],
        [row.hash for row in rows],
    )


async def page(conn: Connection, after: int, limit: int) -> list[Row]:
    """Links above a position, in order, each with what its source says now."""
    links = await conn.fetch(
        "select position, source, source_id, chained_at, hash from ledger where position > $1"
        " order by position limit $2",
        after,
        limit,
    )
    contents: dict[tuple[str, int], dict[str, Any]] = {}
    for source, expression in SOURCES.items():
        ids = [link["source_id"] for link in links if link["source"] == source]
        found = await conn.fetch(f"select id, {expression} as content from {source} where id = any($1::bigint[])", ids)
        contents.update({(source, row["id"]): read_content(row["content"]) for row in found})
    return [Row(**link, content=contents.get((link["source"], link["source_id"]))) for link in links]


async def unchained(conn: Connection, before: int) -> int:
    """How many rows of before this moment the ledger does not have: none while the sequencer works."""
    counts = [
        await conn.fetchval(
            f"select count(*) from {source} s where s.at < $2 and not exists"
            " (select from ledger where source = $1 and source_id = s.id)",
            source,
            before,
        )
        for source in SOURCES
    ]
    return sum(counts)


async def last_checkpoint(conn: Connection) -> CheckpointRow | None:
    row = await conn.fetchrow(
        "select number, position, at, line from ledger_checkpoint order by number desc limit 1",
    )
    return CheckpointRow(**row) if row else None


async def checkpoints(conn: Connection, after: int = 0) -> list[CheckpointRow]:
    """The checkpoints above a number, in order."""
    rows = await conn.fetch(
        "select number, position, at, line from ledger_checkpoint where number > $1 order by number", after
    )
    return [CheckpointRow(**row) for row in rows]


async def add_checkpoint(conn: Connection, checkpoint: CheckpointRow) -> None:
    """Raises a unique violation when the number is taken."""
    await conn.execute(
        "insert into ledger_checkpoint (number, position, at, line) values ($1, $2, $3, $4)",
        checkpoint.number,
        checkpoint.position,
        checkpoint.at,
        checkpoint.line,
    )
