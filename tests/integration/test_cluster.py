"""More than one machine: two presigners, two nodes, a primary and its synchronous standby, and the line between cut."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from quash.errors import QuashError
from quash.keys import KeyHandle
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.store.database import connect
from quash.store.news import Position
from quash.store.roles import FOLLOWER, OWNER
from responder.serve.freshness import Freshness
from responder.serve.worker import FRESHNESS
from tests.support.flows import Key, Node, Said, Site, running
from tests.support.initialising import quick_config
from tests.support.postgres import Database
from tests.support.replicas import Pair, a_pair, network_namespaces

FRESH = 10  # seconds, the freshness limit of both nodes
UNKNOWN: Key = ("tls-dv", b"\x01" * 16)
_WITHIN = 30.0  # seconds, for what takes a moment
# The session that holds the lease; one that stands by has a lock as well, which it shares.
_END_HOLDER = """
select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where usename = 'quash_presigner'
and pid in (select pid from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock')
"""


class Machines:
    """A site on a pair of servers: `site` uses whichever takes writes, its second node the standby alone."""

    def __init__(self, pair: Pair, site: Site, far: Node) -> None:
        self.pair, self.site, self.far = pair, site, far
        self.near = site.node

    @property
    def clock(self) -> FakeClock:
        return self.site.clock

    async def spread(self) -> None:
        """What is committed, a heartbeat of this second too, reaches both nodes."""
        await self.clock.advance(1)
        await self.site.spread()
        await self.pair.caught_up()
        await self.far.step()

    def ask(self, key: Key) -> tuple[Said, Said]:
        return self.near.ask(key), self.far.ask(key)

    def words(self, key: Key) -> set[str]:
        return {said.word for said in self.ask(key)}


@pytest.fixture(params=["anywhere", pytest.param("loopback", marks=pytest.mark.long)])
async def machines(server_folder: Path, clock: FakeClock, request: Any) -> AsyncIterator[Machines]:
    async with a_pair(server_folder, loopback=request.param == "loopback") as pair:
        config = Config.model_validate({"database": {"url": pair.primary.url(pair.standby)}})
        database = Database(config, pair.primary.state, await connect(config, pair.primary.state, OWNER))
        wanted = quick_config(config, presign={"buckets": 2}, responder={"fresh_seconds": FRESH})
        try:
            async with running(database, pair.primary.state.root, clock, wanted) as site:
                reading = Config.model_validate({"database": {"url": pair.standby.url()}})
                pool = await connect(reading, pair.primary.state, FOLLOWER)
                folder = site.state.root / "far"
                folder.mkdir()
                far = Node(site, pool, folder)
                site.nodes.append(far)
                yield Machines(pair, site, far)
                pool.terminate()
        finally:
            await database.close()
    assert list(network_namespaces()) == []


async def test_a_failover_loses_no_acknowledged_revocation(machines: Machines) -> None:
    """The whole story once, in the order in which it would happen."""
    site, pair = machines.site, machines.pair
    first, second, third = [site.key(await issued(machines)) for _ in range(3)]
    assert machines.words(first) == {"good"}
    await site.revoke(first)
    await machines.spread()
    assert machines.words(first) == {"revoked"}

    # The presigner that leads dies with a batch that is signed and not yet fed.
    in_flight = await a_presigner_dies_in_a_batch(
        machines, *[site.key(await issued(machines, standby=False)) for _ in range(2)]
    )

    # The line is cut: nothing is acknowledged, and the far node gets stale and says so.
    pair.link.cut()
    revoking = asyncio.create_task(site.revoke(second))
    await asyncio.sleep(1)
    assert not revoking.done(), "acknowledged, and one machine alone has it"
    await machines.clock.advance(FRESH + 2)
    await machines.far.step()
    assert machines.far.ask(third).word == "good"
    assert machines.far.ask(first).word == "revoked"
    assert machines.far.ask(UNKNOWN).word == "try_later"
    # What /readyz says and the metric: stale, not unready, for answers are still better than none.
    assert machines.far.health.report() == {"ready": True, "checks": {"cache": {"ok": True, "detail": "stale"}}}
    assert [each for each in Freshness if FRESHNESS.labels(each.label)._value.get()] == [Freshness.STALE]

    # It comes back, and catches up: the waiting acknowledgement too, and nothing is skipped.
    pair.link.mend()
    await asyncio.wait_for(revoking, 60)
    await machines.spread()
    assert machines.words(second) == {"revoked"}
    assert machines.words(third) == {"good"}
    assert machines.words(UNKNOWN) == {"unauthorized"}

    # The primary dies with an acknowledged revocation that no signer has seen. The standby is promoted.
    await site.revoke(third)
    nodes = machines.near, machines.far
    before = [(history(node), node.taken_up) for node in nodes]
    pair.primary.kill()
    await pair.alone()
    await until_spread(machines)
    # A position names system and timeline; with another timeline all that the feed keeps was read again.
    ((rows,),) = await site.fetch("select count(*) from feed")
    for ((system, timeline), taken_up), node in zip(before, nodes, strict=True):
        assert history(node) == (system, timeline + 1)
        assert node.taken_up - taken_up >= rows
    assert machines.words(third) == {"revoked"}
    for key in (first, second, *in_flight):
        assert machines.words(key) == {"revoked"}
    fresh = site.key(await issued(machines, standby=False))
    await site.revoke(fresh)
    await until_spread(machines)
    assert machines.words(fresh) == {"revoked"}
    await site.settle()
    assert {key for key in (first, second, third, fresh, *in_flight) if site.listed(key) is None} == set()


async def a_presigner_dies_in_a_batch(machines: Machines, *keys: Key) -> list[Key]:
    """Its session ends with it; the other one signs the same news, and what the dead one had signed is never fed.

    Revokes `keys`, and a certificate of its own whose `good` is signed and not yet fed by then; returns all of them.
    """
    site, gate = machines.site, Gate()
    await site.presigner.close()
    dying, other = await site.new_presigner(through=gate.key), site.presigner
    await dying.step()
    assert await other.step() == 0
    assert (dying.leading, other.leading) == (True, False)

    gate.shut()
    for key in keys:
        await site.revoke(key)
    order = await site.issuance.advance((await site.order("tls-dv")).id)
    assert order.serial is not None
    born: Key = ("tls-dv", order.serial)
    stepping = asyncio.create_task(dying.step())
    await gate.signed()
    # What the kernel does to the sessions of a process that is killed. The rest of it goes on, as after a long pause.
    assert await machines.pair.primary.admin(_END_HOLDER) == 1
    await site.revoke(born)
    await machines.clock.advance(1)
    taken_over = site.now
    async with asyncio.timeout(20):
        while not other.leading:
            await other.step()
    await machines.spread()
    revoked = [*keys, born]
    for said in (said for key in revoked for said in machines.ask(key)):
        assert said.word == "revoked"
        assert said.this_update >= taken_over, "not by the one that took over"

    written = await everything_written(site)
    assert not stepping.done()
    gate.open()
    with pytest.raises(QuashError, match=r"lease\.lost"):
        await stepping
    assert await everything_written(site) == written
    assert await dying.step() == 0
    assert (dying.leading, other.leading) == (False, True)
    await machines.spread()
    for key in revoked:
        assert machines.words(key) == {"revoked"}
    return revoked


class Gate:
    """Stands behind keys that sign: while it is shut, what they signed is not handed out."""

    def __init__(self) -> None:
        self._open, self._signed = threading.Event(), threading.Event()
        self._open.set()

    def key(self, key: KeyHandle) -> KeyHandle:
        return _KeyBefore(self, key)

    def shut(self) -> None:
        self._open.clear()
        self._signed.clear()

    def open(self) -> None:
        self._open.set()

    async def signed(self) -> None:
        """Waits until something stands before it."""
        assert await asyncio.to_thread(self._signed.wait, _WITHIN), "nothing was signed"

    def pass_through(self, signatures: list[bytes]) -> list[bytes]:
        self._signed.set()
        assert self._open.wait(_WITHIN), "nobody opened the gate"
        return signatures


class _KeyBefore:
    """Not quick, so that its thread stands before the gate and not the event loop."""

    quick = False

    def __init__(self, gate: Gate, key: KeyHandle) -> None:
        self.spki, self.algorithm = key.spki, key.algorithm
        self.sign, self.check, self.close = key.sign, key.check, key.close
        self._gate, self._key = gate, key

    def sign_many(self, many: Sequence[bytes]) -> list[bytes]:
        return self._gate.pass_through(self._key.sign_many(many))


async def everything_written(site: Site) -> list[Any]:
    """By presigners: the feed, how far they took the outbox up, and what they know as proven."""
    return [
        [tuple(row) for row in await site.fetch(f"select * from {table} order by 1, 2")]
        for table in ("feed", "reader_position", "proven_certificate")
    ]


def history(node: Node) -> tuple[str, int]:
    """System and timeline of the position that is kept beside the records."""
    kept = node._writer.position()
    assert kept is not None
    system, _, timeline = Position.decode(kept).history.partition("/")
    return system, int(timeline)


async def issued(machines: Machines, *, standby: bool = True) -> x509.Certificate:
    certificate = await machines.site.issue()
    if standby:
        await machines.spread()
    return certificate


async def until_spread(machines: Machines) -> None:
    """Every process finds the new primary by itself: each fails with `store.unavailable` until it did."""
    async with asyncio.timeout(60):
        while True:
            try:
                await machines.clock.advance(1)
                await machines.site.spread()
                await machines.far.step()
            except QuashError as error:
                if error.code not in ("store.unavailable", "lease.lost"):
                    raise
                await asyncio.sleep(0.1)
            else:
                return
