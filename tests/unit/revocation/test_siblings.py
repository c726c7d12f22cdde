"""The sibling rule (C8) on random worlds: exactly the unexpired certificates of the key, each once, by its own act."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from issuer.revocation.compromise import Ground, revoke_key
from issuer.revocation.jobs import JobRunner
from issuer.revocation.sweep import Sweeper
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.store import acts, blocked_keys
from quash.store.database import acquire
from quash.store.revocations import Revocation
from quash.store.roles import JOBS
from tests.support.revoking import ACTOR, DAY, Key, World, key_hash, make_world


@dataclass(frozen=True)
class Planned:
    """A certificate to be made; `key` counts keys, None: nobody knows it. `ends`: seconds from now."""

    key: int | None
    issuer: str
    state: str
    ends: int
    account: int | None
    before: Reason | None


CERTIFICATES = st.builds(
    Planned,
    key=st.sampled_from([0, 0, 0, 1, None]),
    issuer=st.sampled_from(["alpha", "beta"]),
    state=st.sampled_from(["reserved", "precertificate", "issued", "imported"]),
    ends=st.sampled_from([-DAY, -1, 0, 1, 30 * DAY]),
    account=st.sampled_from([None, 0, 1]),
    before=st.sampled_from([None, None, Reason.superseded, Reason.unspecified]),
)
WORLDS = st.lists(CERTIFICATES, min_size=1, max_size=9).filter(lambda all_: any(c.key == 0 for c in all_))
Deed = Callable[[World, list[tuple[Planned, Key]], bytes, int, int], Awaitable[None]]


async def name_one(world: World, made: list[tuple[Planned, Key]], _key: bytes, since: int, batch: int) -> None:
    """An operator names one certificate of the key."""
    (_, key), *_ = [each for each in made if each[0].key == 0 and each[0].ends >= 0]
    await world.revoke(key, Reason.keyCompromise, revoked_at=since, batch=batch)


async def prove(world: World, _: list[tuple[Planned, Key]], key: bytes, since: int, batch: int) -> None:
    """Somebody hands in a proof: no certificate is named."""
    async with acquire(world.pool) as conn:
        ground = Ground(ACTOR, "key.compromise", {}, "x")
        await revoke_key(conn, world.clock, key, ground, revoked_at=since, batch=batch)


async def block(world: World, _: list[tuple[Planned, Key]], key: bytes, _since: int, _batch: int) -> None:
    """The key is only blocked, as a list does: the sweep finds it."""
    async with acquire(world.pool) as conn, conn.transaction():
        act_id = await acts.record(conn, at=world.now, actor=ACTOR, action="list", subject={})
        await blocked_keys.block(conn, key, reason="list", added_at=world.now, act_id=act_id)


async def make(world: World, planned: list[Planned], keys: dict[int | None, bytes | None]) -> list[tuple[Planned, Key]]:
    orders = [uuid4(), uuid4()]
    for number, order in enumerate(orders):
        await world.owner.execute(
            "insert into certificate_order (id, created_at, operator, profile, csr, state, updated_at)"
            " values ($1, 1, $2, 'p', '', 'issued', 1)",
            order,
            f"operator:{number}",
        )
    made = []
    for each in planned:
        key = await world.certificate(
            each.issuer, spki=keys[each.key], state=each.state, not_after=world.now + each.ends
        )
        if each.account is not None:
            await world.owner.execute(
                "update certificate set order_id = $1 where serial = $2", orders[each.account], key[1]
            )
        if each.before is not None and each.ends >= 0:
            await world.revoke(key, each.before)
        made.append((each, key))
    return made


async def settle(world: World, jobs: Any, batch: int) -> None:
    """The job process, until nothing is left to do."""
    await Sweeper(jobs, world.clock, batch=batch).step()
    runner = JobRunner(jobs, world.clock, batch=batch)
    for _ in range(20):
        await runner.step()


async def check(world: World, jobs: Any, planned: list[Planned], deed: Deed, since: int, batch: int) -> None:
    keys = {0: key_hash(), 1: key_hash(), None: None}
    compromised = keys[0]
    assert compromised is not None
    made = await make(world, planned, keys)
    if deed is name_one and not any(each.key == 0 and each.ends >= 0 for each in planned):
        return
    before = {key: await world.history(key) for _, key in made}
    since = world.now - since
    await deed(world, made, compromised, since, batch)
    await settle(world, jobs, batch)
    new: list[Revocation] = []
    for each, key in made:
        history = await world.history(key)
        added = history[len(before[key]) :]
        assert history[: len(before[key])] == before[key]
        expected = 1 if each.key == 0 and each.ends >= 0 else 0
        assert len(added) == expected, each
        assert all(revocation.reason == Reason.keyCompromise for revocation in added)
        if deed is not block:
            assert all(revocation.revoked_at == since for revocation in added)
        new += added
    assert len({revocation.act_id for revocation in new}) == len(new)
    for revocation in new:
        async with acquire(world.pool) as conn:
            act = await acts.get(conn, revocation.act_id)
        assert act is not None
        named = (world.name_of(revocation.issuer_id), format_serial(revocation.serial))
        assert (act.subject["issuer"], act.subject["serial"]) == named
    news = await world.news()
    assert {(revocation.issuer_id, revocation.serial) for revocation in new} <= news
    counts = await world.counts()
    await deed(world, made, compromised, since, batch) if deed is not block else None
    await settle(world, jobs, batch)
    assert (await world.counts())["revocation"] == counts["revocation"]


@pytest.mark.parametrize("deed", [name_one, prove, block])
@pytest.mark.parametrize("examples", [5, pytest.param(400, marks=pytest.mark.long)])
def test_exactly_the_siblings_once(deed: Deed, examples: int, world_on: Any) -> None:
    """Whatever issuers, accounts, states, keys and dates there are, whoever asks, in batches of any size."""

    @given(WORLDS, st.sampled_from([0, 1, 90 * DAY]), st.integers(1, 4))
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    def on_random_worlds(planned: list[Planned], since: int, batch: int) -> None:
        world_on(lambda world, jobs: check(world, jobs, planned, deed, since, batch))

    on_random_worlds()


@pytest.fixture
def world_on(cluster: Any) -> Any:
    """Runs something on a world of its own, in the one loop and database of the test."""
    with asyncio.Runner() as runner:
        name, database = runner.run(cluster.take())
        world = runner.run(make_world(database, FakeClock(), "quash_admin"))
        jobs = runner.run(database.pool(JOBS))
        try:
            yield lambda work: runner.run(work(world, jobs))
        finally:
            runner.run(database.close())
            runner.run(cluster.give_back(name))
