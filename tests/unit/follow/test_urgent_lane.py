"""Lanes at the last stage: behind a backlog, what is urgent is seen at once, and nothing is claimed that is not so."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from quash.cache import layout
from quash.cache.layout import encode_batch
from quash.cache.writer import Catalog, Changes, LmdbWriter
from quash.errors import QuashError
from quash.store import feed
from quash.store.database import Connection
from quash.store.feed import BULK, URGENT, FeedRow
from quash.store.news import Batch, Mark, Position
from quash.store.roles import FOLLOWER
from responder.follow import follower as follower_module
from responder.follow import trust as trust_module
from responder.follow.follower import OCTETS_AT_ONCE, READ_LIMIT
from responder.follow.trust import Limits, Trust
from responder.follow.urgent_lane import UrgentLane
from tests.support.feeding import append
from tests.support.ocsp_issuer import OcspIssuer
from tests.unit.follow.conftest import Node, drop_oldest, next_partition, rebuilt, refused

S, T, U = b"\x01", b"\x02", b"\x03"
ROWS = 50_000
UNVERIFIED = Limits(sample=10**9)  # rows of a backlog share one signature


class Killed(Exception):  # noqa: N818 (not an error: what kill -9 does, where it is told to)
    """The process is gone."""


class Watched(LmdbWriter):
    """Counts the feed reader's commits and records, and is killed right before one, when it is told to."""

    commits = records = 0
    kill: Callable[[], bool] = staticmethod(lambda: False)

    def apply(self, changes: Changes) -> int:
        if self.kill():
            raise Killed
        applied = super().apply(changes)
        self.commits += changes.position is not None
        self.records += len(list(changes.records)) if changes.position is not None else 0
        return applied


def watched(node: Node) -> Watched:
    """The node's cache file, opened again."""
    node.writer.environment.close()
    node.writer = writer = Watched(node.folder, map_size=1 << 28)
    return writer


def revoked(node: Node, serial: bytes, at: int) -> bool:
    held = node.held(serial)
    return held is not None and held.revoked_at == at


async def backlog(node: Node, rows: int = ROWS) -> None:
    """Rows of a refresh, one record each."""
    record = node.issuer.record(S, node.now)
    for start in range(0, rows, 10_000):
        numbers = range(start, min(rows, start + 10_000))
        items = [encode_batch([(1, (0x0100_0000 + number).to_bytes(4, "big"), record)]) for number in numbers]
        await node.feed(*(FeedRow(BULK, "records", None, item) for item in items))


def at_look(monkeypatch: pytest.MonkeyPatch, which: int, do: Callable[[], Awaitable[None]]) -> None:
    """Has something happen right after the follower's look ahead of this number."""
    looks = 0

    class Looking(UrgentLane):
        async def read(self, conn: Connection, limit: int) -> Batch | None:
            nonlocal looks
            batch = await super().read(conn, limit)
            looks += 1
            if looks == which:
                await do()
            return batch

    monkeypatch.setattr(follower_module, "UrgentLane", Looking)


