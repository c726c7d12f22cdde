"""The outbox: no news is lost, by late commits nor by crashes, and urgent ones come first."""

from __future__ import annotations

from typing import Any

import pytest

from quash.cache import layout
from quash.store import buckets, feed, outbox, statuses
from responder.presign.desk import SigningDesk
from responder.presign.feeder import Feeder


class Crash(BaseException):
    """kill -9, as far as one process can feel it."""


async def test_a_late_commit_is_not_lost(world: Any) -> None:
    """News whose transaction began first and commits last, behind later news taken up already, is answered too."""
    authority = await world.authority()
    first, second = await world.issue(authority), await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    late = await world.database.connection()
    transaction = late.transaction()
    await transaction.start()
    await world.revoke_in(late, authority, first)
    await outbox.add_certificates(late, [(authority.id, first)])
    await world.revoke(authority, second)
    await presigner.step()
    assert (await world.cache())[authority.id, second].version == 1
    assert (await world.cache())[authority.id, first].version == 0
    await transaction.commit()
    await presigner.step()
    assert (await world.cache())[authority.id, first].version == 1


async def test_a_late_commit_survives_a_restart_and_pruning(world: Any) -> None:
    """A new process, minutes later, still finds news that committed late: neither position nor pruning passes them."""
    authority = await world.authority()
    serial = await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    late = await world.database.connection()
    transaction = late.transaction()
    await transaction.start()
    await world.revoke_in(late, authority, serial)
    await outbox.add_certificates(late, [(authority.id, serial)])
    await world.issue(authority)
    for _ in range(3):
        await world.clock.advance(61)
        await presigner.step()
    await presigner.close()
    await transaction.commit()
    await (await world.presigner()).step()
    assert (await world.cache())[authority.id, serial].version == 1


CRASHES = {
    "reading": (statuses, "with_certificates", "before"),
    "signing": (SigningDesk, "sign", "before"),
    "signed": (SigningDesk, "sign", "after"),
    "feeding": (feed, "write", "before"),
    "fed with its position": (feed, "write", "after"),
    "fed beside a bucket, not committed": (buckets, "mark_due", "after"),
    "committed": (Feeder, "write", "after"),
}
COMMITTED = {"fed with its position", "committed"}


@pytest.mark.parametrize("point", CRASHES)
@pytest.mark.parametrize("restart", [True, False], ids=["new process", "same process"])
async def test_a_crash_loses_nothing(world: Any, monkeypatch: pytest.MonkeyPatch, point: str, restart: bool) -> None:
    """After a crash at any point between claim and feed, the next tenure puts the revocation into the feed."""
    authority = await world.authority()
    serial = await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    await world.revoke(authority, serial)
    owner, name, when = CRASHES[point]
    if owner is buckets:  # then news need an open transaction
        async with world.database.owner.acquire() as conn:
            await outbox.add_buckets(conn, authority.id, [0], lane=outbox.URGENT)
    real = getattr(owner, name)

    async def crash(*arguments: Any, **named: Any) -> Any:
        if when == "after":
            await real(*arguments, **named)
        raise Crash

    monkeypatch.setattr(owner, name, crash)
    with pytest.raises(Crash):
        await presigner.step()
    monkeypatch.setattr(owner, name, real)
    fed = (await world.cache())[authority.id, serial].version
    assert fed == (1 if point in COMMITTED else 0)
    await (await world.presigner() if restart else presigner).step()
    assert (await world.cache())[authority.id, serial].version == 1


async def test_urgent_news_come_first(world: Any) -> None:
    """A revocation is fed before bulk news and due buckets that have waited longer."""
    authority = await world.authority()
    presigner = await world.presigner()
    await presigner.step()
    bulk = [await world.reserve(authority, lane=outbox.BULK) for _ in range(3)]
    for serial in bulk:
        await world.revoke(authority, serial, announce=False)
    urgent = await world.issue(authority)
    before = await world.database.owner.fetchval("select max(id) from feed")
    await world.clock.advance(24 * 3600)
    await presigner.step()
    rows = await world.database.owner.fetch(
        "select lane, payload from feed where kind = 'records' and id > $1 order by id", before
    )
    assert [serial for _, serial, _ in layout.decode_batch(rows[0]["payload"])] == [urgent]
    assert [row["lane"] for row in rows][:2] == [outbox.URGENT, outbox.BULK]
    assert {serial for _, serial, _ in layout.decode_batch(rows[1]["payload"])} == set(bulk)


async def test_a_batch_of_repetitions_is_signed_once(world: Any) -> None:
    """Several news of one certificate in one batch make one record."""
    authority = await world.authority()
    serial = await world.issue(authority)
    await world.revoke(authority, serial, 4)
    await world.revoke(authority, serial, 1)
    assert await (await world.presigner()).step() == 1 + 1  # from the outbox, and from the first pass of its bucket


async def test_the_outbox_is_pruned(world: Any) -> None:
    """What every reader has left behind goes within minutes, on both lanes."""
    authority = await world.authority()
    for _ in range(3):
        await world.issue(authority)
        await world.imported(authority, 1)
    presigner = await world.presigner()
    for _ in range(3):
        await presigner.step()
        await world.clock.advance(61)
    assert await world.database.owner.fetchval("select count(*) from outbox") == 0


async def test_a_new_issuer_is_taken_up_while_running(world: Any) -> None:
    """An issuer and its certificates that come while the presigner runs are announced and answered at once."""
    first = await world.authority()
    presigner = await world.presigner()
    await presigner.step()
    second = await world.authority("tls-ov")
    serials = await world.imported(second, 20)
    await world.clock.advance(1)
    await presigner.step()
    cache = await world.cache()
    assert {(second.id, serial) for serial in serials} <= set(cache)
    told = {layout.decode_issuer(payload).name for payload in await world.feed("issuer")}
    assert told == {first.name, second.name}
    assert {layout.decode_template(payload).issuer_id for payload in await world.feed("template")} == {
        first.id,
        second.id,
    }


async def test_heartbeats_come_each_second_and_only_then(world: Any) -> None:
    """One heartbeat a second, also without news (freshness of design section 5)."""
    await world.authority()
    presigner = await world.presigner()
    began = world.now
    for _ in range(10):
        await presigner.step()
        await world.clock.advance(0.5)
    beats = sorted(layout.decode_heartbeat(payload) for payload in await world.feed("heartbeat"))
    assert beats == [began + i for i in range(5)]


async def test_who_counts_bulk_news_need_not_wait_for_the_upkeep(world: Any) -> None:
    """A transaction that was open when they were taken up kept the position before them; then they lie behind it."""
    authority = await world.authority()
    serial = await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    late = await world.database.connection()
    transaction = late.transaction()
    await transaction.start()
    await late.execute("select pg_current_xact_id()")
    owner = await world.database.connection()
    await outbox.add_certificates(owner, [(authority.id, serial)], lane=outbox.BULK)
    unread = (
        "select count(*) from outbox where lane = 1 and tx >= (select position from reader_position"
        " where reader = 'presign-1')"
    )
    await world.clock.advance(0.5)
    await presigner.step()
    assert await owner.fetchval(unread) == 1
    await transaction.commit()
    await world.clock.advance(0.5)
    await presigner.step()
    assert await owner.fetchval(unread) == 0
