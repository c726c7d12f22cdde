"""Configurations that were in force, as digests of their parts, by host (G22). Append-only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quash.store.database import Connection


async def newest(conn: Connection, host: str) -> Mapping[str, str]:
    """The parts that this host took up last; empty: none ever."""
    parts: dict[str, Any] | None = await conn.fetchval(
        "select parts from configuration_seen where host = $1 order by id desc limit 1", host
    )
    return parts or {}


async def add(conn: Connection, host: str, parts: Mapping[str, str], act_id: int) -> None:
    """The host takes these up now."""
    await conn.execute(
        "insert into configuration_seen (host, parts, act_id) values ($1, $2, $3)", host, dict(parts), act_id
    )
