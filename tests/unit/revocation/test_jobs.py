"""Sibling jobs: what one transaction cannot hold is finished later, exactly once, whatever crashes in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from issuer.revocation.jobs import FINISHED, JobRunner
from quash.pki.reasons import Reason
from quash.pki.serials import new_serial
from quash.runtime.clock import FakeClock
from quash.store import jobs, outbox
from quash.store.database import acquire
from quash.store.roles import JOBS
from tests.support.revoking import DAY, World, key_hash


async def populate(world: World, spki: bytes, count: int) -> None:
    """Adds certificates of one key, alternately of two issuers."""
    ids = [world.authorities[name].id for name in ("alpha", "beta")]
    await world.owner.execute(
        "insert into certificate (issuer_id, serial, state, profile, spki_sha256, not_after, bucket, created_at)"
        " select i, s, 'issued', 'test', $3, $4, 0, 0 from unnest($1::smallint[], $2::bytea[]) as k (i, s)",
        [ids[n % 2] for n in range(count)],
        [new_serial() for _ in range(count)],
        spki,
        world.now + 90 * DAY,
    )


async def rows_per_certificate(world: World, spki: bytes) -> list[tuple[int, int, int]]:
    """(revocations, distinct acts, pieces of news) of each certificate of the key."""
    rows = await world.owner.fetch(
        "select r.revocations, r.acts, o.news from certificate c"
        " cross join lateral (select count(*) as revocations, count(distinct act_id) as acts from revocation"
        "  where issuer_id = c.issuer_id and serial = c.serial) r"
        " cross join lateral (select count(*) as news from outbox"
        "  where issuer_id = c.issuer_id and serial = c.serial) o where c.spki_sha256 = $1",
        spki,
    )
    return [tuple(row) for row in rows]


async def the_job(world: World, act_id: int | None) -> jobs.Job:
    assert act_id is not None
    async with acquire(world.pool) as conn:
        job = await jobs.find_by_act(conn, act_id)
    assert job is not None
    return job


async def test_more_than_a_thousand_siblings_become_a_job(world: World, database: Any, clock: FakeClock) -> None:
    """The first thousand commit with the request; the job does the rest on the bulk lane, each exactly once."""
    spki = key_hash()
    await populate(world, spki, 2500)
    key = await world.certificate(spki=spki)

    revoked = await world.revoke(key, Reason.keyCompromise)

    assert (len(revoked.siblings), revoked.siblings_total) == (1000, 2500)
    assert (await world.counts())["revocation"] == 1001
    job = await the_job(world, revoked.act_id)
    assert (job.state, job.total, job.done, job.revoked_at) == ("running", 2500, 1000, world.now)

    assert await JobRunner(await database.pool(JOBS), clock, batch=1000).step() == 1500
    job = await the_job(world, revoked.act_id)
    assert (job.state, job.total, job.done) == ("done", 2500, 2500)
    assert await rows_per_certificate(world, spki) == [(1, 1, 1)] * 2501
    lanes = await world.owner.fetch("select lane, count(*) from outbox group by lane order by lane")
    assert [tuple(row) for row in lanes] == [(outbox.URGENT, 1001), (outbox.BULK, 1500)]
    finished = await world.owner.fetch("select subject from act where action = $1", FINISHED)
    assert [row["subject"]["cause"] for row in finished] == [revoked.act_id]


class CrashError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("crash_after", [0, 1, 2])
async def test_crash_between_and_inside_batches(
    world: World, database: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, crash_after: int
) -> None:
    """A runner that dies inside a batch leaves what was committed; another one finishes, and no row comes twice."""
    spki = key_hash()
    await populate(world, spki, 50)
    revoked = await world.revoke(await world.certificate(spki=spki), Reason.keyCompromise, batch=10)
    pool = await database.pool(JOBS)
    left, real = crash_after, jobs.advance

    async def advance(*args: Any, **kwargs: Any) -> None:
        nonlocal left
        await real(*args, **kwargs)
        left -= 1
        if left < 0:
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "advance", advance)
        with pytest.raises(CrashError):
            await JobRunner(pool, clock, batch=10).step()
    assert (await the_job(world, revoked.act_id)).done == 10 + 10 * crash_after
    assert (await world.counts())["revocation"] == 1 + 10 + 10 * crash_after

    assert await JobRunner(pool, clock, batch=10).step() == 40 - 10 * crash_after
    assert (await the_job(world, revoked.act_id)).state == "done"
    assert await rows_per_certificate(world, spki) == [(1, 1, 1)] * 51


async def test_two_runners_share_a_job(world: World, database: Any, clock: FakeClock) -> None:
    """Runners that work on the same job at the same time revoke nothing twice."""
    spki = key_hash()
    await populate(world, spki, 120)
    revoked = await world.revoke(await world.certificate(spki=spki), Reason.keyCompromise, batch=7)
    pools = [await database.pool(JOBS) for _ in range(3)]
    done = await asyncio.gather(*(JobRunner(pool, clock, batch=7).step() for pool in pools))
    assert sum(done) == 113
    job = await the_job(world, revoked.act_id)
    assert (job.state, job.done) == ("done", 120)
    assert await rows_per_certificate(world, spki) == [(1, 1, 1)] * 121


async def test_asking_again_while_the_job_runs_adds_nothing(world: World, database: Any, clock: FakeClock) -> None:
    """The same request leaves the rest to the job that is under way; there is one job and one date."""
    spki = key_hash()
    await populate(world, spki, 30)
    key = await world.certificate(spki=spki)
    await world.revoke(key, Reason.keyCompromise, batch=5)
    since, before = world.now, await world.counts()
    world.clock.step(60)
    again = await world.revoke(key, Reason.keyCompromise, batch=5)
    assert (again.changed, again.siblings_total) == (False, 30)
    assert await world.counts() == before
    await JobRunner(await database.pool(JOBS), clock, batch=5).step()
    dates = await world.owner.fetch("select distinct revoked_at from revocation")
    assert [row["revoked_at"] for row in dates] == [since]


async def test_certificates_that_appear_behind_the_search_are_reached(
    world: World, database: Any, clock: FakeClock
) -> None:
    """A certificate imported while the job runs, sorted before where the search stands, is revoked all the same."""
    spki = key_hash()
    await populate(world, spki, 30)
    revoked = await world.revoke(await world.certificate(spki=spki), Reason.keyCompromise, batch=10)
    pool = await database.pool(JOBS)
    runner = JobRunner(pool, clock, batch=10)
    async with acquire(pool) as conn:
        assert await runner.run_batch(conn, await the_job(world, revoked.act_id)) == 10
    late = await world.certificate("alpha", serial=b"\x01", spki=spki, state="imported")
    assert await runner.step() == 11
    assert len(await world.history(late)) == 1
    assert await rows_per_certificate(world, spki) == [(1, 1, 1)] * 32
