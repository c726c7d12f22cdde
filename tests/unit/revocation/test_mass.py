"""Mass revocations: the set, its preview and approval, and batches that lose nothing and repeat nothing (C17, B25)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from issuer.revocation import approvals, exemptions, mass, pace
from issuer.revocation.find import Target
from issuer.revocation.jobs import JobRunner
from issuer.revocation.mass import Pace
from issuer.revocation.mass_runner import FINISHED, REVOKE, MassRunner
from issuer.revocation.revoke import lock_name
from issuer.revocation.sweep import Sweeper
from quash.errors import QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial, new_serial
from quash.runtime.clock import FakeClock
from quash.store import acts, cases, certificates, locks, mass_sets, outbox, rates
from quash.store import exemptions as stored_exemptions
from quash.store.database import acquire
from quash.store.mass_jobs import MassJob
from quash.store.operators import Operator
from quash.store.roles import JOBS, PRESIGNER
from tests.support.revoking import DAY, Key, World, key_hash

OFFICER = Operator(b"\1" * 32, "officer", "One Person", "officer", "active")
SECOND = Operator(b"\2" * 32, "second", "Another", "officer", "active")


@pytest.fixture(autouse=True)
async def officers(world: World) -> None:
    await world.owner.executemany(
        "insert into operator (fingerprint, name, person, role, state, added_at) values ($1, $2, $3, $4, $5, 0)",
        [(each.fingerprint, each.name, each.person, each.role, each.state) for each in (OFFICER, SECOND)],
    )


@pytest.fixture
async def runner(database: Any, clock: FakeClock) -> MassRunner:
    return MassRunner(await database.pool(JOBS), clock, batch=7)


async def populate(world: World, count: int, issuer: str = "alpha", *, spki: bytes | None = None) -> list[Key]:
    """Certificates over the issuer's four buckets, each of a key of its own unless `spki` says otherwise."""
    key = world.authorities[issuer].id
    serials = [new_serial() for _ in range(count)]
    await world.owner.execute(
        "insert into certificate (issuer_id, serial, state, profile, spki_sha256, not_before, not_after, bucket,"
        " created_at) select $1, s, 'issued', 'test', coalesce($3, sha256(s)), $4, $5, b, 0"
        " from unnest($2::bytea[], $6::integer[]) as k (s, b)",
        key,
        serials,
        spki,
        world.now - DAY,
        world.now + 90 * DAY,
        [certificates.bucket_of(serial, 4) for serial in serials],
    )
    return [(key, serial) for serial in serials]


async def of_list(
    world: World, keys: Sequence[Key], reason: Reason = Reason.superseded, revoked_at: int | None = None
) -> int:
    """A draft that was sent and is to be gathered."""
    async with acquire(world.pool) as conn:
        job = await mass.create(conn, OFFICER, {"list": True}, reason=reason, revoked_at=revoked_at, now=world.now)
        assert await mass.add_listed(conn, job.id, None, [serial for _, serial in keys], world.now) == ([], [])
        await mass.change(conn, OFFICER, job.id, "gather", world.now)
    return job.id


async def look(world: World, job_id: int) -> MassJob:
    async with acquire(world.pool) as conn:
        return await mass.find(conn, job_id)


async def command(world: World, job_id: int, what: str) -> MassJob:
    async with acquire(world.pool) as conn:
        if what == "start":
            return await mass.start(conn, OFFICER, job_id, world.now)
        return await mass.change(conn, OFFICER, job_id, what, world.now)


async def finish(runner: MassRunner) -> int:
    done = 0
    while count := await runner.step():
        done += count
    return done


async def exactly_once(world: World, keys: Sequence[Key], but: Sequence[Key] = ()) -> None:
    """Every certificate has one revocation and one act that names it; no act names one twice."""
    found = await world.owner.fetch("select issuer_id, serial, version, act_id from revocation")
    rows = [row for row in found if (row["issuer_id"], row["serial"]) not in but]
    assert sorted((row["issuer_id"], row["serial"]) for row in rows) == sorted(keys)
    assert {row["version"] for row in rows} == {1}
    acts = await world.owner.fetch("select id, subject from act where action = $1", REVOKE)
    named = {
        (act["id"], name, serial)
        for act in acts
        for name, serials in act["subject"]["certificates"].items()
        for serial in serials
    }
    assert sum(len(serials) for act in acts for serials in act["subject"]["certificates"].values()) == len(keys)
    assert named == {(row["act_id"], world.name_of(row["issuer_id"]), format_serial(row["serial"])) for row in rows}


