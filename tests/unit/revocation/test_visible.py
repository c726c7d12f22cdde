"""`--wait`: a revocation counts as visible when strangers see all of it, with our date and reason, and not before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from issuer.revocation.find import Target
from issuer.revocation.jobs import JobRunner
from issuer.revocation.visible import Visibility, Watches
from quash.pki.certid import CertIdHash
from quash.pki.reasons import Reason
from quash.runtime.clock import FakeClock, SystemClock
from quash.runtime.config import Config
from quash.store import acts
from quash.store.database import acquire
from quash.store.roles import ADMIN, JOBS
from tests.support.public import Public
from tests.support.revoking import Key, World, key_hash, make_world

KEY_COMPROMISE = int(Reason.keyCompromise)
SETTLE = 0.4  # seconds: longer than any pause between two questions


@pytest.fixture
async def world(database: Any) -> World:
    """As elsewhere, on the real time of day: answers must be fresh for the asker's clock."""
    return await make_world(database, FakeClock(time.time()), ADMIN)


@pytest.fixture
async def public(world: World) -> AsyncIterator[Public]:
    async with Public(world).serving() as public:
        yield public


def config_of(database: Any, public: Public) -> Config:
    settings = {"responder": {"base_url": public.ocsp_url}, "crl_origin": {"base_url": public.crl_url}}
    return Config.model_validate({**database.config.model_dump(), **settings})


@pytest.fixture
async def watches(world: World, database: Any, public: Public) -> AsyncIterator[Watches]:
    async with Watches(world.pool, config_of(database, public), SystemClock()) as watches:
        yield watches


async def until(visibility: Visibility, field: str) -> int:
    async with asyncio.timeout(10):
        while (value := getattr(visibility, field)) is None:  # noqa: ASYNC110 - as the API's clients do
            await asyncio.sleep(0.005)
    return int(value)


async def compromise(world: World) -> tuple[Key, Key, int]:
    """Two certificates of two issuers with one key, revoked; with the act."""
    spki = key_hash()
    key, sibling = await world.certificate("alpha", spki=spki), await world.certificate("beta", spki=spki)
    act_id = (await world.revoke(key, Reason.keyCompromise)).act_id
    assert act_id is not None
    return key, sibling, act_id


async def test_ocsp_is_visible_with_the_last_hash_of_the_last_sibling(
    world: World, public: Public, watches: Watches
) -> None:
    """Every (issuer, serial) is asked for with both hashes; the time is that of the last revoked answer."""
    key, sibling, act_id = await compromise(world)
    began = time.monotonic()
    visibility = watches.start(act_id)
    steps = [
        (key, CertIdHash.SHA256),
        (sibling, CertIdHash.SHA1),
        (key, CertIdHash.SHA1),
    ]
    for each, algorithm in steps:
        public.revoke(each, KEY_COMPROMISE, world.now, algorithm)
        await asyncio.sleep(SETTLE)
        assert visibility.ocsp_visible_ms is None
    before = (time.monotonic() - began) * 1000
    public.revoke(sibling, KEY_COMPROMISE, world.now, CertIdHash.SHA256)
    visible = await until(visibility, "ocsp_visible_ms")
    assert before - 1 <= visible <= (time.monotonic() - began) * 1000 + 1
    assert visibility.crl_published_ms is None
    wanted = {(world.name_of(i), serial, h) for i, serial in (key, sibling) for h in CertIdHash}
    assert set(public.asked) == wanted


async def test_other_answers_do_not_count(world: World, public: Public, watches: Watches) -> None:
    """Another reason, another date, or an answer that another key signed is not our revocation."""
    key = await world.certificate(spki=key_hash())
    act_id = (await world.revoke(key, Reason.superseded)).act_id
    assert act_id is not None
    visibility = watches.start(act_id)
    public.revoke(key, KEY_COMPROMISE, world.now)
    await asyncio.sleep(SETTLE)
    public.revoke(key, int(Reason.superseded), world.now - 1)
    await asyncio.sleep(SETTLE)
    public.liar = world.authorities["beta"]
    public.revoke(key, int(Reason.superseded), world.now)
    await asyncio.sleep(SETTLE)
    assert visibility.ocsp_visible_ms is None
    public.liar = None
    assert await until(visibility, "ocsp_visible_ms") >= 3 * SETTLE * 1000


