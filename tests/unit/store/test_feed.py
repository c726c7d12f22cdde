"""Appending to the feed: the same rows in the same order with one hint, however many they are."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from quash.store import feed, roles
from quash.store.feed import BULK, URGENT, FeedRow

NOW = 1_800_000_000


@pytest.mark.parametrize("count", [1, 4, 5, 40])
async def test_rows_stand_as_they_were_given(database: Any, count: int) -> None:
    """By one statement or by COPY: order, lanes, kinds, an issuer or none; the hint comes with the commit."""
    rows = [
        FeedRow(*((URGENT, "issuer", 7) if number % 3 == 0 else (BULK, "records", None)), bytes((number,)) * 9)
        for number in range(count)
    ]
    hints, heard = await database.connection(roles.FOLLOWER), asyncio.Event()
    await hints.add_listener("feed", lambda *_: heard.set())
    conn = await database.connection(roles.PRESIGNER)
    await feed.add_partition(conn, NOW, NOW + 100)
    async with conn.transaction():
        await feed.append(conn, rows, NOW)
        assert not heard.is_set()
    found = await database.owner.fetch("select lane, kind, issuer_id, payload from feed order by tx, id")
    assert [FeedRow(*row.values()) for row in found] == rows
    await asyncio.wait_for(heard.wait(), 10)
    with pytest.raises(asyncpg.CheckViolationError):
        await feed.append(conn, rows, NOW + 100)  # no partition holds it
