"""`quash cache fsck --database` on a whole deployment: what a node says, held against what the database knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from quash.cache.layout import record_key
from quash.pki.reasons import Reason
from quash.runtime.clock import FakeClock
from quash.store.database import acquire
from responder.follow import cache_check
from responder.follow.cache_check import Check
from tests.support.flows import DAY, Site, running
from tests.support.initialising import quick_config
from tests.support.postgres import Database


class Impatient:
    """The site's clock, on which nobody waits: nothing is under way between two looks of these tests."""

    def __init__(self, clock: FakeClock) -> None:
        self.now, self.monotonic = clock.now, clock.monotonic

    async def sleep(self, seconds: float) -> None:
        return


async def compared(site: Site) -> Check:
    check = Check()
    async with acquire(site.database.owner) as conn:
        await cache_check.compare(site.node.environment, conn, Impatient(site.clock), check, lambda _: None)
    return check


async def checked(site: Site) -> Check:
    """Compared; and no record is forged or damaged."""
    check = Check()
    cache_check.verify(site.node.environment, site.now, check, lambda _: None)
    assert check.fault_count == 0
    return await compared(site)


async def test_a_node_against_the_database(
    database: Database, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing while all is told; then a revocation that it lacks, an answer that it lost, one of nobody, a late one."""
    monkeypatch.setattr(cache_check, "SLICE", 3)
    async with running(database, tmp_path, clock, quick_config(database.config)) as site:
        await site.step()
        revoked, lost, kept = [site.key(await site.issue()) for _ in range(3)]
        assert (await checked(site)).disagreement_count == 0

        await site.revoke(revoked, Reason.superseded)
        (row,) = await site.fetch("select id from issuer where name = $1", lost[0])
        environment, nobodys = site.node.environment, record_key(row["id"], b"\x77" * 16)
        with environment.env.begin(environment.records, write=True) as txn:
            body = txn.pop(record_key(row["id"], lost[1]))
            txn.put(nobodys, txn.get(record_key(row["id"], kept[1])))
        assert body
        check = await compared(site)
        assert check.disagreement_count == 3
        told = {each.split()[3].rstrip(":"): each for each in check.disagreements}
        assert "the cache says good, the database revoked" in told[revoked[1].hex()]
        assert "no answer" in told[lost[1].hex()]
        assert "does not know it" in told["77" * 16]

        with environment.env.begin(environment.records, write=True) as txn:
            txn.delete(nobodys)
            txn.put(record_key(row["id"], lost[1]), body)
        await site.spread()
        assert (await checked(site)).disagreement_count == 0
        await clock.advance(DAY + 60)
        check = await checked(site)
        assert check.disagreement_count == check.compared
        assert all("older than a day" in each for each in check.disagreements)
        await clock.advance(2 * DAY)
        check = await checked(site)
        assert check.disagreement_count == check.compared
        assert all("past nextUpdate" in each for each in check.disagreements)