async def test_a_set_with_a_ca_asks_two_officers(world: World, runner: MassRunner) -> None:
    """What a root issued, OCSP signers apart, and whatever says so itself: a CA below a CA, an imported one."""
    signer, leaf = await world.certificate("top"), await world.leaf("alpha")
    await world.owner.execute("update certificate set profile = 'ocsp-signer' where serial = $1", signer[1])
    plain = (world.authorities["alpha"].id, leaf.serial_number.to_bytes(16, "big"))
    below = await world.certificate("alpha", der=world.authorities["beta"].der)
    for keys, cas in (([signer, plain], []), ([plain, below], ["alpha"]), ([await world.certificate("top")], ["top"])):
        job_id = await of_list(world, keys)
        await runner.step()
        job = await look(world, job_id)
        assert job.preview is not None
        assert (job.preview["cas"], mass.needs_approval(job, 100)) == (cas, bool(cas))


async def test_no_batch_reads_a_table_from_end_to_end(world: World, database: Any, clock: FakeClock) -> None:
    """Whatever the planner believes of the tables: with millions of certificates each batch would take seconds."""
    job_id = await of_list(world, await populate(world, 3000))
    pool = await database.pool(JOBS)
    runner = MassRunner(pool, clock, batch=300)
    await runner.step()
    await world.owner.execute("analyze certificate")
    await command(world, job_id, "start")

    async def scans() -> list[int]:
        async with acquire(pool) as conn:  # the one connection that the runner has used
            await conn.execute("select pg_stat_force_next_flush()")
        async with acquire(world.owner) as conn:
            tables = "select seq_scan from pg_stat_user_tables where relname = any($1) order by relname"
            return [row["seq_scan"] for row in await conn.fetch(tables, ["certificate", "revocation"])]

    before = await scans()
    assert await finish(runner) == 3000
    assert await scans() == before


async def test_a_list_from_draft_to_done(world: World, runner: MassRunner) -> None:
    """Previewed first; then each certificate once, with its act, on the bulk lane; those revoked before are counted."""
    keys = await populate(world, 40)
    before = await world.certificate("beta", spki=key_hash())
    await world.revoke(before, Reason.keyCompromise)
    expired = await world.certificate("beta", not_after=world.now - 1)
    job_id = await of_list(world, [*keys, before, expired])
    assert await runner.step() == 0
    job = await look(world, job_id)
    assert (job.state, job.total, job.listed, job.done) == ("ready", 41, 41, 0)
    assert job.preview is not None
    assert (job.preview["issuers"], job.preview["revoked_before"]) == ({"alpha": 40, "beta": 1}, 1)
    assert [(each["issuer"], each["scope"], each["entries"]) for each in job.preview["scopes"]] == [
        ("alpha", "full", 40),
        ("beta", "full", 0),
    ]
    assert len(await world.history(keys[0])) == 0
    started = world.now
    await command(world, job_id, "start")
    world.clock.step(100)

    assert await finish(runner) == 41

    job = await look(world, job_id)
    assert (job.state, job.done, job.changed) == ("done", 41, 40)
    assert [each.reason for each in await world.history(before)] == [Reason.keyCompromise]
    await exactly_once(world, keys, but=[before])
    dates = await world.owner.fetch(
        "select distinct revoked_at, reason from revocation where issuer_id <> $1", before[0]
    )
    assert [tuple(row) for row in dates] == [(started, Reason.superseded)]
    news = await world.owner.fetch("select lane, issuer_id, serial from outbox where issuer_id = $1", keys[0][0])
    assert sorted((row["lane"], row["issuer_id"], row["serial"]) for row in news) == sorted(
        (outbox.BULK, *key) for key in keys
    )
    assert await world.owner.fetchval("select count(*) from act where action = $1", FINISHED) == 1


