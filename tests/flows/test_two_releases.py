"""Upgrade and rollback: nodes of the release before and of this one on one feed, while certificates are revoked.

The release before is a process with the layout that it had (`tests/support/old_node.py`); all else is the real site.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quash.errors import QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import new_serial
from quash.runtime.clock import FakeClock
from quash.store.database import acquire
from quash.store.feed import URGENT, FeedRow
from quash.store.roles import FOLLOWER
from tests.support.feeding import append
from tests.support.flows import Key, Node, Site, running
from tests.support.initialising import quick_config
from tests.support.old_node import OldNode
from tests.support.postgres import Database

ISSUER = "tls-dv"
LATER = b"\x03of a later release"


@dataclass
class Load:
    """Revocations that go on, one after the other, whatever is upgraded meanwhile."""

    site: Site
    keys: list[Key]
    revoked: set[Key] = field(default_factory=set)

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        done = asyncio.Event()
        task = asyncio.create_task(self._run(done))
        try:
            yield
        finally:
            done.set()
            await task

    async def _run(self, done: asyncio.Event) -> None:
        """At least two, and up to four until it is told to end."""
        left = (key for key in self.keys if key not in self.revoked)
        for count, key in zip(range(4), left, strict=False):
            if count >= 2 and done.is_set():
                return
            await self.site.revoke(key, Reason.superseded)
            self.revoked.add(key)
            await asyncio.sleep(0.02)

    def wanted(self) -> list[int]:
        return [int(key in self.revoked) for key in self.keys]


async def presign_in(site: Site, form: int) -> None:
    """The presigner's process is restarted with another `presign.feed_format`."""
    await site.presigner.close()
    presign = site.config.presign.model_copy(update={"feed_format": form})
    site.config = site.config.model_copy(update={"presign": presign})
    site.presigner = await site.new_presigner()
    await site.presigner.step()


async def agree(site: Site, load: Load, old: OldNode | None, *nodes: Node) -> None:
    """All nodes say of every certificate what the database does."""
    await site.presigner.step()
    wanted = load.wanted()
    if old is not None:
        (row,) = await site.fetch("select id from issuer where name = $1", ISSUER)
        assert await old.versions(site.now, [(row["id"], serial) for _, serial in load.keys]) == wanted
    for node in nodes:
        await node.step()
        assert [int(node.ask(key).word == "revoked") for key in load.keys] == wanted


@pytest.mark.long  # seven processes of the release before; tests/unit/cache/test_layout.py has the octets
async def test_upgrade_and_rollback_under_load(database: Database, clock: FakeClock, tmp_path: Path) -> None:
    """Two nodes of the release before; one is upgraded, then the other; the format is raised, and all of it back again.

    At no moment does a node miss a revocation, nor is one built anew that could have gone on.
    """
    async with running(database, tmp_path, clock, quick_config(database.config)) as site:
        await site.step()
        load = Load(site, [site.key(await site.issue()) for _ in range(18)])
        pool = await database.pool(FOLLOWER)
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        async with OldNode(database, tmp_path / "a") as a, OldNode(database, tmp_path / "b") as b:
            async with load.going_on():
                await agree(site, Load(site, []), a)
            await agree(site, load, a, site.node)
            await agree(site, load, b)
        # b runs this release on the file that it had: nothing is read again. a stays behind.
        async with load.going_on():
            upgraded = Node(site, pool, tmp_path / "b")
            assert upgraded.rebuilt == ""
            async with OldNode(database, tmp_path / "a") as a:
                await agree(site, Load(site, []), a)
        async with OldNode(database, tmp_path / "a") as a:
            await agree(site, load, a, upgraded, site.node)
        # Both run this release: now, and only now, the format is raised.
        async with load.going_on():
            second = Node(site, pool, tmp_path / "a")
            assert second.rebuilt == ""
            await presign_in(site, 2)
        await agree(site, load, None, upgraded, second, site.node)
        assert await site.fetch("select from feed where kind = 'issuer' and get_byte(payload, 0) = 2")
        # Back: first the format, then node by node the release.
        async with load.going_on():
            await presign_in(site, 1)
            await agree(site, Load(site, []), None, upgraded, second)
            second.stop()
            async with OldNode(database, tmp_path / "a") as a:
                await agree(site, Load(site, []), a)
        async with OldNode(database, tmp_path / "a") as a:
            await agree(site, load, a, upgraded, site.node)
        upgraded.stop()
        # A node of the release before that begins with nothing, while the feed still has rows of the later format.
        (tmp_path / "c").mkdir()
        async with OldNode(database, tmp_path / "c") as c:
            await agree(site, load, c)
        assert 8 <= len(load.revoked) < len(load.keys)


async def test_a_row_of_a_later_release_is_waited_for(database: Database, clock: FakeClock, tmp_path: Path) -> None:
    """A node that is upgraded too late stands still, says so and becomes stale; it passes over nothing.

    Passing over such a row would leave a revocation unread for good, with a heartbeat that says that all is well.
    """
    async with running(database, tmp_path, clock, quick_config(database.config)) as site:
        await site.step()
        key = site.key(await site.issue())
        async with acquire(site.database.owner) as conn:
            await append(conn, [FeedRow(URGENT, "records", None, LATER)], site.now)
        await site.revoke(key)
        await site.presigner.step()
        for _ in range(2):
            with pytest.raises(QuashError, match=r"cache\.newer_format"):
                await site.node.step()
        assert site.node.ask(key).word == "good"
        await clock.advance(61)
        with pytest.raises(QuashError, match=r"cache\.newer_format"):
            await site.spread()
        assert site.node.ask((ISSUER, new_serial())).word == "try_later"
        async with acquire(site.database.owner) as conn:  # as if it could read it now
            await conn.execute("delete from feed where payload = $1", LATER)
        await site.spread()
        assert site.node.ask(key).word == "revoked"
