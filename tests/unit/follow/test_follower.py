"""The follower over a real feed: what it applies, when it begins anew, how it survives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from quash.cache import environment as files
from quash.cache.reader import LmdbReader
from quash.cache.writer import Changes, LmdbWriter
from quash.errors import Kind, QuashError
from quash.runtime.log import logger
from quash.runtime.process import Process
from responder.follow.follower import SWEEP_AFTER
from responder.follow.main import check_file, main
from responder.follow.trust import Limits
from tests.support.feeding import append
from tests.unit.follow.conftest import BULK, HOUR, Node, applied, drop_oldest, next_partition, rebuilt

S, T = b"\x01", b"\x02"


async def test_news_reach_the_cache(node: Node) -> None:
    """Issuers, signers, records and heartbeats are in the cache after one step, and it is complete."""
    follower = await node.follower()
    await node.feed(node.records((S, node.issuer.record(S, node.now))), node.heartbeat())
    assert await follower.step() == 4
    held = node.held(S)
    assert held is not None
    assert (held.reason, held.this_update) == (None, node.now)
    assert node.writer.heartbeat() == node.now
    assert set(node.writer.catalog().issuers) == set(node.writer.catalog().templates) == {1}
    assert follower.at_head
    assert await follower.step() == 0


async def test_an_empty_feed_is_a_head_too(node: Node) -> None:
    """A node of a new deployment becomes ready without any record."""
    async with node.database.owner.acquire() as conn:
        await conn.execute("delete from feed")
    follower = await node.follower()
    assert not follower.at_head
    assert await follower.step() == 0
    assert follower.at_head


async def test_the_greatest_record_stays(node: Node) -> None:
    """A good answer that a slow presigner feeds after the revocation does not replace it."""
    revoked = node.issuer.record(S, node.now - 60, revoked=(1, node.now - 90))
    await node.feed(node.records((S, revoked)))
    await node.feed(node.records((S, node.issuer.record(S, node.now)), lane=BULK))
    await (await node.follower()).step()
    held = node.held(S)
    assert held is not None
    assert held.reason == 1


async def test_a_late_commit_is_applied(node: Node) -> None:
    """A transaction that began before others and commits after they were read loses nothing."""
    follower = await node.follower()
    late = await node.database.connection()
    transaction = late.transaction()
    await transaction.start()
    await append(late, [node.records((S, node.issuer.record(S, node.now)))], node.now)
    await node.feed(node.records((T, node.issuer.record(T, node.now))))
    await follower.step()
    assert node.held(S) is None
    assert node.held(T) is not None
    await transaction.commit()
    await follower.step()
    assert node.held(S) is not None


async def test_a_restart_goes_on_where_the_cache_stands(node: Node) -> None:
    """The position lies in the cache file: a new follower reads what is new, and knows its issuers and signers."""
    await (await node.follower()).step()
    await node.feed(node.heartbeat())
    node.writer.environment.close()  # as after kill -9
    node.writer = LmdbWriter(node.folder, map_size=1 << 28)
    follower = await node.follower()
    assert follower.at_head
    await node.feed(node.records((S, node.issuer.record(S, node.now))))
    before = rebuilt("outdated")
    assert await follower.step() == 2
    assert node.held(S) is not None
    assert rebuilt("outdated") == before


async def test_a_follower_older_than_the_oldest_partition_rebuilds(node: Node) -> None:
    """It begins from the feed's start with an empty file, and is not at the head before it has read all of it."""
    await node.feed(node.records((S, node.issuer.record(S, node.now))))
    await (await node.follower()).step()
    await node.feed(node.records((T, node.issuer.record(T, node.now))))  # what it never saw
    await next_partition(node)
    await node.feed(node.records((S, node.issuer.record(S, node.now))), node.heartbeat())
    await drop_oldest(node)
    seen: list[bool] = []

    class Watched(LmdbWriter):
        def apply(self, changes: Changes) -> int:
            applied = super().apply(changes)
            if changes.position is not None:  # else of the urgent lane, which is ahead of it
                seen.append(self.complete())
            return applied

    node.writer.environment.close()
    node.writer = Watched(node.folder, map_size=1 << 28)
    before = rebuilt("outdated")
    follower = await node.follower(read_limit=1)
    await follower.step()
    assert rebuilt("outdated") == before + 1
    assert node.held(T) is None
    held = node.held(S)
    assert held is not None
    assert held.this_update == node.now
    assert seen == [False] * 4 + [True]  # four rows one by one, then the end
    await node.feed(node.heartbeat())
    await follower.step()
    assert rebuilt("outdated") == before + 1