async def test_crl_is_published_when_the_database_and_the_file_say_so(
    world: World, public: Public, watches: Watches
) -> None:
    """A covering snapshot without the file, a file without the entry, or one of two scopes is not enough."""
    key, sibling, act_id = await compromise(world)
    visibility = watches.start(act_id)
    revoked = (KEY_COMPROMISE, world.now)
    for issuer in ("alpha", "beta"):
        public.files[f"/{issuer}.crl"] = public.crl(issuer, 1, [(key[1], revoked), (sibling[1], revoked)])
    await asyncio.sleep(SETTLE)
    assert visibility.crl_published_ms is None, "no CRL covers it"
    public.files.clear()
    await public.record("alpha", 2, 1, b"not served")
    await asyncio.sleep(SETTLE)
    assert visibility.crl_published_ms is None, "nothing is served"
    public.files["/alpha.crl"] = public.crl("alpha", 2, [(key[1], (int(Reason.superseded), world.now))])
    await asyncio.sleep(SETTLE)
    assert visibility.crl_published_ms is None, "the entry has another reason"
    public.files["/alpha.crl"] = public.crl("alpha", 2, [(key[1], revoked)])
    await asyncio.sleep(SETTLE)
    assert visibility.crl_published_ms is None, "the sibling's CRL is missing"
    await public.publish("beta", 1, [(sibling[1], revoked)])
    assert await until(visibility, "crl_published_ms") >= 4 * SETTLE * 1000
    assert visibility.ocsp_visible_ms is None


async def test_crl_of_another_signer_does_not_count(world: World, public: Public, watches: Watches) -> None:
    """A file that lists the serial but that another CA signed shows nothing."""
    key = await world.certificate("alpha")
    act_id = (await world.revoke(key)).act_id
    assert act_id is not None
    visibility = watches.start(act_id)
    await public.publish("alpha", 1, [(key[1], (0, world.now))])
    public.files["/alpha.crl"] = public.crl("beta", 1, [(key[1], (0, world.now))])
    await asyncio.sleep(SETTLE)
    assert visibility.crl_published_ms is None
    public.files["/alpha.crl"] = public.crl("alpha", 1, [(key[1], (0, world.now))])
    assert await until(visibility, "crl_published_ms") > 0


async def test_after_a_restart_the_time_counts_from_the_act(world: World, database: Any, public: Public) -> None:
    """A process that knows nothing measures from the second in which the act was recorded."""
    key, sibling, act_id = await compromise(world)
    for each in (key, sibling):
        public.revoke(each, KEY_COMPROMISE, world.now)
    async with acquire(world.pool) as conn:
        act = await acts.get(conn, act_id)
    assert act is not None
    await asyncio.sleep(1.1)
    async with Watches(world.pool, config_of(database, public), SystemClock()) as watches:
        visibility = watches.find(act)
        assert watches.find(act) is visibility
        assert await until(visibility, "ocsp_visible_ms") >= 1000


async def test_what_stood_already_is_measured_from_the_question(
    world: World, database: Any, public: Public, watches: Watches
) -> None:
    """A certificate revoked long ago is visible at once, and no metric takes its age for a slow revocation."""
    key = await world.certificate("alpha")
    act_id = (await world.revoke(key)).act_id
    public.revoke(key, 0, world.now)
    await public.publish("alpha", 1, [(key[1], (0, world.now))])
    async with acquire(world.pool) as conn:
        act = await acts.get(conn, act_id or 0)
    assert act is not None
    counted = {where: observed(where) for where in ("ocsp", "crl")}
    a_year_ago = replace(act, at=act.at - 365 * 86400)
    named = watches.find(a_year_ago, Target("alpha", key[1]))
    for field in ("ocsp_visible_ms", "crl_published_ms"):
        assert await until(named, field) < 60_000
    unnamed = watches.find(a_year_ago)
    for field in ("ocsp_visible_ms", "crl_published_ms"):
        assert await until(unnamed, field) >= 365 * 86_400_000
    assert {where: observed(where) for where in counted} == counted
    other = await world.certificate("alpha")
    committed = watches.start((await world.revoke(other)).act_id or 0)
    public.revoke(other, 0, world.now)
    await until(committed, "ocsp_visible_ms")
    assert observed("ocsp") == counted["ocsp"] + 1


def observed(where: str) -> float:
    return REGISTRY.get_sample_value("quash_revocation_visible_seconds_count", {"where": where}) or 0.0


async def test_a_job_is_waited_for(world: World, database: Any, public: Public, watches: Watches) -> None:
    """With siblings left to a job, nothing counts as visible before the job's last one is."""
    spki = key_hash()
    keys = [await world.certificate(spki=spki) for _ in range(6)]
    act_id = (await world.revoke(keys[0], Reason.keyCompromise, batch=2)).act_id
    assert act_id is not None
    for key in keys:
        public.revoke(key, KEY_COMPROMISE, world.now)
    visibility = watches.start(act_id)
    await asyncio.sleep(SETTLE)
    assert visibility.ocsp_visible_ms is None
    await JobRunner(await database.pool(JOBS), world.clock, batch=2).step()
    assert await until(visibility, "ocsp_visible_ms") >= SETTLE * 1000
    assert {serial for _, serial, _ in public.asked} == {serial for _, serial in keys}
