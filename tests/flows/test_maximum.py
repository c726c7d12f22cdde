"""A revocation is a maximum: whatever is late, twice, ahead, crashed or dropped between the components, it stays."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from quash.errors import QuashError
from quash.pki.reasons import Reason
from quash.runtime.clock import FakeClock
from quash.store import feed
from quash.store.database import Connection, acquire, set_codecs
from quash.store.roles import ADMIN, PRESIGNER
from responder.presign import tenure
from responder.presign.desk import SigningDesk
from responder.presign.feeder import SPAN
from tests.support.flows import DAY, HOUR, Key, Site, running
from tests.support.initialising import quick_config
from tests.support.issuing import make_csr
from tests.support.postgres import Database


@pytest.fixture
async def site(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Site]:
    """One issuer with two buckets, whose first CRLs are out."""
    config = quick_config(database.config, presign={"buckets": 2})
    async with running(database, tmp_path, clock, config) as made:
        await made.settle()
        yield made


async def issue(site: Site, key: ec.EllipticCurvePrivateKey | None = None) -> Key:
    return site.key(await site.issue(key=key))


class Writer:
    """An operator's transaction that revokes a key's certificates and stays open: one by itself, one more with it, and
    a job for the rest."""

    def __init__(self, conn: Connection, keys: list[Key]) -> None:
        self.keys = keys
        self._conn = conn
        self._transaction = conn.transaction()

    async def begin(self, site: Site) -> None:
        await self._transaction.start()
        revoked = await site.revoke(self.keys[0], Reason.keyCompromise, conn=self._conn)
        assert revoked.siblings_total == len(self.keys) - 1

    async def end(self, *, commit: bool) -> None:
        await (self._transaction.commit() if commit else self._transaction.rollback())


@pytest.mark.parametrize("seed", [1, 2])
async def test_writers_that_commit_out_of_order_lose_nothing(site: Site, seed: int) -> None:
    """Whoever commits when, and whichever component looks between: outbox, feed, jobs and CRLs miss no revocation.

    The first writer stays open until all others have ended, so that its rows have the lowest numbers and come last.
    """
    chance = random.Random(seed)
    waiting = []
    for _ in range(6):
        key = ec.generate_private_key(ec.SECP256R1())
        conn = await site.database.connection(ADMIN)
        await set_codecs(conn)
        waiting.append(Writer(conn, [await issue(site, key) for _ in range(3)]))
    writers = list(waiting)
    first = waiting.pop(0)
    committed: list[Writer] = []
    await first.begin(site)
    open_ones: list[Writer] = []
    looks = (site.presigner.step, site.node.step, site.builder.step, site.jobs.step)
    while waiting or open_ones:
        if waiting and (not open_ones or chance.random() < 0.5):
            open_ones.append(waiting.pop())
            await open_ones[-1].begin(site)
        else:
            ending = open_ones.pop(chance.randrange(len(open_ones)))
            commit = len(committed) < 3 or chance.random() < 0.7
            await ending.end(commit=commit)
            committed += [ending] * commit
        for look in chance.sample(looks, chance.randrange(len(looks) + 1)):
            await look()
        await site.clock.advance(chance.choice((0.0, 0.3, 1.3)))
    await site.settle()
    _assert_revoked(site, writers, committed)
    await first.end(commit=True)
    await site.settle()
    _assert_revoked(site, writers, [first, *committed])
    assert await site.fetch("select from job where state <> 'done'") == []


def _assert_revoked(site: Site, writers: list[Writer], committed: list[Writer]) -> None:
    """Exactly what is committed is revoked, in OCSP and CRL alike."""
    for writer in writers:
        for key in writer.keys:
            said = site.node.ask(key)
            if writer in committed:
                assert said.entry == site.listed(key)
                assert said.reason is Reason.keyCompromise
            else:
                assert said.word == "good"
                assert site.listed(key) is None


async def test_a_feed_that_is_committed_late_by_a_presigner_that_was_replaced(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A presigner that pauses before its commit, with its session gone and a successor waiting: nothing is skipped."""
    early, late = await issue(site), await issue(site)
    reached, go = asyncio.Event(), asyncio.Event()
    write = feed.write

    async def pause(conn: Connection, *arguments: Any, **more: Any) -> None:
        monkeypatch.setattr(feed, "write", write)
        async with conn.transaction():
            await write(conn, *arguments, **more)
            reached.set()
            await go.wait()

    monkeypatch.setattr(feed, "write", pause)
    await site.revoke(early)
    paused = asyncio.ensure_future(site.presigner.step())
    await reached.wait()
    executioner = await site.database.connection(PRESIGNER)
    await executioner.execute(
        f"select pg_terminate_backend(l.pid, 5000) from pg_locks l join pg_stat_activity a on a.pid = l.pid"
        f" where l.locktype = 'advisory' and a.usename = '{PRESIGNER}' and a.datname = current_database()"
    )
    await site.revoke(late)
    successor = await site.new_presigner()
    replacing = asyncio.ensure_future(successor.step())
    async with asyncio.timeout(30):
        while not replacing.done() and not await site.fetch(  # noqa: ASYNC110 - of another session
            "select from pg_stat_activity where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0"
        ):
            await asyncio.sleep(0.01)
    assert not replacing.done()  # the fence: it begins when the one before it has committed, or never will
    await site.node.step()
    assert [site.node.ask(key).word for key in (early, late)] == ["good", "good"]
    go.set()
    with contextlib.suppress(QuashError):
        await paused
    await replacing
    await site.node.step()
    assert [site.node.ask(key).word for key in (early, late)] == ["revoked", "revoked"]
    assert successor.leading