async def test_a_follower_at_the_head_does_not_mind_a_drop(node: Node) -> None:
    """Partitions behind it come and go."""
    follower = await node.follower()
    await follower.step()
    await next_partition(node)
    await follower.step()
    await drop_oldest(node)
    before = rebuilt("outdated")
    await node.feed(node.records((S, node.issuer.record(S, node.now))))
    await follower.step()
    assert rebuilt("outdated") == before
    assert node.held(S) is not None


async def test_a_partition_dropped_under_a_rebuild_begins_it_again(node: Node) -> None:
    """What is dropped while a follower reads it may have been read in part: it starts once more."""
    await next_partition(node)
    await node.feed(node.records((S, node.issuer.record(S, node.now))))
    before = rebuilt("outdated")

    class Full(LmdbWriter):
        room = 1

        def apply(self, changes: Changes) -> int:
            if not self.room:
                raise QuashError("cache.full", "for a moment", Kind.UNAVAILABLE)
            self.room -= 1
            return super().apply(changes)

    node.writer.environment.close()
    node.writer = Full(node.folder, map_size=1 << 28)
    follower = await node.follower(read_limit=1)
    with pytest.raises(QuashError, match=r"cache\.full"):
        await follower.step()
    await drop_oldest(node)
    node.writer.room = 100
    await follower.step()
    assert rebuilt("outdated") == before + 1
    assert node.held(S) is not None
    assert follower.at_head


async def test_a_feed_of_another_database_begins_the_cache_anew(node: Node) -> None:
    """Ids of issuers and signers mean something else there, so nothing of the old cache may stay."""
    await node.feed(node.records((S, node.issuer.record(S, node.now))))
    await (await node.follower()).step()
    node.writer.apply(Changes(position=b"1234/1 900", records=[(1, T, node.issuer.record(T, node.now))]))
    before = rebuilt("database")
    await (await node.follower()).step()
    assert rebuilt("database") == before + 1
    assert node.held(T) is None
    assert node.held(S) is not None


async def test_another_timeline_reads_everything_again_and_forgets_nothing(node: Node) -> None:
    """After a failover a revocation that the new primary lost stays revoked on this node."""
    await (await node.follower()).step()
    lost = node.issuer.record(T, node.now, revoked=(1, node.now))
    position = node.writer.position()
    assert position is not None
    history, _, tx = position.decode().partition(" ")
    other = f"{history.partition('/')[0]}/99 {tx}".encode()
    node.writer.apply(Changes(position=other, records=[(1, T, lost)]))
    follower = await node.follower()
    assert await follower.step() == 2
    assert node.held(T) is not None
    assert node.writer.position() == position


