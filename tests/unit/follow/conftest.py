"""A feed that tests write and a follower that reads it into a cache."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from quash.cache import layout
from quash.cache.layout import Record
from quash.cache.reader import LmdbReader
from quash.cache.writer import LmdbWriter
from quash.runtime.clock import FakeClock
from quash.runtime.log import logger
from quash.store import feed
from quash.store.database import Connection
from quash.store.feed import BULK, URGENT, FeedRow
from quash.store.roles import FOLLOWER
from responder.follow.follower import Follower
from tests.conftest import Database
from tests.support.feeding import append
from tests.support.ocsp_issuer import OcspIssuer

HOUR = 3600


@dataclass
class Node:
    """One node: a follower with its cache, and the feed's writing side."""

    database: Database
    folder: Path
    clock: FakeClock
    writer: LmdbWriter
    issuer: OcspIssuer = field(default_factory=OcspIssuer)

    @property
    def now(self) -> int:
        return int(self.clock.now())

    async def follower(self, **changes: Any) -> Follower:
        """A follower of the node's role, as after a start; its own clock and the database's agree."""

        async def database_time(_: Connection) -> float:
            return self.clock.now()

        pool = await self.database.pool(FOLLOWER)
        options: dict[str, Any] = {"database_time": database_time, **changes}
        return Follower(pool, self.writer, self.clock, logger(), **options)

    async def partition(self, starts_at: int, ends_at: int) -> None:
        async with self.database.owner.acquire() as conn:
            await feed.add_partition(conn, starts_at, ends_at)

    async def feed(self, *rows: FeedRow, at: int | None = None) -> None:
        """One transaction of the presigner."""
        async with self.database.owner.acquire() as conn, conn.transaction():
            await append(conn, rows, self.now if at is None else at)

    def announcement(self) -> list[FeedRow]:
        """The rows that a partition begins with."""
        return [
            FeedRow(URGENT, "issuer", 1, layout.encode_issuer(self.issuer.row)),
            FeedRow(URGENT, "template", 1, layout.encode_template(self.issuer.template_row)),
        ]

    def records(self, *items: tuple[bytes, bytes], lane: int = URGENT) -> FeedRow:
        """A row of (serial, encoded record)."""
        return FeedRow(lane, "records", None, layout.encode_batch((1, serial, data) for serial, data in items))

    def heartbeat(self, at: int | None = None) -> FeedRow:
        return FeedRow(URGENT, "heartbeat", None, layout.encode_heartbeat(self.now if at is None else at))

    def held(self, serial: bytes) -> Record | None:
        """What the cache has for a serial."""
        reader = LmdbReader(shared=self.writer)
        reader.state()
        data = reader.get(layout.record_key(1, serial))
        return None if data is None else layout.decode_record(data)


@pytest.fixture
async def node(database: Database, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Node]:
    """A node with an empty cache, and a feed with a partition around now that holds the announcement."""
    writer = LmdbWriter(tmp_path, map_size=1 << 28)
    node = Node(database, tmp_path, clock, writer)
    await node.partition(node.now - HOUR, node.now + HOUR)
    await node.feed(*node.announcement())
    yield node
    node.writer.environment.close()


async def drop_oldest(node: Node) -> None:
    """Drops the oldest partition as the owner's function does, without asking whether somebody needs it."""
    async with node.database.owner.acquire() as conn:
        oldest = (await feed.partitions(conn))[0]
        below = await conn.fetchval(f"select max(tx) from feed_{oldest.starts_at}")
        await conn.execute(f"drop table feed_{oldest.starts_at}")
        await conn.execute("delete from feed_partition where starts_at = $1", oldest.starts_at)
        await conn.execute("update feed_floor set below = $1", below + 1)


async def next_partition(node: Node) -> None:
    """Goes into the partition after this one, which begins with the announcement."""
    await node.partition(node.now + HOUR, node.now + 3 * HOUR)
    await node.clock.advance(2 * HOUR)
    await node.feed(*node.announcement())


def refused(reason: str) -> float:
    """The alarm metric."""
    return REGISTRY.get_sample_value("quash_follower_refused_total", {"reason": reason}) or 0.0


def rebuilt(reason: str) -> float:
    """How often a cache was begun anew."""
    return REGISTRY.get_sample_value("quash_follower_rebuilds_total", {"reason": reason}) or 0.0


def applied() -> float:
    """How many records were new to a cache."""
    return REGISTRY.get_sample_value("quash_follower_records_applied_total") or 0.0


__all__ = ["BULK", "HOUR", "URGENT", "Node", "applied", "drop_oldest", "next_partition", "rebuilt", "refused"]