async def test_a_partition_drop_after_a_stale_pass_cannot_unrevoke(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh that read `good` before the revocation and was fed after it, into the next partition, lets the one with
    the revocation go no earlier than the next refresh does: at no time does a new node miss it."""
    keys = [await issue(site) for _ in range(6)]
    while len(await _buckets(site, keys)) < 2:
        keys.append(await issue(site))
    monkeypatch.setattr(tenure, "Pace", OneByOne)
    await site.presigner.close()  # begins anew, one record at a time
    await site.clock.advance(site.now // SPAN * SPAN + SPAN - site.now - 30 + 4 * SPAN)
    sign, revoked, signed = SigningDesk.sign, keys[:0], 0

    async def slow(desk: SigningDesk, *arguments: Any) -> Any:
        nonlocal signed
        signed += 1
        if signed == 1:  # the pass has read all statuses; each of them is revoked before it comes to their records
            for key in keys:
                await site.revoke(key)
                revoked.append(key)
        if signed == len(keys) + 2:  # the urgent records are out: the rest of the pass falls into the next partition
            await site.clock.advance(60)
        return await sign(desk, *arguments)

    monkeypatch.setattr(SigningDesk, "sign", slow)
    await site.spread()
    monkeypatch.setattr(SigningDesk, "sign", sign)
    assert signed > len(keys) + 2
    written = {
        row["lane"]: row["at"]
        for row in await site.fetch("select lane, max(written_at) as at from feed where kind = 'records' group by 1")
    }
    assert written[feed.BULK] // SPAN > written[feed.URGENT] // SPAN
    oldest = await _oldest_partition(site)
    for _ in range(14):
        await site.clock.advance(3 * HOUR)
        await site.spread()
        await _assert_a_new_node_says(site, {"revoked"}, keys)
    assert await _oldest_partition(site) > oldest
    assert await _oldest_partition(site) > written[feed.URGENT]


async def _buckets(site: Site, keys: list[Key]) -> set[int]:
    serials = [serial for _, serial in keys]
    return {row["bucket"] for row in await site.fetch("select bucket from certificate where serial = any($1)", serials)}


class OneByOne:
    """A pace of one record at a time."""

    size = 1

    def learn(self, count: int, seconds: float) -> None:
        """Learns nothing."""


async def _oldest_partition(site: Site) -> int:
    async with acquire(site.database.owner) as conn:
        return (await feed.partitions(conn))[0].starts_at


async def _assert_a_new_node_says(site: Site, words: set[str], keys: list[Key]) -> None:
    """A node with an empty cache that reads the whole feed."""
    node = await site.new_node()
    await node.step()
    assert {node.ask(key).word for key in keys} <= words


async def test_a_node_that_slept_through_it_all(site: Site) -> None:
    """While a key is away refreshes are late and no partition goes; nodes that start, or wake with a cache from before
    the revocation, then or after the drop, never say good."""
    key = await issue(site)
    for _ in range(2):
        await site.new_node()
    for node in site.nodes[1:]:
        await node.step()
        assert node.ask(key).word == "good"
        node.stop()
    _, early, late = site.nodes
    await site.revoke(key, Reason.keyCompromise)
    await site.spread()
    revoked_at = site.now
    partition = await _oldest_partition(site)
    (row,) = await site.fetch(
        "select s.key_ref from ocsp_signer s join issuer i on i.id = s.issuer_id where i.name = $1", key[0]
    )
    site.keys_away.add(row["key_ref"])
    for hour in range(5, 61, 5):
        await site.clock.advance(5 * HOUR)
        await site.spread()
        expected = "revoked" if hour < 48 else "try_later"
        assert site.node.ask(key).word == expected
        await _assert_a_new_node_says(site, {expected}, [key])
        if hour == 30:
            early.start()
            await early.step()
            assert early.ask(key).word == "revoked"
            early.stop()
    assert await _oldest_partition(site) == partition
    site.keys_away.clear()
    await site.clock.advance(HOUR)
    await site.spread()
    await site.clock.advance(HOUR)
    await site.spread()
    assert await _oldest_partition(site) > revoked_at
    late.start()
    await late.step()
    assert late.ask(key).word == "revoked"
    early.start()
    await early.step()
    assert site.node.ask(key) == late.ask(key) == early.ask(key)
    await _assert_a_new_node_says(site, {"revoked"}, [key])


async def test_a_presigner_that_runs_ahead_cannot_shadow_a_later_revocation(site: Site) -> None:
    """Within the tolerance its `good` is served, with a later thisUpdate than the revocation that then replaces it."""
    await site.presigner.close()
    await site.clock.advance(60)  # the signer's certificate began for the slow clock too
    order = await site.issuance.advance((await site.issuance.submit("operator:test", "tls-dv", make_csr())).id)
    assert order.serial is not None
    key = ("tls-dv", order.serial)
    fast = await site.new_presigner(FakeClock(site.clock.now() + 4))
    await fast.step()
    await site.node.step()
    good = site.node.ask(key)
    assert (good.word, good.this_update) == ("good", site.now + 4)
    await fast.close()
    await site.revoke(key, revoked_at=site.now - 60)
    slow = await site.new_presigner(FakeClock(site.clock.now() - 4))
    await slow.step()
    await site.node.step()
    revoked = site.node.ask(key)
    assert revoked.word == "revoked"
    assert revoked.this_update < good.this_update
    await slow.close()
    await site.settle()
    assert site.node.ask(key).entry == site.listed(key)


async def test_a_presigner_that_is_far_ahead_with_its_database_is_not_believed(site: Site) -> None:
    """A node takes nothing from the future, and when that time has come its `good` still loses to the revocation."""
    key = await issue(site)
    await site.presigner.close()
    ahead = 21 * HOUR
    mad = await site.new_presigner(FakeClock(site.clock.now() + ahead), database_ahead=ahead)
    assert await mad.step() > 0  # every bucket is due there
    await mad.close()
    before = site.node.ask(key)
    await site.node.step()
    assert site.node.ask(key) == before
    await site.revoke(key)
    await site.spread()
    revoked = site.node.ask(key)
    assert (revoked.word, revoked.this_update) == ("revoked", site.now)
    await _assert_a_new_node_says(site, {"revoked"}, [key])
    for _ in range(11):
        await site.clock.advance(2 * HOUR)
        await site.spread()
        assert site.node.ask(key).word == "revoked"
        await _assert_a_new_node_says(site, {"revoked"}, [key])
    assert site.listed(key) is None  # no CRL was made meanwhile
    await site.settle()
    assert site.node.ask(key).entry == site.listed(key)


class ProcessEndedError(Exception):
    """The issuing process ends here."""


async def _crashed_order(site: Site, point: str) -> Key:
    """The serial of an order whose process ended after a step of the recipe."""

    async def passed(step: str) -> None:
        if step == point:
            raise ProcessEndedError

    issuance = site.new_issuance(passed)
    order = await issuance.submit("operator:test", "tls-dv", make_csr())
    with pytest.raises(ProcessEndedError):
        await issuance.advance(order.id)
    (row,) = await site.fetch("select serial, state from certificate where order_id = $1", order.id)
    assert row["state"] == ("issued" if point == "commit" else "reserved")
    # A refresh comes by meanwhile, and vouches for nothing that was not signed.
    await site.database.owner.execute("update bucket set due_at = $1", site.now)
    await site.clock.advance(1)
    await site.spread()
    return "tls-dv", row["serial"]


async def _state(site: Site, key: Key) -> str:
    (row,) = await site.fetch("select state from certificate_order where serial = $1", key[1])
    return str(row["state"])


Do = Callable[[Site, Key], Awaitable[object]]


async def _revoke(site: Site, key: Key) -> None:
    await site.revoke(key, Reason.cessationOfOperation)


async def _compromise(site: Site, key: Key) -> None:
    await site.revoke(key, Reason.keyCompromise)


async def test_a_reserved_serial_is_answered_after_resume_and_revocable_before_and_after(site: Site) -> None:
    """Wherever issuing was interrupted: never good before it is signed, revocable at once, good once resumed unless it
    was revoked, and revoked for good from then on (A8)."""
    outcomes: list[tuple[Key, Reason | None, str]] = []
    plain: list[Key] = []
    for point, how in itertools.product(("reserve", "sign", "commit"), (None, _revoke, _compromise)):
        key = await _crashed_order(site, point)
        assert site.node.ask(key).word == ("good" if point == "commit" else "unauthorized")
        if how is None:
            plain.append(key)
            outcomes.append((key, None, "issued"))
            continue
        await how(site, key)
        await site.settle(issuing=False)
        said = site.node.ask(key)
        assert said.entry == site.listed(key)
        outcomes.append((key, said.reason, "refused"))  # it is never handed out
    await site.settle()  # the next issuing process goes on with all of them
    for key, reason, state in outcomes:
        said = site.node.ask(key)
        assert await _state(site, key) == state
        assert (said.word, said.reason) == ("good" if reason is None else "revoked", reason)
    for key in plain:
        await _revoke(site, key)
    await site.clock.advance(DAY)  # and a refresh later
    await site.settle()
    for key, reason, _ in outcomes:
        said = site.node.ask(key)
        assert (said.word, said.reason) == ("revoked", reason or Reason.cessationOfOperation)
        assert said.entry == site.listed(key)


async def test_a_reserved_serial_that_nobody_resumes_is_revoked_everywhere(site: Site) -> None:
    """Left for longer than `resume_seconds` its serial is given up: superseded, in OCSP and CRL alike."""
    keys = [await _crashed_order(site, point) for point in ("reserve", "sign")]
    await site.clock.advance(site.config.issuance.resume_seconds)
    assert all(site.node.ask(key).word != "good" for key in keys)
    await site.settle()
    for key in keys:
        said = site.node.ask(key)
        assert said.reason is Reason.superseded
        assert said.entry == site.listed(key)
        assert await _state(site, key) == "refused"
