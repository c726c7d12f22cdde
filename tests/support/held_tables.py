"""Holding a table, so that whoever wants it next stands still at a known step, and seeing that it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from quash.store.database import Pool

_PATIENCE = 30  # seconds


@asynccontextmanager
async def held(owner: Pool, table: str) -> AsyncIterator[None]:
    """Nobody else gets at the table inside the block."""
    async with owner.acquire() as conn, conn.transaction():
        await conn.execute(f"lock table {table} in access exclusive mode")
        yield


async def waiting(owner: Pool, table: str) -> int:
    """The backend that waits for a table which is held."""
    return int(await _until(owner, "select pid from pg_locks where relation = $1::regclass and not granted", table))


async def all_wait(owner: Pool, count: int) -> None:
    """Returns when so many backends wait for a lock of any kind."""
    sql = "select true where (select count(*) from pg_locks where not granted) >= $1"
    await _until(owner, sql, count)


async def _until(owner: Pool, sql: str, argument: object) -> Any:
    async with asyncio.timeout(_PATIENCE):
        while True:
            found = await owner.fetchval(sql, argument)
            if found is not None:
                return found
            await asyncio.sleep(0.01)