async def test_a_key_and_a_period(world: World, runner: MassRunner) -> None:
    """A key's certificates of all issuers; and what an issuer issued in a period, without its own OCSP signers."""
    spki = key_hash()
    of_key = [*await populate(world, 9, spki=spki), *await populate(world, 3, "beta", spki=spki)]
    async with acquire(world.pool) as conn:
        by_key = await mass.create(
            conn, OFFICER, {"spki_sha256": spki.hex()}, reason=Reason.superseded, revoked_at=None, now=world.now
        )
    in_time = await populate(world, 12)
    late, signer = await populate(world, 2), await populate(world, 1)
    await world.owner.execute(
        "update certificate set not_before = $1 where serial = any($2)", world.now, [serial for _, serial in late]
    )
    await world.owner.execute("update certificate set profile = 'ocsp-signer' where serial = $1", signer[0][1])
    period = {"issuer": "alpha", "after": world.now - DAY, "before": world.now}
    async with acquire(world.pool) as conn:
        by_period = await mass.create(conn, OFFICER, period, reason=Reason.superseded, revoked_at=None, now=world.now)
    await runner.step()
    assert (await look(world, by_key.id)).total == 12
    assert (await look(world, by_period.id)).total == 9 + 12
    await command(world, by_key.id, "start")
    await finish(runner)
    await exactly_once(world, of_key)
    await command(world, by_period.id, "start")
    await finish(runner)
    assert (await look(world, by_period.id)).changed == 12
    await exactly_once(world, [*of_key, *in_time])


async def test_a_case(world: World, runner: MassRunner) -> None:
    """The unexpired certificates of a case, of whatever issuer."""
    keys = [*await populate(world, 3), *await populate(world, 2, "beta")]
    expired = await world.certificate(not_after=world.now - 1)
    async with acquire(world.pool) as conn:
        with pytest.raises(QuashError, match=r"case\.unknown"):
            await mass.create(conn, OFFICER, {"case": 1}, reason=Reason.superseded, revoked_at=None, now=world.now)
        act_id = await acts.record(conn, at=world.now, actor=OFFICER.actor, action="case.open", subject={})
        case = await cases.add(
            conn,
            trigger="br-7",
            received_at=world.now,
            opened_at=world.now,
            reporter="r",
            summary="s",
            act_id=act_id,
        )
        await cases.add_certificates(conn, case, [*keys, expired], act_id)
        job = await mass.create(conn, OFFICER, {"case": case}, reason=Reason.superseded, revoked_at=None, now=world.now)
    await runner.step()
    await command(world, job.id, "start")
    assert await finish(runner) == 5
    await exactly_once(world, keys)


async def test_compromised_keys_bring_their_siblings_and_are_blocked(
    world: World, database: Any, runner: MassRunner, clock: FakeClock
) -> None:
    """C8, C9: siblings are in the previewed set; earlier revocations are upgraded (B25); what comes later is swept."""
    spki = key_hash()
    keys = await populate(world, 5, spki=spki)
    siblings = await populate(world, 4, "beta", spki=spki)
    await world.revoke(keys[1], Reason.superseded)
    job_id = await of_list(world, keys[:2], Reason.keyCompromise)
    await runner.step()
    job = await look(world, job_id)
    assert (job.listed, job.total) == (2, 9)
    late = (await populate(world, 1, spki=spki))[0]
    await command(world, job_id, "start")
    await finish(runner)
    for key in [*keys, *siblings]:
        history = await world.history(key)
        assert history[-1].reason == Reason.keyCompromise
        assert len(history) == 1 + (key == keys[1])
    assert await world.owner.fetchval("select count(*) from blocked_key where spki_sha256 = $1", spki) == 1
    pool = await database.pool(JOBS)
    assert await Sweeper(pool, clock, batch=10).step() == 1
    await JobRunner(pool, clock, batch=10).step()
    assert len(await world.history(late)) == 1


async def test_pause_resume_abort(world: World, runner: MassRunner, database: Any) -> None:
    """Each takes effect before the next batch; an aborted job is over for ever, what is revoked stays so (C16)."""
    keys = await populate(world, 30)
    job_id = await of_list(world, keys)
    await runner.step()
    await command(world, job_id, "start")
    async with acquire(await database.pool(JOBS)) as conn:
        assert await runner.run_batch(conn, job_id) == 7
        await command(world, job_id, "pause")
        assert await runner.run_batch(conn, job_id) == 0
        assert (await look(world, job_id)).done == 7
        await command(world, job_id, "resume")
        assert await runner.run_batch(conn, job_id) == 7
        await command(world, job_id, "abort")
        assert await runner.run_batch(conn, job_id) == 0
    assert await finish(runner) == 0
    assert (await world.counts())["revocation"] == 14
    for what in ("resume", "pause", "abort", "start"):
        with pytest.raises(QuashError, match=r"mass\.state"):
            await command(world, job_id, what)
    actions = await world.owner.fetch("select action from act where action like 'mass-revocation.%' order by id")
    assert [row["action"].partition(".")[2] for row in actions] == [
        *("create", "gather", "start", "pause", "resume", "abort"),
    ]


