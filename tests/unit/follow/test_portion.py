"""How much a follower takes up in one commit."""

from __future__ import annotations

import pytest

from quash.cache.layout import encode_batch
from quash.cache.writer import Changes, LmdbWriter
from quash.store.feed import BULK, FeedRow
from responder.follow.follower import OCTETS_AT_ONCE, READ_LIMIT
from responder.follow.trust import Limits
from tests.unit.follow.conftest import Node


async def test_no_commit_is_large_however_sizes_change(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats by the hundred, then rows of a mass job: an urgent row must not wait for more than is read at once."""
    sizes: list[int] = []
    apply = LmdbWriter.apply

    def counted(writer: LmdbWriter, changes: Changes) -> int:
        sizes.append(len(list(changes.records)))
        return apply(writer, changes)

    monkeypatch.setattr(LmdbWriter, "apply", counted)
    record = node.issuer.record(b"\x01", node.now)  # one signature for all: none of them is looked at
    follower = await node.follower(limits=Limits(sample=10**9))
    await node.feed(*[node.heartbeat()] * (4 * READ_LIMIT))
    serials = [number.to_bytes(4, "big") for number in range(0x0100_0000, 0x0100_0000 + 40_000)]
    for start in range(0, len(serials), 1000):
        items = [(1, serial, record) for serial in serials[start : start + 1000]]
        await node.feed(FeedRow(BULK, "records", None, encode_batch(items)))
    await follower.step()
    assert sum(sizes) == len(serials)
    assert all(node.held(serial) is not None for serial in (serials[0], serials[-1]))
    assert max(sizes) <= OCTETS_AT_ONCE // len(record) + 1000
    heartbeats, jobs = 4, 40_000 * 150 // OCTETS_AT_ONCE + 1
    assert len(sizes) <= heartbeats + jobs + 2


async def test_a_row_above_the_limit_comes_by_itself(node: Node) -> None:
    """The limit ends a read behind a row, never before the first: a follower that read nothing would stand for ever."""
    record = node.issuer.record(b"\x01", node.now)
    follower = await node.follower(limits=Limits(sample=10**9))
    await follower.step()
    for start in (0x0100_0000, 0x0200_0000):
        items = [(1, (start + number).to_bytes(4, "big"), record) for number in range(OCTETS_AT_ONCE // 140)]
        await node.feed(FeedRow(BULK, "records", None, encode_batch(items)))
    assert await follower.step() == 2
    assert node.held((0x0200_0000).to_bytes(4, "big")) is not None
    assert await follower.step() == 0
