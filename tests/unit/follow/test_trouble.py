"""A node's own troubles: a disk that fills up, a cache that is damaged inside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest

from quash.cache import environment as files
from quash.cache import layout
from quash.cache.environment import HEARTBEAT_KEY, POSITION_KEY
from quash.cache.fsck import check_structure
from quash.cache.writer import Changes, LmdbWriter
from quash.errors import Kind, QuashError
from quash.runtime.process import Process
from quash.store.news import Mark, Position
from responder.follow.follower import Follower
from responder.follow.main import main
from responder.follow.trust import Limits
from tests.support.small_disk import grow
from tests.support.small_disk import small_disk as small_disk_at
from tests.unit.follow.conftest import BULK, Node, rebuilt

S, T = b"\x01", b"\x02"


def make_room(disk: Path) -> None:
    grow(disk, "8m")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for little more than an empty cache."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk_at(folder, "600k"):
        yield folder


async def test_real_disk_full(node: Node, small_disk: Path) -> None:
    """LMDB reports a short write as an input/output error: the cache stays, goes on once there is room."""
    node.writer.environment.close()
    node.writer = LmdbWriter(small_disk, map_size=1 << 28)
    follower = await node.follower(limits=Limits(sample=10**9))
    await node.feed(node.records((S, node.issuer.record(S, node.now, revoked=(1, node.now)))), node.heartbeat())
    await follower.step()
    before = rebuilt("damaged")
    data = node.issuer.record(T, node.now)  # signed for one serial: no sample is taken
    for n in range(40):
        many = [(bytes([1, n, *divmod(each, 256)]), data) for each in range(100)]
        await node.feed(node.records(*many, lane=BULK), node.heartbeat())
    with pytest.raises(QuashError) as raised:
        await follower.step()
    assert (raised.value.code, raised.value.kind) == ("cache.full", Kind.UNAVAILABLE)
    for _ in range(3):
        with pytest.raises(QuashError, match=r"cache\.full"):
            await follower.step()
    held = node.held(S)
    assert held is not None
    assert held.reason == 1
    assert rebuilt("damaged") == before

    node.writer.environment.close()
    with contextlib.suppress(QuashError):  # perhaps there is no room for a new mark
        node.writer = LmdbWriter(small_disk, map_size=1 << 28)
        assert not node.writer.rebuilt
    node.writer.environment.close()
    assert check_structure(small_disk) == ""

    make_room(small_disk)
    node.writer = LmdbWriter(small_disk, map_size=1 << 28)
    assert not node.writer.rebuilt
    follower = await node.follower(limits=Limits(sample=10**9))
    await follower.step()
    assert node.held(many[-1][0]) is not None
    assert node.held(S) == held


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (lmdb.DiskError("mdb_put: No space left on device"), "cache.full", Kind.UNAVAILABLE),
        (lmdb.Error("mdb_txn_commit: Input/output error"), "cache.full", Kind.UNAVAILABLE),
        (lmdb.MemoryError("mdb_put: Cannot allocate memory"), "cache.unavailable", Kind.UNAVAILABLE),
        (lmdb.ReadersFullError("mdb_txn_begin"), "cache.unavailable", Kind.UNAVAILABLE),
        (lmdb.PanicError("mdb_txn_begin"), "cache.given_up", Kind.INTERNAL),
        (lmdb.CorruptedError("mdb_get"), "cache.damaged", Kind.INTERNAL),
    ],
)
def test_only_damage_has_the_file_deleted(error: lmdb.Error, code: str, kind: Kind) -> None:
    """What the system refuses is tried again; what LMDB says of the file itself deletes it."""
    failure = files.failure(Path("cache"), error)
    assert (failure.code, failure.kind) == (code, kind)


def garble(node: Node, what: str) -> None:
    """Writes what nobody's encoder wrote into a sound LMDB file."""
    env = node.writer.environment
    with env.env.begin(write=True) as txn:
        if what == "record":
            key = layout.record_key(1, S)
            txn.put(key, txn.get(key, db=env.records)[:-1], db=env.records)
        elif what == "heartbeat":
            txn.put(HEARTBEAT_KEY, b"", db=env.meta)
        elif what == "position":
            txn.put(POSITION_KEY, b"\xff", db=env.meta)
        elif what == "issuer":
            txn.put(files.id_key(1), b"\x01", db=env.issuers)


@pytest.mark.parametrize(
    ("what", "restarted"),
    [(what, True) for what in ("record", "heartbeat", "position", "issuer")]
    + [("record", False), ("heartbeat", False)],
)
async def test_a_malformed_entry_has_the_cache_built_again(node: Node, what: str, restarted: bool) -> None:
    """It is damage like any other, found while running or at the next start, and does not end the follower."""
    await node.feed(node.records((S, node.issuer.record(S, node.now))), node.heartbeat())
    follower = await node.follower()
    await follower.step()
    garble(node, what)
    before = rebuilt("damaged")
    if restarted:
        node.writer.close()
        node.writer = LmdbWriter(node.folder, map_size=1 << 28)
        follower = await node.follower()
    for _ in range(2):
        await node.clock.advance(2)
        await node.feed(node.heartbeat())
        await follower.step()
    assert rebuilt("damaged") == before + 1
    assert follower.at_head
    assert node.held(S) is not None


async def test_the_check_at_the_start_sees_a_malformed_record(node: Node) -> None:
    """Of a follower that ended out of order, the whole of each record's outside is looked at."""
    await node.feed(node.records((S, node.issuer.record(S, node.now))))
    await (await node.follower()).step()
    garble(node, "record")
    node.writer.environment.close()
    assert "wrong length" in check_structure(node.folder)


async def test_cold_restore(node: Node) -> None:
    """A copy of the database's disk was put back while the node was off, and has passed the node's position: what was
    written below it is read, and what the node had is kept."""
    lost = node.issuer.record(T, node.now, revoked=(1, node.now))
    await node.feed(node.heartbeat())
    await (await node.follower()).step()
    kept = node.writer.position()
    assert kept is not None
    position = Position.decode(kept)
    assert position.mark is not None
    # As if the days that were lost had run 200 transactions further than the copy.
    further = Mark(position.mark.tx + 200, position.mark.id + 200, position.mark.stamp + 200)
    ahead = replace(position, tx=position.tx + 200, mark=further)
    node.writer.apply(Changes(position=ahead.encode(), records=[(1, T, lost)]))
    await node.feed(node.records((S, node.issuer.record(S, node.now, revoked=(1, node.now)))))
    async with node.database.owner.acquire() as conn:
        for _ in range(400):
            await conn.execute("select pg_current_xact_id()")
    await node.feed(node.heartbeat())
    follower = await node.follower()
    await follower.step()
    assert node.held(S) is not None
    assert node.held(T) is not None
    assert node.writer.heartbeat() == node.now
    assert await follower.step() == 0
    assert await (await node.follower()).step() == 0, "its mark is this server's again"


async def test_a_follower_that_ends_in_an_error_leaves_a_file_that_is_read_through_first(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what the error meant for the file; one that is told to stop leaves a file that is trusted."""

    async def given_up(_: object) -> int:
        raise QuashError("cache.given_up", "LMDB", Kind.INTERNAL)

    monkeypatch.setattr(Follower, "step", given_up)
    process = Process("follower", node.database.config, node.database.state, clock=node.clock)
    try:
        with pytest.raises(QuashError, match=r"cache\.given_up"):
            await main(process)
        assert not files.closed_in_order(process.state.cache)
    finally:
        files.delete(process.state.cache)
