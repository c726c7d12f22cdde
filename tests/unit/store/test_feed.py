"""Writing to the feed: rows in their order, proofs, position and hint, all of it under the lease or nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from quash.errors import QuashError
from quash.store import feed, roles
from quash.store.feed import BULK, URGENT, FeedRow
from quash.store.leases import Lease
from quash.store.news import NewsReader, Position

NOW = 1_800_000_000
ROW = FeedRow(BULK, "records", None, b"row")
PROVEN = [(1, b"\x11"), (2, b"\x11")]
READER = NewsReader("outbox", ("kind",), "presign-0")


async def held(database: Any) -> Lease:
    lease = await Lease.acquire(await database.connection(roles.PRESIGNER), "presign")
    assert lease is not None
    return lease


async def writer(database: Any) -> Any:
    conn = await database.connection(roles.PRESIGNER)
    await feed.add_partition(conn, NOW, NOW + 100)
    return conn


async def written(database: Any) -> tuple[int, int, int]:
    """Rows of the feed, proofs, positions."""
    tables = ("feed", "proven_certificate", "reader_position")
    feed_rows, proofs, positions = [await database.owner.fetchval(f"select count(*) from {table}") for table in tables]
    return feed_rows, proofs, positions


@pytest.mark.parametrize("count", [1, 4, 5, 40])
async def test_rows_stand_as_they_were_given(database: Any, count: int) -> None:
    """Order, lanes, kinds, an issuer or none; the hint comes with the commit."""
    rows = [
        FeedRow(*((URGENT, "issuer", 7) if number % 3 == 0 else (BULK, "records", None)), bytes((number,)) * 9)
        for number in range(count)
    ]
    hints, heard = await database.connection(roles.FOLLOWER), asyncio.Event()
    await hints.add_listener("feed", lambda *_: heard.set())
    conn, lease = await writer(database), await held(database)
    async with conn.transaction():
        await feed.write(conn, lease, rows, NOW)
        assert not heard.is_set()
    found = await database.owner.fetch("select lane, kind, issuer_id, payload from feed order by tx, id")
    assert [FeedRow(*row.values()) for row in found] == rows
    await asyncio.wait_for(heard.wait(), 10)


async def test_proofs_and_a_position_stand_with_the_rows(database: Any) -> None:
    """What was proven before changes nothing; a position replaces the one before, and none leaves it alone."""
    conn, lease = await writer(database), await held(database)
    await feed.write(conn, lease, [ROW], NOW, proven=PROVEN[:1], taken_up=(READER.name, Position("s/1", 7)))
    await feed.write(conn, lease, [], NOW, proven=PROVEN, taken_up=(READER.name, Position("s/2", 9)))
    await feed.write(conn, lease, [ROW], NOW)
    assert await written(database) == (2, 2, 1)
    assert await READER.load(conn) == Position("s/2", 9)


async def test_nothing_stands_without_a_partition(database: Any) -> None:
    """Neither proof nor position outlives rows that no partition holds."""
    conn, lease = await writer(database), await held(database)
    with pytest.raises(asyncpg.CheckViolationError):
        await feed.write(conn, lease, [ROW], NOW + 100, proven=PROVEN, taken_up=(READER.name, Position("s/1", 7)))
    assert await written(database) == (0, 0, 0)


async def test_a_paused_presigner_writes_nothing(database: Any) -> None:
    """Another one has the lease since: neither rows, nor proofs, nor a position, in a transaction or by itself."""
    conn, paused = await writer(database), await held(database)
    await paused.release()
    await held(database)
    for everything in ({}, {"proven": PROVEN, "taken_up": (READER.name, Position("s/1", 7))}):
        with pytest.raises(QuashError, match=r"lease\.lost"):
            await feed.write(conn, paused, [ROW], NOW, **everything)
        with pytest.raises(QuashError, match=r"lease\.lost"):
            async with conn.transaction():
                await feed.write(conn, paused, [ROW], NOW, **everything)
    assert await written(database) == (0, 0, 0)


async def test_the_fence_is_compared_when_it_is_no_longer_being_raised(database: Any) -> None:
    """A write that began before the next holder's raise committed waits for it, and then writes nothing."""
    conn, old = await writer(database), await held(database)
    raising = await database.connection(roles.PRESIGNER)
    transaction = raising.transaction()
    await transaction.start()
    await raising.execute("update lease set fence = fence + 1 where name = 'presign'")
    writing = asyncio.create_task(
        feed.write(conn, old, [ROW], NOW, proven=PROVEN, taken_up=(READER.name, Position("s/1", 7)))
    )
    await asyncio.sleep(0.1)
    assert not writing.done()
    await transaction.commit()
    with pytest.raises(QuashError, match=r"lease\.lost"):
        await writing
    assert await written(database) == (0, 0, 0)


async def test_a_new_holder_waits_for_what_is_being_written(database: Any) -> None:
    """What was written under the lease commits before the next holder begins."""
    conn, old = await writer(database), await held(database)
    other = await database.connection(roles.PRESIGNER)
    transaction = conn.transaction()
    await transaction.start()
    await feed.write(conn, old, [ROW], NOW)
    await old.release()
    taking = asyncio.create_task(Lease.acquire(other, "presign"))
    await asyncio.sleep(0.1)
    assert not taking.done()
    await transaction.commit()
    assert await taking is not None
    assert await written(database) == (1, 0, 0)