async def test_a_full_disk_stops_applying_and_loses_nothing(node: Node) -> None:
    """`cache.full` is raised and the position stays; when there is room, the same rows are applied."""
    node.writer.environment.close()
    files.delete(node.folder)
    node.writer = LmdbWriter(node.folder, map_size=64 * 4096)
    follower = await node.follower(limits=Limits(sample=10**9))
    await follower.step()
    position = node.writer.position()
    data = node.issuer.record(S, node.now)  # signed for one serial: no sample is taken
    many = [(bytes([1, n // 256, n % 256]), data) for n in range(2_000)]
    await node.feed(node.records(*many, lane=BULK), node.heartbeat())
    with pytest.raises(QuashError, match=r"cache\.full"):
        await follower.step()
    assert node.writer.position() == position
    node.writer.environment.env.set_mapsize(1 << 28)
    await follower.step()
    assert node.held(many[-1][0]) is not None
    assert node.writer.heartbeat() == node.now


async def test_a_cache_that_breaks_while_it_is_used_is_built_again(node: Node) -> None:
    """`cache.damaged` in the middle of the work: the file is deleted and filled from the feed's start."""

    class Breaking(LmdbWriter):
        breaks = True

        def apply(self, changes: Changes) -> int:
            if self.breaks:
                self.breaks = False
                raise QuashError("cache.damaged", "a page", Kind.INTERNAL)
            return super().apply(changes)

    await node.feed(node.records((S, node.issuer.record(S, node.now))))
    await (await node.follower()).step()
    node.writer.environment.close()
    node.writer = Breaking(node.folder, map_size=1 << 28)
    follower = await node.follower()
    await node.feed(node.heartbeat())
    before = rebuilt("damaged")
    await follower.step()
    await follower.step()
    assert rebuilt("damaged") == before + 1
    assert node.held(S) is not None
    assert follower.at_head


async def test_long_expired_records_go(node: Node) -> None:
    """A12: swept a week after nextUpdate by the heartbeats' time, so that a clock that jumps empties nothing."""
    await node.feed(node.records((S, node.issuer.record(S, node.now))))
    follower = await node.follower()
    await follower.step()
    await node.partition(node.now + HOUR, node.now + 40 * 86_400)
    node.clock.step(30 * 86_400)
    await node.clock.advance(2)
    await follower.step()
    assert node.held(S) is not None
    node.clock.step(-30 * 86_400)
    await node.clock.advance(SWEEP_AFTER + 172_799 + 2)
    await node.feed(node.heartbeat(), node.records((T, node.issuer.record(T, node.now))))
    await follower.step()
    assert node.held(S) is None
    assert node.held(T) is not None


async def test_check_file_deletes_what_cannot_be_read(tmp_path: Path) -> None:
    """After a follower that did not end in order: a sound file stays, one with an overwritten page goes."""
    writer = LmdbWriter(tmp_path)
    node_records = [(1, number.to_bytes(4, "big"), b"\x01" * 145) for number in range(1, 3_000)]
    writer.apply(Changes(records=node_records))
    writer.environment.close()
    path = tmp_path / files.FILE
    await check_file(tmp_path, logger())
    assert path.exists()
    whole = path.read_bytes()
    page = whole.index(b"\x01" * 145) // 4096
    path.write_bytes(whole[: page * 4096] + os.urandom(4096) + whole[(page + 1) * 4096 :])
    before = rebuilt("damaged")
    await check_file(tmp_path, logger())
    assert not path.exists()
    assert rebuilt("damaged") == before + 1
    await check_file(tmp_path, logger())
    assert rebuilt("damaged") == before + 1


async def until(met: Callable[[], bool]) -> None:
    """Waits for another task, at most 20 seconds."""
    async with asyncio.timeout(20):
        while not met():  # noqa: ASYNC110 (a metric has no event)
            await asyncio.sleep(0.02)


async def test_the_process_follows_until_it_is_cancelled(node: Node) -> None:
    """`main`: not ready before the head, ready then, applies news by itself, and leaves a file closed in order."""
    process = Process("follower", node.database.config, node.database.state, clock=node.clock)
    folder = process.state.cache
    files.delete(folder)
    running = asyncio.ensure_future(main(process))
    try:
        assert not process.health.ready
        await until(lambda: process.health.ready)
        with pytest.raises(QuashError, match=r"cache\.locked"):
            await main(Process("second", node.database.config, node.database.state, clock=node.clock))
        before = applied()
        await node.feed(node.records((S, node.issuer.record(S, node.now))), node.heartbeat())
        await until(lambda: applied() == before + 1)
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert files.closed_in_order(folder)
    reader = LmdbReader(folder)
    assert reader.state().heartbeat == node.now
    reader.close()
    files.delete(folder)
