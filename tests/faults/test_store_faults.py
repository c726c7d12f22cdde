"""PostgreSQL fails at every question of every flow: lost with and without having persisted, restarted, full, read-only.

Each flow is done again and again, as its process or an operator would, with another question spoiled each time, until
none is left to spoil; and each time all that was promised holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from issuer.revocation import mass
from issuer.revocation.mass_runner import FINISHED, REVOKE, MassRunner
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.store import signer_requests, signer_switches
from quash.store.database import acquire
from quash.store.operators import Operator
from quash.store.roles import JOBS
from tests.support.flows import HOUR, Key, Site, running
from tests.support.initialising import quick_config
from tests.support.issuing import PrivateKey
from tests.support.postgres import Cluster, Database
from tests.support.wire import Loss, Wire

_TRIES = 30
ISSUER = "tls-dv"
OFFICER = Operator(b"\1" * 32, "officer", "One Person", "officer", "active")
REFRESH = 20 * HOUR
_TWICE = """
select 1 from signing_log where serial is not null group by issuer_id, serial, kind having count(distinct der) > 1
"""
_STATUSES = """
select i.name, c.serial, (c.issuer_id, c.serial) in (select issuer_id, serial from revocation) as revoked
from certificate c join issuer i on i.id = c.issuer_id where c.not_after > $1
"""
_UNANSWERED = """
select 1 from certificate where state = 'reserved' and serial not in (select serial from revocation)
"""


@dataclass
class Shaken:
    """A site all of whose pools go through a wire; what tests look with does not."""

    site: Site
    wire: Wire
    mass: MassRunner

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
            return self.wire.disarm()
        raise AssertionError(f"never again after question {question}, {loss}")


@pytest.fixture
async def shaken(cluster: Cluster, database: Database, clock: FakeClock, server_folder: Path) -> AsyncIterator[Shaken]:
    wire = Wire(cluster.postgres.socket_folder, server_folder)
    url = database.config.database.url.replace(str(cluster.postgres.socket_folder), str(server_folder))
    through = Database(Config.model_validate({"database": {"url": url}}), database.state, database.owner)
    config = quick_config(through.config, presign={"buckets": 1, "refresh_every": REFRESH})
    async with wire.serve():
        async with running(through, server_folder, clock, config) as site:
            yield Shaken(site, wire, MassRunner(await through.pool(JOBS), clock, batch=2))
        for pool in through._pools:
            pool.terminate()


async def good(site: Site, key: PrivateKey | None = None) -> Key:
    made = site.key(await site.issue(key=key))
    assert site.node.ask(made).word == "good"
    return made


async def settled(site: Site) -> None:
    """What must hold whatever was lost: on the node and on the CRLs each certificate is what the database says."""
    await site.settle()
    for name, serial, revoked in await site.fetch(_STATUSES, site.now):
        assert site.node.ask((name, serial)).word == ("revoked" if revoked else "good")
        assert (site.listed((name, serial)) is not None) == revoked
    assert await site.fetch("select 1 from revocation where version > 1") == []
    assert await site.fetch(_TWICE) == []
    assert await site.fetch(_UNANSWERED) == []


async def revoking(shaken: Shaken, question: int, loss: Loss) -> bool:
    """Flow 2's transaction."""
    key = await good(shaken.site)
    lost = await shaken.lose(lambda: shaken.site.revoke(key), question, loss)
    await settled(shaken.site)
    assert shaken.site.node.ask(key).word == "revoked"
    return lost


async def sweeping(shaken: Shaken, question: int, loss: Loss) -> bool:
    """The job that revokes the other certificates of a compromised key."""
    site, shared = shaken.site, ec.generate_private_key(ec.SECP256R1())
    keys = [await good(site, shared) for _ in range(4)]
    await site.revoke(keys[0], Reason.keyCompromise)
    lost = await shaken.lose(site.jobs.step, question, loss)
    await settled(site)
    assert {site.node.ask(key).word for key in keys} == {"revoked"}
    return lost


async def presigning(shaken: Shaken, question: int, loss: Loss) -> bool:
    """News become records."""
    site = shaken.site
    key = await good(site)
    await site.revoke(key)
    lost = await shaken.lose(site.presigner.step, question, loss)
    await site.node.step()
    assert site.node.ask(key).word == "revoked"
    await settled(site)
    return lost


async def refreshing(shaken: Shaken, question: int, loss: Loss) -> bool:
    """Flow 4, of good and of revoked."""
    site = shaken.site
    keys = [await good(site), await good(site)]
    await site.revoke(keys[1])
    await settled(site)
    await shaken.site.clock.advance(REFRESH)
    lost = await shaken.lose(site.presigner.step, question, loss)
    await site.node.step()
    assert [(site.node.ask(key).word, site.node.ask(key).this_update) for key in keys] == [
        ("good", site.now),
        ("revoked", site.now),
    ]
    await settled(site)
    return lost


async def following(shaken: Shaken, question: int, loss: Loss) -> bool:
    """The feed comes to the node: nothing is skipped, neither urgent nor bulk."""
    site = shaken.site
    keys = [await good(site), await good(site)]
    await shaken.site.clock.advance(REFRESH)
    await site.revoke(keys[1])
    await site.presigner.step()
    lost = await shaken.lose(site.node.step, question, loss)
    assert [(site.node.ask(key).word, site.node.ask(key).this_update) for key in keys] == [
        ("good", site.now),
        ("revoked", site.now),
    ]
    await settled(site)
    return lost


