"""More than one machine: two presigners, two nodes, a primary and its synchronous standby, and the line between cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from quash.errors import QuashError
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.store.database import connect
from quash.store.leases import Lease
from quash.store.news import Position
from quash.store.roles import FOLLOWER, OWNER
from tests.support.flows import Key, Node, Said, Site, running
from tests.support.initialising import quick_config
from tests.support.postgres import Database
from tests.support.replicas import Pair, a_pair, network_namespaces

FRESH = 10  # seconds, the freshness limit of both nodes
UNKNOWN: Key = ("tls-dv", b"\x01" * 16)


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
    assert machines.far.health.ready, "stale, not unready: answers are still better than none"

    # It comes back, and catches up: the waiting acknowledgement too, and nothing is skipped.
    pair.link.mend()
    await asyncio.wait_for(revoking, 60)
    await machines.spread()
    assert machines.words(second) == {"revoked"}
    assert machines.words(third) == {"good"}
    assert machines.words(UNKNOWN) == {"unauthorized"}

    # The primary dies with an acknowledged revocation that no signer has seen. The standby is promoted.
    await site.revoke(third)
    before = [history(node) for node in (machines.near, machines.far)]
    pair.primary.kill()
    await pair.alone()
    await until_spread(machines)
    # A position names system and timeline; with another timeline all that the feed keeps was read again.
    for was, node in zip(before, (machines.near, machines.far), strict=True):
        assert history(node) == (was[0], was[1] + 1)
    assert machines.words(third) == {"revoked"}
    assert machines.words(first) == machines.words(second) == {"revoked"}
    fresh = site.key(await issued(machines, standby=False))
    await site.revoke(fresh)
    await until_spread(machines)
    assert machines.words(fresh) == {"revoked"}
    await site.settle()
    assert {key for key in (first, second, third, fresh) if site.listed(key) is None} == set()


@pytest.mark.long
async def test_a_presigner_that_dies_in_a_batch_passes_its_lease_on(machines: Machines) -> None:
    """Its session ends with it; the other one begins from what is committed, and the dead one's batch never commits."""
    site, pair = machines.site, machines.pair
    key = site.key(await issued(machines))
    other = await site.new_presigner()
    assert await other.step() == 0
    assert site.presigner.leading
    assert not other.leading
    dead = site.presigner.vouches
    assert dead is not None
    await site.revoke(key)
    # What the kernel does to the sessions of a process that is killed; its batch was read, and not yet fed.
    ended = await pair.primary.admin(
        "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where usename = 'quash_presigner'"
        " and pid in (select pid from pg_locks where locktype = 'advisory')"
    )
    assert ended == 1
    async with asyncio.timeout(20):
        while not other.leading:
            await other.step()
    with pytest.raises(QuashError, match=r"lease\.lost"):
        await checked(site, dead[1])
    await machines.clock.advance(1)
    await other.step()
    await pair.caught_up()
    for node in (machines.near, machines.far):
        await node.step()
    assert machines.words(key) == {"revoked"}


def history(node: Node) -> tuple[str, int]:
    """System and timeline of the position that is kept beside the records."""
    kept = node._writer.position()
    assert kept is not None
    system, _, timeline = Position.decode(kept).history.partition("/")
    return system, int(timeline)


async def checked(site: Site, lease: Lease) -> None:
    """What each of a presigner's transactions does before it commits."""
    async with site.database.owner.acquire() as conn, conn.transaction():
        await lease.check(conn)


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