async def test_the_second_officer_approves_exactly_the_set(world: World, runner: MassRunner) -> None:
    """By its hash, which an export gives as well; nothing can be added to it any more, by no role."""
    keys = await populate(world, 20)
    job_id = await of_list(world, keys)
    await runner.step()
    job = await look(world, job_id)
    assert job.sha256 is not None
    async with acquire(world.pool) as conn:
        text, following = await mass_sets.lines(conn, job_id, mass_sets.START, 100)
        assert (hashlib.sha256(text.encode()).digest(), following) == (job.sha256, None)
        assert sorted(text.splitlines()) == sorted(f"alpha {format_serial(serial)}" for _, serial in keys)
        assert (mass.needs_approval(job, 20), mass.needs_approval(job, 19)) == (False, True)
        for rights in (world.pool, world.owner):
            with pytest.raises(Exception, match="the set of a mass revocation is fixed"):
                await rights.execute("insert into mass_job_certificate values ($1, 1, 1, 'x')", job_id)
        with pytest.raises(QuashError, match=r"proposal\.changed"):
            await approvals.propose(conn, OFFICER, mass.START, mass.payload(job) | {"sha256": "00" * 32}, world.now)
        asked = await approvals.propose(conn, OFFICER, mass.START, mass.payload(job), world.now)
        with pytest.raises(QuashError, match=r"proposal\.same_person"):
            await approvals.approve(conn, OFFICER, asked.id, asked.sha256, world.now)
        assert (await mass.find(conn, job_id)).state == "ready"
        await approvals.approve(conn, SECOND, asked.id, asked.sha256, world.now)
    assert await finish(runner) == 20
    await exactly_once(world, keys)
    actors = await world.owner.fetch("select distinct actor from act where action = $1", REVOKE)
    assert [row["actor"] for row in actors] == [SECOND.actor]


async def test_a_set_that_changed_behind_our_backs_is_not_revoked(world: World, runner: MassRunner) -> None:
    """Somebody with the owner's rights added one: the runner pauses the job and says so."""
    job_id = await of_list(world, await populate(world, 5))
    await runner.step()
    await command(world, job_id, "start")
    extra = (await populate(world, 1))[0]
    await world.owner.execute("alter table mass_job_certificate disable trigger fixed")
    await world.owner.execute("insert into mass_job_certificate values ($1, $2, 0, $3)", job_id, *extra)
    await world.owner.execute("alter table mass_job_certificate enable trigger fixed")
    before = told("set_changed_total")
    with pytest.raises(QuashError, match=r"mass\.set_changed"):
        await runner.step()
    assert told("set_changed_total") == before + 1
    assert (await look(world, job_id)).state == "paused"
    assert (await world.counts())["revocation"] == 0
    await runner.step()
    assert told("paused") == 1


def told(what: str) -> float | None:
    """A metric of mass revocations."""
    return REGISTRY.get_sample_value(f"quash_mass_revocation_{what}")


@pytest.mark.parametrize("ended", ["pause", "abort"])
async def test_frozen(world: World, runner: MassRunner, clock: FakeClock, ended: str) -> None:
    """What is left of a job is no longer told when an officer has paused or aborted it."""
    job_id = await of_list(world, await populate(world, 60))
    await runner.step()
    await command(world, job_id, "start")
    async with acquire(world.pool) as conn:
        await mass.set_pace(conn, OFFICER, job_id, Pace(per_second=5.0), world.now)
    await runner.step()
    await clock.advance(2)
    await runner.step()
    assert told("left") == 60 - (await look(world, job_id)).done > 0
    assert told("left_seconds")
    await command(world, job_id, ended)
    await runner.step()
    assert (told("left"), told("left_seconds"), told("late")) == (0, 0, 0)
    assert told("paused") == (ended == "pause")