async def test_a_revocation_overtakes_fifty_thousand_rows(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is there already waits for one read; one that comes meanwhile for two. Killed after each: the position
    and the heartbeat say what was read in order, and the rest comes all the same."""
    await backlog(node)
    revocation = node.records((T, node.issuer.record(T, node.now, revoked=(1, node.now - 5))))
    await node.feed(revocation, node.heartbeat())
    writer = watched(node)
    writer.kill = lambda: revoked(node, T, node.now - 5)
    with pytest.raises(Killed):
        await (await node.follower(limits=UNVERIFIED)).step()
    assert (writer.commits, writer.records) == (1, READ_LIMIT - 2)  # with the announcement
    assert (writer.heartbeat(), writer.complete()) == (None, False)

    late = node.records((U, node.issuer.record(U, node.now, revoked=(1, node.now - 9))))
    at_look(monkeypatch, 20, lambda: node.feed(late))
    writer = watched(node)
    writer.kill = lambda: revoked(node, U, node.now - 9)
    follower = await node.follower(limits=UNVERIFIED)
    assert not follower.at_head
    with pytest.raises(Killed):
        await follower.step()
    assert writer.commits == 21
    assert (writer.heartbeat(), writer.complete()) == (None, False)

    writer = watched(node)
    follower = await node.follower(limits=UNVERIFIED)
    await follower.step()
    assert follower.at_head
    assert writer.heartbeat() == node.now
    assert writer.size().used > 100 * ROWS
    assert revoked(node, T, node.now - 5)
    assert revoked(node, U, node.now - 9)
    assert await follower.step() == 0


async def test_only_the_first_look_passes_over_the_backlog(node: Node) -> None:
    """Urgent rows have no index of their own, which bulk work would pay for: what lay there once is not looked at
    again, by any plan that the database may have made meanwhile."""
    rows = 5_000
    await backlog(node, rows)
    await node.database.owner.execute("analyze feed")
    conn = await node.database.connection(FOLLOWER)
    lane = UrgentLane(Position(), Trust(Catalog(), Limits()))
    passed: list[int] = []
    counted = (
        "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) from pg_stat_user_tables where relname like 'feed\\_1%'"
    )
    for look in range(8):  # a plan for these values five times, then one for all
        before = await node.database.owner.fetchval(counted)
        batch = await lane.read(conn, READ_LIMIT)
        assert batch is not None
        assert [row["kind"] for row in batch.rows] == (["records"] if look else ["issuer", "template"])
        lane.accept(batch)
        await conn.execute("select pg_stat_force_next_flush()")
        passed.append(int(await node.database.owner.fetchval(counted) - before))
        await node.feed(node.records((T, node.issuer.record(T, node.now))))
    assert rows < passed[0] < 2 * rows
    assert max(passed[1:]) < 20


async def test_a_node_behind_a_backlog_is_as_stale_as_that(node: Node) -> None:
    """Heartbeats overtake nothing: behind the backlog's end there may be revocations in it that are not read yet."""
    old = node.now - 300
    await node.feed(node.heartbeat(old))
    await backlog(node, 3 * READ_LIMIT)
    await node.feed(node.records((T, node.issuer.record(T, node.now))), node.heartbeat())
    writer = watched(node)
    said: list[tuple[int | None, bool]] = []

    def heard() -> bool:
        said.append((writer.heartbeat(), node.held(T) is not None))
        return False

    writer.kill = heard
    await (await node.follower(limits=UNVERIFIED)).step()
    assert said == [(None, False), (old, False), (old, True), (old, True), (old, True)]
    assert writer.heartbeat() == node.now


async def test_the_backlog_brings_nothing_back(node: Node) -> None:
    """A revocation that overtook what was said of its certificate before, urgent or not, stays."""
    good = [node.issuer.record(T, node.now - 60 + second) for second in range(3)]
    await node.feed(node.records((T, good[0])))
    await backlog(node, READ_LIMIT)
    await node.feed(node.records((T, good[1]), lane=BULK))
    await node.feed(node.records((T, good[2])))
    await backlog(node, READ_LIMIT)
    await node.feed(node.records((T, node.issuer.record(T, node.now, revoked=(1, node.now - 5)))))
    writer = watched(node)
    seen: list[bool] = []

    def looked() -> bool:
        seen.append(revoked(node, T, node.now - 5))
        return False

    writer.kill = looked
    await (await node.follower(limits=UNVERIFIED)).step()
    assert seen == [False, False, True, True]
    assert revoked(node, T, node.now - 5)


async def test_a_rebuild_leaves_out_nothing_that_had_overtaken(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition is dropped under a node that reads it: the new file is filled with what lay ahead as well."""
    await backlog(node, 100)
    await next_partition(node)
    await node.feed(node.records((T, node.issuer.record(T, node.now))), node.heartbeat())
    writer = watched(node)

    async def drop() -> None:
        assert node.held(T) is not None
        await drop_oldest(node)

    at_look(monkeypatch, 3, drop)
    before = rebuilt("outdated")
    follower = await node.follower(limits=UNVERIFIED, read_limit=10)
    await follower.step()
    assert rebuilt("outdated") == before + 1
    assert writer.commits < 10
    assert follower.at_head
    assert node.held(T) is not None
    assert node.held((0x0100_0000).to_bytes(4, "big")) is None


async def test_what_commits_after_the_last_look_is_not_left_out(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its transaction is the first that was not over when the lane looked, and its row the last one of the feed."""
    await backlog(node, 8)
    late = await node.database.connection()
    transaction = late.transaction()
    await transaction.start()
    await append(late, [node.records((T, node.issuer.record(T, node.now)))], node.now)
    at_look(monkeypatch, 1, transaction.commit)
    writer = watched(node)
    follower = await node.follower(limits=UNVERIFIED, read_limit=10)  # all but the late row
    assert await follower.step() == 11
    assert writer.commits == 2
    assert node.held(T) is not None


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The serials whose signatures were looked at."""
    serials: list[bytes] = []
    verify = trust_module._verify

    def counted(signer: Any, item: Any, record: Any) -> None:
        serials.append(item[1])
        verify(signer, item, record)

    monkeypatch.setattr(trust_module, "_verify", counted)
    return iter([serials])


async def test_what_overtook_is_judged_once(node: Node, verified: Iterator[list[bytes]]) -> None:
    """Verifying is what costs. What is refused is told once too, though its row comes again in its turn."""
    serials = next(verified)
    await backlog(node, READ_LIMIT)
    spoilt = node.issuer.record(U, node.now, spoil=True)
    await node.feed(node.records((T, node.issuer.record(T, node.now)), (U, spoilt)))
    await backlog(node, READ_LIMIT)
    before = refused("signature")
    await (await node.follower(limits=UNVERIFIED)).step()
    assert sorted(serials) == [T, U]
    assert refused("signature") == before + 1
    assert node.held(T) is not None
    assert node.held(U) is None


async def test_issuers_and_signers_come_along(node: Node) -> None:
    """A revocation by a signer that is new, of an issuer that is new, is served before the backlog is read.

    A known issuer's change waits for its turn: by its new validity older answers in the backlog would be refused.
    """
    other = OcspIssuer(issuer_id=2, name="other", signer_id=2)
    shorter = replace(node.issuer.row, max_validity=3600)
    await backlog(node, 2 * READ_LIMIT)
    await node.feed(
        FeedRow(URGENT, "issuer", 1, layout.encode_issuer(shorter)),
        FeedRow(URGENT, "issuer", 2, layout.encode_issuer(other.row)),
        FeedRow(URGENT, "template", 2, layout.encode_template(other.template_row)),
    )
    revocation = other.record(T, node.now, revoked=(1, node.now - 5), validity=3599)
    await node.feed(FeedRow(URGENT, "records", None, encode_batch([(2, T, revocation)])))
    writer = watched(node)
    writer.kill = lambda: writer.commits == 1 and 2 in writer.catalog().issuers
    before = refused("validity"), refused("unknown_signer")
    with pytest.raises(Killed):
        await (await node.follower(limits=UNVERIFIED)).step()
    with writer.environment.env.begin() as txn:
        assert txn.get(layout.record_key(2, T), db=writer.environment.records) == revocation
    catalog = writer.catalog()
    assert catalog.issuers[1] == node.issuer.row
    assert set(catalog.templates) == {1, 2}
    writer = watched(node)
    follower = await node.follower(limits=UNVERIFIED)
    await follower.step()
    assert node.held((0x0100_0000 + 2 * READ_LIMIT - 1).to_bytes(4, "big")) is not None
    assert writer.catalog().issuers[1] == shorter
    assert (refused("validity"), refused("unknown_signer")) == before


async def test_what_is_not_understood_holds_the_lane_up_and_not_the_backlog(node: Node) -> None:
    """The node stands still at a row of a later release, not before it, and passes nothing over."""
    await backlog(node, 2 * READ_LIMIT)
    await node.feed(node.records((T, node.issuer.record(T, node.now))))
    await node.feed(FeedRow(URGENT, "records", None, b"\x03of a later release"))
    await node.feed(node.records((U, node.issuer.record(U, node.now))), node.heartbeat())
    follower = await node.follower(limits=UNVERIFIED)
    for _ in range(2):
        with pytest.raises(QuashError, match=r"cache\.newer_format"):
            await follower.step()
    assert node.held((0x0100_0000 + 2 * READ_LIMIT - 3).to_bytes(4, "big")) is not None
    assert node.held(U) is None
    assert node.writer.heartbeat() is None
    await node.database.owner.execute("delete from feed where payload = $1", b"\x03of a later release")  # understood
    await follower.step()
    assert node.held(T) is not None
    assert node.held(U) is not None
    assert node.writer.heartbeat() == node.now


@pytest.mark.parametrize(
    ("history", "tx", "mark"),
    [
        (r"1\g<0>", 0, None),  # another system
        (r"\g<0>7", 0, None),  # another timeline
        (r"\g<0>", 1000, None),  # restored from a copy of its disk
        (r"\g<0>", 0, Mark(3, 1, 1)),  # and has passed our position since
    ],
)
async def test_of_another_database_nothing_is_read_ahead(node: Node, history: str, tx: int, mark: Mark | None) -> None:
    """The lane keeps off, and leaves it to the feed's reader to begin anew; that one leaves nothing out then."""
    await node.feed(node.records((T, node.issuer.record(T, node.now))))
    reader = feed.news_reader("test", heaviest=OCTETS_AT_ONCE)
    conn = await node.database.connection(FOLLOWER)
    batch = await reader.read(conn)
    here = batch.position
    there = Position(re.sub(r"^.+$", history, here.history), here.tx + tx, mark or here.mark)
    trust = Trust(Catalog(), Limits())
    lane = UrgentLane(there, trust)
    assert await lane.read(conn, 10) is None
    assert not any(lane.has(row) for row in batch.rows)
    lane = UrgentLane(Position(here.history, 0), trust)
    ahead = await lane.read(conn, 10)
    assert ahead is not None
    assert [row["kind"] for row in ahead.rows] == ["issuer", "template", "records"]
    lane.accept(ahead)
    assert [lane.has(row) for row in batch.rows] == [False, False, True]
