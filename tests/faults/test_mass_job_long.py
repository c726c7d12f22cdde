"""A mass revocation of 200,000 as it goes in life: two officers, a pause, a crash, and an urgent revocation (C17)."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from issuer.revocation import approvals, mass
from issuer.revocation.mass_runner import FINISHED, REVOKE
from quash.errors import QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.store import outbox
from quash.store.database import SCHEMA, acquire
from quash.store.mass_jobs import MassJob
from quash.store.operators import Operator
from quash.store.roles import ADMIN
from tests.faults.test_mass_job_killed import jobs_process
from tests.support.revoking import DAY, Key, World, make_world

COUNT = 200_000
LIMIT = 1000  # admin.mass_limit
FIRST = Operator(b"\1" * 32, "officer", "One Person", "officer", "active")
SECOND = Operator(b"\2" * 32, "officer2", "Another", "officer", "active")
WITHIN = 400.0
_COLUMNS = ("issuer_id", "serial", "state", "profile", "spki_sha256", "not_before", "not_after", "bucket", "created_at")


@pytest.fixture
async def world(database: Any) -> World:
    """On the real time of day: the process has a clock of its own."""
    world = await make_world(database, FakeClock(time.time()), ADMIN)
    await world.owner.executemany(
        "insert into operator (fingerprint, name, person, role, state, added_at) values ($1, $2, $3, $4, $5, 0)",
        [(each.fingerprint, each.name, each.person, each.role, each.state) for each in (FIRST, SECOND)],
    )
    return world


async def load(world: World, count: int) -> None:
    """By COPY: over four buckets, each of a key of its own."""
    issuer, now = world.authorities["alpha"].id, world.now

    def rows() -> Iterator[tuple[Any, ...]]:
        for number in range(count):
            serial, key = b"\1" + secrets.token_bytes(15), secrets.token_bytes(32)
            yield issuer, serial, "imported", "test", key, now - DAY, now + 90 * DAY, number % 4, now

    async with acquire(world.owner) as conn:
        await conn.copy_records_to_table(
            "certificate", schema_name=SCHEMA, columns=_COLUMNS, records=rows(), timeout=WITHIN
        )
        await conn.execute("analyze certificate")


async def look(world: World, job_id: int) -> MassJob:
    async with acquire(world.pool) as conn:
        return await mass.find(conn, job_id)


async def until(
    world: World, job_id: int, process: asyncio.subprocess.Process, met: Callable[[MassJob], bool]
) -> MassJob:
    async with asyncio.timeout(WITHIN):
        while not met(job := await look(world, job_id)):
            assert process.returncode is None
            await asyncio.sleep(0.05)
    return job


async def approve(world: World, job: MassJob) -> None:
    """The second officer, and exactly this set."""
    assert mass.needs_approval(job, LIMIT)
    async with acquire(world.pool) as conn:
        asked = await approvals.propose(conn, FIRST, mass.START, mass.payload(job), world.now)
        with pytest.raises(QuashError, match=r"proposal\.same_person"):
            await approvals.approve(conn, FIRST, asked.id, asked.sha256, world.now)
        await approvals.approve(conn, SECOND, asked.id, asked.sha256, world.now)


async def overtake(world: World, urgent: Key, job_id: int) -> None:
    """A single revocation beside the running job is recorded at once, by its own act, and goes by the urgent lane."""
    before = await look(world, job_id)
    began = time.monotonic()
    done = await world.revoke(urgent, Reason.keyCompromise)
    took = time.monotonic() - began
    assert done.changed
    after = await look(world, job_id)
    assert (before.state, after.state) == ("running", "running"), "the job was over before it could be overtaken"
    assert after.done < COUNT
    lane = await world.owner.fetchval("select lane from outbox where serial = $1", urgent[1])
    assert lane == outbox.URGENT
    assert took < 30  # far from the minutes that the job has left, on whatever machine


@pytest.mark.long
async def test_two_hundred_thousand(world: World, database: Any, server_folder: Path) -> None:
    """Approved, paused, killed, resumed and overtaken: each certificate once, one act names it, nothing is lost."""
    await load(world, COUNT)
    alone = await world.certificate("beta")
    period = {"issuer": "alpha", "after": world.now - 2 * DAY, "before": world.now + DAY}
    async with acquire(world.pool) as conn:
        job_id = (await mass.create(conn, FIRST, period, reason=Reason.superseded, revoked_at=None, now=world.now)).id
    async with jobs_process(database, server_folder, 500) as process:
        await approve(world, await until(world, job_id, process, lambda job: job.state == "ready"))
        await until(world, job_id, process, lambda job: job.done >= COUNT // 10)
        await overtake(world, alone, job_id)
        last = await world.owner.fetchrow(
            "select issuer_id, serial from mass_job_certificate where job_id = $1"
            " order by rank desc, serial desc limit 1",
            job_id,
        )
        among = (last["issuer_id"], last["serial"])
        await overtake(world, among, job_id)  # of the set itself: the job finds it revoked
        async with acquire(world.pool) as conn:
            await mass.change(conn, FIRST, job_id, "pause", world.now)
        paused = await look(world, job_id)
        await asyncio.sleep(1)
        assert (await look(world, job_id)).done == paused.done
    # Killed while it was paused; and once more in the middle of a batch.
    async with acquire(world.pool) as conn:
        await mass.change(conn, FIRST, job_id, "resume", world.now)
    async with jobs_process(database, server_folder, 500) as process:
        await until(world, job_id, process, lambda job: job.done >= paused.done + COUNT // 10)
    async with jobs_process(database, server_folder, 500) as process:
        job = await until(world, job_id, process, lambda job: job.state == "done")
    assert (job.total, job.done, job.changed) == (COUNT, COUNT, COUNT - 1)
    await _each_once(world, among, alone)
    assert await world.owner.fetchval("select count(*) from act where action = $1", FINISHED) == 1


async def _each_once(world: World, among: Key, alone: Key) -> None:
    rows = await world.owner.fetch(
        "select i.name, r.serial, r.version, r.reason, r.act_id from revocation r join issuer i on i.id = r.issuer_id"
    )
    assert len(rows) == len({(row["name"], row["serial"]) for row in rows}) == COUNT + 1
    assert {row["version"] for row in rows} == {1}
    single = {row["serial"] for row in rows if row["reason"] == Reason.keyCompromise}
    assert single == {among[1], alone[1]}
    acts = await world.owner.fetch("select id, subject from act where action = $1", REVOKE)
    named = [
        (act["id"], issuer, serial)
        for act in acts
        for issuer, serials in act["subject"]["certificates"].items()
        for serial in serials
    ]
    by_job = {(row["act_id"], row["name"], format_serial(row["serial"])) for row in rows if row["serial"] not in single}
    assert len(named) == COUNT - 1
    assert set(named) == by_job
    news = await world.owner.fetchval(
        "select count(*) from certificate c where not exists (select from outbox o where o.issuer_id = c.issuer_id"
        " and (o.serial = c.serial or o.bucket = c.bucket))"
    )
    assert news == 0
