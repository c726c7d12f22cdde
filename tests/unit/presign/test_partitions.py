"""Dropping feed partitions never un-revokes at a node that starts afterwards (design section 5)."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from quash.cache import layout
from quash.store import feed
from responder.presign.feeder import SPAN
from tests.support.feeding import append

HOUR = 3600


async def live(world: Any, presigner: Any, hours: int, stride: int = 4) -> None:
    for _ in range(0, hours, stride):
        await world.clock.advance(stride * HOUR)
        await presigner.step()


async def spans(world: Any) -> list[int]:
    async with world.database.owner.acquire() as conn:
        return [partition.starts_at for partition in await feed.partitions(conn)]


async def drop(world: Any, starts_at: int) -> bool:
    pool = await world.database.pool("quash_presigner")
    async with pool.acquire() as conn:
        return bool(await feed.drop_partition(conn, starts_at, world.now))


async def test_old_partitions_go_and_nothing_is_lost(world: Any) -> None:
    """Over a week the feed stays at a few partitions, and a new node knows every certificate at any time."""
    authority = await world.authority()
    serials = await world.imported(authority, 20)
    await world.revoke(authority, serials[0], 1)
    presigner = await world.presigner()
    await presigner.step()
    for _ in range(7 * 12):
        await live(world, presigner, 2, 2)
        cache = await world.cache()
        assert {serial for _, serial in cache} == set(serials)
        assert cache[authority.id, serials[0]].version == 1
        assert len(await spans(world)) <= 40 * HOUR // SPAN + 3
    async with world.database.owner.acquire() as conn:
        assert await feed.floor(conn) > 0


async def test_a_late_refresh_keeps_the_partition(world: Any) -> None:
    """While one bucket's refresh is late, the partition with its revocation stays; after the refresh it may go."""
    late, fresh = await world.authority("late"), await world.authority("fresh")
    revoked = await world.issue(late)
    await world.issue(fresh)
    presigner = await world.presigner()
    await presigner.step()
    await world.revoke(late, revoked, 1)
    await presigner.step()
    first = (await spans(world))[0]
    ref = next(ref for ref in world.keys if "late" in ref)
    key = world.keys.pop(ref)  # from now on nothing of this issuer can be signed ...
    await presigner.close()  # ... and the key is no longer open
    await live(world, presigner, 5 * 24)
    assert (await spans(world))[0] == first
    assert (await world.cache())[late.id, revoked].version == 1
    world.keys[ref] = key
    await live(world, presigner, 2)
    assert (await spans(world))[0] > first
    assert (await world.cache())[late.id, revoked].version == 1


async def test_the_boundary_is_the_last_transaction(world: Any) -> None:
    """A snapshot whose xmin is the last writer's own transaction did not surely see it; the next one did."""
    authority = await world.authority()
    await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    first = (await spans(world))[0]
    owner = world.database.owner
    last = await owner.fetchval(f"select max(tx) from feed_{first}")
    await world.clock.advance(SPAN)
    await owner.execute("update bucket set pass_xmin = ($1::bigint)::text::xid8", last)
    assert not await drop(world, first)
    await owner.execute("update bucket set pass_xmin = ($1::bigint)::text::xid8 where bucket > 0", last + 1)
    assert not await drop(world, first)
    await owner.execute("update bucket set pass_xmin = ($1::bigint)::text::xid8", last + 1)
    await owner.execute("update bucket set pass_xmin = null where bucket = 2")
    assert not await drop(world, first)
    await owner.execute("update bucket set pass_xmin = ($1::bigint)::text::xid8", last + 1)
    assert await drop(world, first)
    assert not await drop(world, first)
    async with owner.acquire() as conn:
        assert await feed.floor(conn) == last + 1


async def test_a_partition_that_is_not_over_stays(world: Any) -> None:
    """Rows may still come into it."""
    authority = await world.authority()
    presigner = await world.presigner()
    await presigner.step()
    (current, following) = await spans(world)
    await world.database.owner.execute("update bucket set pass_xmin = '9999999'")
    assert authority.id
    assert not await drop(world, current)
    assert not await drop(world, following)


async def test_a_writer_under_way_keeps_the_partition(world: Any) -> None:
    """A batch written in time and committed after the pass: no drop before its commit, nor right after."""
    authority = await world.authority()
    serial = await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    first = (await spans(world))[0]
    (payload, *_) = await world.feed("records")
    slow = await world.database.connection()
    transaction = slow.transaction()
    await transaction.start()
    await append(slow, [feed.FeedRow(feed.BULK, "records", None, payload)], world.now)
    await world.clock.advance(21 * HOUR)
    await presigner.step()  # a complete pass over every bucket, whose snapshots all have the slow writer running
    assert not await drop(world, first)
    await transaction.commit()
    assert not await drop(world, first)
    await live(world, presigner, 21)
    assert first not in await spans(world)
    assert (authority.id, serial) in await world.cache()


async def test_nothing_is_written_into_a_dropped_partition(world: Any) -> None:
    """A writer that comes too late fails aloud: its rows would have been lost."""
    await world.authority()
    presigner = await world.presigner()
    await presigner.step()
    first = (await spans(world))[0]
    await live(world, presigner, 48)
    assert first not in await spans(world)
    async with world.database.owner.acquire() as conn:
        with pytest.raises(asyncpg.CheckViolationError):
            await append(conn, [feed.FeedRow(feed.BULK, "heartbeat", None, b"")], first)


async def test_readers_are_not_waited_for(world: Any) -> None:
    """A follower in the middle of a read is never blocked for long, nor its feed dropped under it."""
    await world.authority()
    presigner = await world.presigner()
    await presigner.step()
    first = (await spans(world))[0]
    reader = await world.database.connection("quash_follower")
    async with reader.transaction():
        await reader.fetch("select id from feed")
        await live(world, presigner, 48)
        assert first in await spans(world)
        assert len(await reader.fetch(f"select id from feed where written_at < {first + SPAN}")) > 0
    await live(world, presigner, 1, 1)
    assert first not in await spans(world)


async def test_every_partition_begins_with_issuers_and_templates(world: Any) -> None:
    """A node can start from any partition: whoever signed a record in it is introduced before."""
    authority = await world.authority()
    await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    await live(world, presigner, 30)
    (signer,) = authority.signers
    for starts_at in await spans(world):
        rows = await world.database.owner.fetch(f"select kind, payload from feed_{starts_at} order by id")
        if rows:
            kinds = [row["kind"] for row in rows]
            assert kinds[:2] == ["issuer", "template"]
            assert layout.decode_issuer(rows[0]["payload"]).name == authority.name
            assert layout.decode_template(rows[1]["payload"]).signer_id == signer


async def test_only_the_owners_function_drops(world: Any) -> None:
    """The presigner itself may neither drop nor make a table; nobody else may call the functions."""
    await world.authority()
    presigner = await world.presigner()
    await presigner.step()
    first = (await spans(world))[0]
    conn = await world.database.connection("quash_presigner")
    for statement in (f"drop table feed_{first}", f"alter table feed detach partition feed_{first}", "drop table feed"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(statement)
    follower = await world.database.connection("quash_follower")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await feed.drop_partition(follower, first, world.now)
    async with conn.transaction(isolation="repeatable_read"):
        with pytest.raises(asyncpg.RaiseError, match="read committed"):
            await feed.drop_partition(conn, first, world.now)
