"""PostgreSQL lost at every question of a flow: unsent (nothing persisted), unheard (persisted, nobody knows)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quash.errors import Kind, QuashError
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from tests.support.flows import Key, Site, running
from tests.support.initialising import quick_config
from tests.support.postgres import Cluster, Database
from tests.support.wire import Loss, Wire

_TRIES = 30
_TWICE = """
select 1 from signing_log where serial is not null group by issuer_id, serial, kind having count(distinct der) > 1
"""
_UNANSWERED = """
select 1 from certificate where state = 'reserved' and serial not in (select serial from revocation)
"""


@dataclass
class Shaken:
    """A site all of whose pools go through a wire; what tests look with does not."""

    site: Site
    wire: Wire

    async def lose(self, work: Callable[[], Awaitable[Any]], question: int, loss: Loss) -> bool:
        """Does `work` again and again, as a process or an operator would, until it succeeds; whether one was lost."""
        self.wire.arm(question, loss)
        for _ in range(_TRIES):
            try:
                await work()
            except QuashError as error:
                if error.kind is not Kind.UNAVAILABLE and error.code != "lease.lost":
                    raise
                await asyncio.sleep(0)
                continue
            lost = self.wire.lost
            self.wire.disarm()
            return lost
        raise AssertionError(f"never again after question {question}, {loss}")


@pytest.fixture
async def shaken(cluster: Cluster, database: Database, clock: FakeClock, server_folder: Path) -> AsyncIterator[Shaken]:
    wire = Wire(cluster.postgres.socket_folder, server_folder)
    url = database.config.database.url.replace(str(cluster.postgres.socket_folder), str(server_folder))
    through = Database(Config.model_validate({"database": {"url": url}}), database.state, database.owner)
    config = quick_config(through.config, presign={"buckets": 1})
    async with wire.serve():
        async with running(through, server_folder, clock, config) as site:
            yield Shaken(site, wire)
        for pool in through._pools:
            pool.terminate()


async def good(site: Site) -> Key:
    key = site.key(await site.issue())
    assert site.node.ask(key).word == "good"
    return key


async def settled(site: Site, key: Key, word: str) -> None:
    """What must hold whatever was lost: the right answer on the node and on the CRL; one revocation at most."""
    await site.settle()
    assert site.node.ask(key).word == word
    assert (site.listed(key) is not None) == (word == "revoked")
    rows = await site.fetch("select version from revocation where serial = $1", key[1])
    assert len(rows) == (word == "revoked")
    assert await site.fetch(_TWICE) == []
    assert await site.fetch(_UNANSWERED) == []


async def revoking(shaken: Shaken, question: int, loss: Loss) -> bool:
    key = await good(shaken.site)
    lost = await shaken.lose(lambda: shaken.site.revoke(key), question, loss)
    await settled(shaken.site, key, "revoked")
    return lost


async def presigning(shaken: Shaken, question: int, loss: Loss) -> bool:
    key = await good(shaken.site)
    await shaken.site.revoke(key)
    lost = await shaken.lose(shaken.site.presigner.step, question, loss)
    await shaken.site.node.step()
    await settled(shaken.site, key, "revoked")
    return lost


# Flow, and questions that it asks at least: fewer would mean that the wire does not see them.
FLOWS: dict[str, tuple[Callable[[Shaken, int, Loss], Awaitable[bool]], int]] = {
    "revoke": (revoking, 8),
    "presign": (presigning, 8),
}


@pytest.mark.long
@pytest.mark.parametrize(("flow", "loss"), [("revoke", "unsent"), ("revoke", "unheard"), ("presign", "unsent")])
async def test_every_question_of_a_flow_may_be_lost(shaken: Shaken, flow: str, loss: Loss) -> None:
    """One after the other, until a run has none that is far enough: so each was lost once."""
    work, least = FLOWS[flow]
    question = 1
    while await work(shaken, question, loss):
        question += 1
    assert question > least, f"{flow} asked {question - 1} questions"


@pytest.mark.long
async def test_a_revocation_whose_commit_is_unheard_is_there_once(shaken: Shaken) -> None:
    """The short form: the last questions of the transaction, where it matters what was persisted."""
    for question in (6, 7, 8):
        assert await revoking(shaken, question, "unheard")