async def listing(shaken: Shaken, question: int, loss: Loss) -> bool:
    """Flow 3, from a revocation that no CRL shows to the published file: builder and CA signer."""
    site = shaken.site
    key = await good(site)
    await settled(site)
    await site.revoke(key)

    async def build() -> None:
        await site.builder.step()
        if site.listed(key) is None:
            await shaken.site.clock.advance(1.5)  # it waits, for the rest of a burst or to try again
            raise QuashError("test.not_yet", "not listed", Kind.UNAVAILABLE)

    lost = await shaken.lose(build, question, loss)
    await settled(site)
    return lost


async def issuing(shaken: Shaken, question: int, loss: Loss) -> bool:
    """Flow 1, from an order to the certificate: issuing API, CA signer, presigner and follower."""
    site, orders = shaken.site, list[Any]()

    async def issue() -> None:
        if not orders:
            orders.append((await site.order(ISSUER)).id)
        order = await site.issuance.advance(orders[0])
        if order.state == "ready":
            await site.spread()
            order = await site.issuance.advance(orders[0])
        if order.state != "issued":
            raise QuashError("test.not_yet", order.state, Kind.UNAVAILABLE)

    lost = await shaken.lose(issue, question, loss)
    await settled(site)
    assert await site.fetch("select 1 from certificate_order where state <> 'issued'") == []
    return lost


async def switching(shaken: Shaken, question: int, loss: Loss) -> bool:
    """The job that replaces an issuer's OCSP signer and signs everything anew: presigner, CA signer, presigner."""
    site = shaken.site
    key = await good(site)
    before = site.node.ask(key).signer
    async with acquire(site.database.owner) as conn, conn.transaction():
        issuer_id = await conn.fetchval("select id from issuer where name = $1", ISSUER)
        job, _ = await signer_requests.order_switch(conn, issuer_id, ISSUER, actor="operator:test", at=site.now)

    async def switch() -> None:
        await site.presigner.step()
        await site.rotation.step()
        await shaken.site.clock.advance(1)  # bulk news are looked for each second
        await site.presigner.step()
        async with acquire(site.admin) as conn:
            found = await signer_switches.get(conn, job)
        if found is None or found.state != "done":
            raise QuashError("test.not_yet", "not done", Kind.UNAVAILABLE)

    lost = await shaken.lose(switch, question, loss)
    await settled(site)
    assert site.node.ask(key).signer != before
    made = await site.fetch("select 1 from signer_request where switch_id = $1 and state <> 'refused'", job)
    assert len(made) == 1
    return lost


async def revoking_many(shaken: Shaken, question: int, loss: Loss) -> bool:
    """The job of a mass revocation, from the named certificates to its end: a sibling is found, two batches (C17)."""
    site, shared = shaken.site, ec.generate_private_key(ec.SECP256R1())
    keys = [await good(site, key) for key in (shared, shared, None)]
    async with acquire(site.database.owner) as conn:
        job = await mass.create(
            conn, OFFICER, {"list": True}, reason=Reason.keyCompromise, revoked_at=None, now=site.now
        )
        await mass.add_listed(conn, job.id, ISSUER, [serial for _, serial in keys[1:]], site.now)
        await mass.change(conn, OFFICER, job.id, "gather", site.now)

    async def run() -> None:
        await shaken.mass.step()
        async with acquire(site.database.owner) as conn:
            state = (await mass.find(conn, job.id)).state
            if state == "ready":
                await mass.start(conn, OFFICER, job.id, site.now)
        if state != "done":
            raise QuashError("test.not_yet", state, Kind.UNAVAILABLE)

    lost = await shaken.lose(run, question, loss)
    await settled(site)
    await each_by_one_act(site, job.id, keys)
    return lost


async def each_by_one_act(site: Site, job_id: int, keys: Sequence[Key]) -> None:
    """Each was revoked once, by the one act that names it, and the job counted it once."""
    async with acquire(site.database.owner) as conn:
        job = await mass.find(conn, job_id)
    assert (job.total, job.done, job.changed) == (len(keys),) * 3
    acts = await site.fetch("select id, action, subject from act where subject ->> 'job' = $1", str(job_id))
    assert [act["action"] for act in acts].count(FINISHED) == 1
    named = [
        (serial, act["id"])
        for act in acts
        if act["action"] == REVOKE
        for serial in act["subject"]["certificates"][ISSUER]
    ]
    rows = await site.fetch("select serial, act_id from revocation where serial = any($1)", [key[1] for key in keys])
    assert len(rows) == len(keys)
    assert sorted(named) == sorted((format_serial(row["serial"]), row["act_id"]) for row in rows)


Flow = Callable[[Shaken, int, Loss], Awaitable[bool]]
# Flow, and questions that it asks at least: fewer would mean that the wire does not see them.
FLOWS: dict[str, tuple[Flow, int]] = {
    "revoke": (revoking, 8),
    "sweep": (sweeping, 8),
    "mass": (revoking_many, 30),
    "presign": (presigning, 3),
    "refresh": (refreshing, 8),
    "follow": (following, 2),
    "crl": (listing, 8),
    "issue": (issuing, 15),
    "switch": (switching, 20),
}
LOSSES: tuple[Loss, ...] = get_args(Loss)


@pytest.mark.long
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("flow", sorted(FLOWS))
async def test_every_question_of_a_flow_may_be_lost(shaken: Shaken, flow: str, loss: Loss) -> None:
    """One after the other, until a run has none that is far enough: so each was spoiled once."""
    work, least = FLOWS[flow]
    question = 1
    while await work(shaken, question, loss):
        question += 1
    assert question > least, f"{flow} asked {question - 1} questions"


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_revocation_is_there_once_whatever_is_lost(shaken: Shaken, loss: Loss) -> None:
    """The short form: the last questions of the transaction, where it matters what was persisted."""
    for question in (7, 8):
        assert await revoking(shaken, question, loss)