async def test_runners_share_a_job_and_single_revocations_come_between(
    world: World, database: Any, clock: FakeClock
) -> None:
    """Whoever is first revokes a certificate; it has one version, and neither side fails."""
    keys = await populate(world, 60)
    job_id = await of_list(world, keys)
    pools = [await database.pool(JOBS) for _ in range(3)]
    runners = [MassRunner(pool, clock, batch=5) for pool in pools]
    await runners[0].step()
    await command(world, job_id, "start")
    _, *done = await asyncio.gather(
        asyncio.gather(*(world.revoke(key, Reason.superseded) for key in keys[::6])), *map(finish, runners)
    )
    while (await look(world, job_id)).state != "done":
        done.append(await finish(runners[0]))
    assert sum(done) == 60
    rows = await world.owner.fetch("select issuer_id, serial, version from revocation")
    assert sorted(tuple(row) for row in rows) == sorted((*key, 1) for key in keys)


async def test_a_bucket_that_is_revoked_nearly_whole_is_told_of_once(
    world: World, database: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its last certificate; the others of the job's certificates each by themselves."""
    monkeypatch.setattr("issuer.revocation.mass_runner._WHOLE_FROM", 10)
    keys = await populate(world, 80)
    chosen = [key for key in keys if certificates.bucket_of(key[1], 4) in (1, 2)]
    alone = [key for key in keys if certificates.bucket_of(key[1], 4) == 3][:3]
    job_id = await of_list(world, [*chosen, *alone])
    runner = MassRunner(await database.pool(JOBS), clock, batch=6)
    await runner.step()
    await command(world, job_id, "start")
    assert await finish(runner) == len(chosen) + 3
    news = await world.owner.fetch("select kind, bucket, serial from outbox order by id")
    assert [row["bucket"] for row in news if row["kind"] == "bucket"] == [1, 2]
    assert {row["serial"] for row in news if row["kind"] == "certificate"} == {serial for _, serial in alone}


async def test_what_cannot_be_started(world: World, runner: MassRunner) -> None:
    """An empty set; certificates of CAs without a reason (B10); and unknown or ambiguous serials are told at once."""
    empty = await of_list(world, [])
    root = await of_list(world, [await world.certificate("top")], Reason.unspecified)
    await runner.step()
    for job_id, code in ((empty, "mass.empty"), (root, "revocation.reason_required")):
        with pytest.raises(QuashError, match=code):
            await command(world, job_id, "start")
    assert mass.needs_approval(await look(world, root), 1000)
    twice = await world.certificate("alpha", serial=b"\x05")
    await world.certificate("beta", serial=b"\x05")
    async with acquire(world.pool) as conn:
        draft = await mass.create(
            conn, OFFICER, {"list": True}, reason=Reason.superseded, revoked_at=None, now=world.now
        )
        said = await mass.add_listed(conn, draft.id, None, [twice[1], b"\x06"], world.now)
        assert said == ([b"\x06"], [b"\x05"])
        assert await mass.add_listed(conn, draft.id, "beta", [twice[1]], world.now) == ([], [])
        assert await mass_sets.count(conn, draft.id) == 1


async def test_sql_and_python_agree_on_the_locks(world: World) -> None:
    """Of a certificate with a known key, and of an import without one."""
    for key in (await world.certificate(spki=key_hash()), await world.certificate(state="imported")):
        async with acquire(world.owner) as conn:
            number = await conn.fetchval(
                f"select {locks.SPKI_LOCK} from certificate c where issuer_id = $1 and serial = $2", *key
            )
            certificate = await certificates.get(conn, *key)
            assert certificate is not None
            assert number == locks._key("spki", lock_name(certificate))


async def test_members_are_locked_by_the_keys_that_they_have(world: World, runner: MassRunner) -> None:
    """Kept with the set; of one whose key an import told since, and of a set of the release before: as they are now."""
    told, spki = await world.certificate(state="imported"), key_hash()
    unknown = await world.certificate(state="imported")
    known = await populate(world, 3)
    job_id = await of_list(world, [*known, told, unknown])
    await runner.step()
    before = (await populate(world, 1))[0]
    await world.owner.execute("alter table mass_job_certificate disable trigger fixed")
    await world.owner.execute("insert into mass_job_certificate values ($1, $2, 0, $3)", job_id, *before)
    await world.owner.execute("alter table mass_job_certificate enable trigger fixed")
    await world.owner.execute(
        "update certificate set spki_sha256 = $3 where (issuer_id, serial) = ($1, $2)", *told, spki
    )
    async with acquire(world.pool) as conn, conn.transaction():
        members = await mass_sets.lock_members(conn, job_id, mass_sets.START, 10)
        held = await conn.fetch(
            "select (classid::bigint << 32 | objid::bigint) as number from pg_locks"
            " where locktype = 'advisory' and pid = pg_backend_pid()"
        )
        wanted = [await certificates.get(conn, *key) for key in (*known, told, unknown, before)]
    assert {(each.key, each.shard, each.not_after) for each in members} == {
        ((each.issuer_id, each.serial), each.shard, each.not_after) for each in wanted if each is not None
    }
    assert {row["number"] for row in held} == {
        locks._key("spki", lock_name(each)) for each in wanted if each is not None
    }


async def test_forecasts_go_by_what_the_presigner_measured(world: World, database: Any) -> None:
    """It keeps its last measurement with its own rights; the admin API reads it."""
    async with acquire(world.pool) as conn:
        assert await rates.last(conn, rates.SIGNING) is None
        async with acquire(await database.pool(PRESIGNER)) as signing:
            for measured in (1000.0, 9000.0):
                await rates.keep(signing, rates.SIGNING, measured, world.now)
        assert await rates.last(conn, rates.SIGNING) == 9000.0


async def test_a_filter(world: World, runner: MassRunner) -> None:
    """What a search finds, of whatever issuer; expired ones and our own OCSP signers apart."""
    keys = [*await populate(world, 6), *await populate(world, 3, "beta")]
    later = await populate(world, 4)
    await world.owner.execute(
        "update certificate set not_after = $1 where serial = any($2)",
        world.now + 200 * DAY,
        [serial for _, serial in later],
    )
    signer = await populate(world, 1)
    await world.owner.execute("update certificate set profile = 'ocsp-signer' where serial = $1", signer[0][1])
    until = {"expires_to": world.now + 100 * DAY}

    async def of(asked: dict[str, Any]) -> MassJob:
        async with acquire(world.pool) as conn:
            made = await mass.create(
                conn, OFFICER, {"filter": asked}, reason=Reason.superseded, revoked_at=None, now=world.now
            )
        await runner.step()
        return await look(world, made.id)

    assert (await of({"issuer": "alpha"})).total == 10
    assert (await of({"account": "nobody"})).total == 0
    assert (await of({"name": ".example.org", **until})).total == 0
    job = await of(until)
    assert job.total == 9
    await command(world, job.id, "start")
    await finish(runner)
    await exactly_once(world, keys)
    with pytest.raises(QuashError, match=r"issuer\.unknown"):
        await of({"issuer": "gamma"})


async def test_pace_by_rate(world: World, runner: MassRunner, clock: FakeClock) -> None:
    """At most so many a second, also after a standstill and for another runner; without pace at full speed again."""
    job_id = await of_list(world, await populate(world, 60))
    await runner.step()
    await command(world, job_id, "start")
    async with acquire(world.pool) as conn:
        await mass.set_pace(conn, OFFICER, job_id, Pace(per_second=3), world.now)
    for second in range(1, 6):
        assert (await runner.step(), await runner.step()) == (3, 0), second
        clock.step(1)
    clock.step(3600)
    assert [await runner.step() for _ in range(3)] == [3, 0, 0]  # no burst after a standstill
    assert (await look(world, job_id)).done == 18
    async with acquire(world.pool) as conn:
        await mass.set_pace(conn, OFFICER, job_id, Pace(), world.now)
    assert await finish(runner) == 42
    told = await world.owner.fetch("select subject from act where action = $1 order by id", mass.PACE)
    assert [row["subject"]["per_second"] for row in told] == [3, None]
    async with acquire(world.pool) as conn:
        with pytest.raises(QuashError, match=r"mass\.state"):
            await mass.set_pace(conn, OFFICER, job_id, Pace(), world.now)


async def test_pace_by_deadline(world: World, runner: MassRunner, clock: FakeClock) -> None:
    """Evenly, done a minute before; what a standstill cost is made good by going faster, and lateness is foreseen."""
    job_id = await of_list(world, await populate(world, 100))
    await runner.step()
    await command(world, job_id, "start")
    async with acquire(world.pool) as conn:
        with pytest.raises(QuashError, match=r"mass\.finish_by"):
            await mass.set_pace(conn, OFFICER, job_id, Pace(finish_by=world.now + 60), world.now)
        await mass.set_pace(conn, OFFICER, job_id, Pace(finish_by=world.now + 160), world.now)
    done = []
    for _ in range(50):
        done.append(await runner.step())
        await clock.advance(1)
    assert 48 <= sum(done) <= 52
    assert max(done) <= 2
    job = await look(world, job_id)
    assert pace.expected_at(job, clock.now()) is not None
    assert not pace.is_late(job, clock.now())
    assert pace.is_late(replace(job, per_second=0.1), clock.now())
    clock.step(25)
    for _ in range(24):
        await runner.step()
        clock.step(1)
    await runner.step()
    assert (await look(world, job_id)).done == 100


async def test_exemptions_are_two_officers_decisions(world: World, runner: MassRunner, clock: FakeClock) -> None:
    """Left out and shown in preview, proposal and job; also when decided while it runs; an ended one counts no more."""
    keys = await populate(world, 30)
    first, second, third = keys[0], keys[12], keys[29]

    async def decide(*exempt: Key, until: int = 3600, why: str = "a hospital replaces it tonight") -> None:
        targets = [Target("alpha", serial) for _, serial in exempt]
        async with acquire(world.pool) as conn:
            asked = await exemptions.payload(conn, targets, why, world.now + until, world.now)
            proposal = await approvals.propose(conn, OFFICER, exemptions.DECIDE, asked, world.now)
            with pytest.raises(QuashError, match=r"proposal\.same_person"):
                await approvals.approve(conn, OFFICER, proposal.id, proposal.sha256, world.now)
            await approvals.approve(conn, SECOND, proposal.id, proposal.sha256, world.now)

    await decide(first, third)
    with pytest.raises(QuashError, match=r"exemption\.until"):
        await decide(second, until=31 * DAY)
    async with acquire(world.pool) as conn:
        (ended, _) = await stored_exemptions.page(conn, None, 10)
        assert ended.serial == third[1]
        await exemptions.end(conn, OFFICER, ended.id, "it is replaced", world.now)
        with pytest.raises(QuashError, match=r"exemption\.over"):
            await exemptions.end(conn, OFFICER, ended.id, "again", world.now)
    job_id = await of_list(world, keys)
    await runner.step()
    job = await look(world, job_id)
    assert (job.total, job.exempt, mass.payload(job)["exempt"]) == (30, 1, 1)
    assert job.preview is not None
    assert [each["serial"] for each in job.preview["exempt"]] == [format_serial(first[1])]
    await decide(second)
    await command(world, job_id, "start")
    clock.step(7200)  # the first was part of what was previewed; the second is over by now
    await finish(runner)
    job = await look(world, job_id)
    assert (job.state, job.done, job.changed, job.exempt) == ("done", 30, 29, 1)
    await exactly_once(world, [key for key in keys if key != first])
    async with acquire(world.pool) as conn:
        (left,) = await stored_exemptions.of_job(conn, job_id)
        assert (left.serial, left.proposed_by, left.approved_by) == (first[1], "One Person", SECOND.actor)

    again = await of_list(world, [first])
    await decide(first)
    await runner.step()
    assert (await look(world, again)).exempt == 1
    key = await of_list(world, [first], Reason.keyCompromise)
    await runner.step()
    assert (await look(world, key)).exempt == 0  # C8
    await command(world, key, "start")
    await finish(runner)
    assert len(await world.history(first)) == 1


async def test_a_blocked_keys_certificate_is_never_exempt(world: World) -> None:
    """C8."""
    spki = key_hash()
    (key, other) = await populate(world, 2, spki=spki)
    await world.revoke(other, Reason.keyCompromise)
    async with acquire(world.pool) as conn:
        asked = await exemptions.payload(conn, [Target(None, key[1])], "x", world.now + 60, world.now)
        with pytest.raises(QuashError, match=r"exemption\.key_compromised"):
            await approvals.propose(conn, OFFICER, exemptions.DECIDE, asked, world.now)
