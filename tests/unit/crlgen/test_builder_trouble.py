"""What a CRL builder does when something else is wrong, and how it tells."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY

from crlgen.publish.folder import FolderPublisher
from quash.errors import Kind, QuashError
from quash.store import crl_demands, crls
from quash.store.database import acquire
from tests.support.crl_bench import DAY, Bench


async def test_second_builder_stands_by_and_takes_over(bench: Bench) -> None:
    """Two builders never work at once; when the first is gone the second goes on with the next number."""
    ca = await bench.issuer()
    await bench.settle()
    first, pool = bench.builder, bench.pool
    bench.pool = None
    second = await bench.start()
    await bench.revoked(ca)
    await second.step()
    await bench.clock.advance(5)
    assert await second.step() == 0
    await first.close()
    await pool.close()
    await bench.settle()
    assert bench.read().number == 2
    assert second.problems == {}


async def test_builder_that_lost_its_lease_publishes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder that was paused while signing and lost its lease to another does not overwrite what that one does."""
    ca = await bench.issuer()
    await bench.settle()
    serial = await bench.revoked(ca)
    await bench.builder.step()
    await bench.clock.advance(2)
    sign = bench.signer.sign_crl

    async def sign_slowly(*arguments: Any) -> bytes:
        await bench.database.owner.execute("update lease set fence = fence + 1 where name = 'crl-builder'")
        return await sign(*arguments)

    monkeypatch.setattr(bench.signer, "sign_crl", sign_slowly)
    assert await bench.builder.step() == 0
    assert bench.read().number == 1
    monkeypatch.undo()
    await bench.settle()
    assert set(bench.listed()) == {serial}


async def test_unreachable_ca_signer_is_a_problem_with_a_name_until_it_is_back(bench: Bench) -> None:
    """The published CRL stays, `problems` names scope and code, and the next try after its return succeeds."""
    ca = await bench.issuer()
    await bench.settle()
    before = bench.path("ca.crl").read_bytes()
    serial = await bench.revoked(ca)
    bench.signer.fail = QuashError("rpc.unavailable", "ca-signer.sock does not answer", Kind.UNAVAILABLE)
    await bench.settle()
    assert bench.path("ca.crl").read_bytes() == before
    assert "rpc.unavailable" in bench.builder.problems["ca.crl"]
    bench.signer.fail = None
    await bench.settle(11)
    assert set(bench.listed()) == {serial}
    assert bench.builder.problems == {}


async def test_trouble_of_one_scope_leaves_the_others_alone(bench: Bench) -> None:
    """A scope that cannot be signed does not keep another issuer's CRL from being published."""
    broken, sound = await bench.issuer("broken"), await bench.issuer("sound")
    await bench.settle()
    for ca in (broken, sound):
        await bench.revoked(ca)
    del bench.signer.cas[broken.id]
    original = bench.signer.sign_crl

    async def refuse(issuer_id: int, scope: str, tbs: bytes) -> bytes:
        if issuer_id == broken.id:
            raise QuashError("key.unavailable", "the token is gone", Kind.UNAVAILABLE)
        return await original(issuer_id, scope, tbs)

    bench.signer.sign_crl = refuse  # type: ignore[method-assign]
    await bench.settle()
    assert len(bench.listed("sound.crl")) == 1
    assert set(bench.builder.problems) == {"broken.crl"}


async def test_revocation_of_a_shard_without_a_crl_is_reported(bench: Bench) -> None:
    """A shard number that no scope has would drop its revocations silently: it becomes a problem with its name."""
    ca = await bench.issuer("dv", shards=1)
    await bench.settle()
    await bench.revoked(ca, shard=7)
    await bench.clock.advance(3600)
    await bench.builder.step()
    assert "dv shard 7" in bench.builder.problems["scopes"]


async def test_lost_connections_cost_one_step_and_nothing_else(bench: Bench, cluster: Any) -> None:
    """When the server ends every session, a step fails as `store.unavailable` or goes through; then work goes on."""
    ca = await bench.issuer()
    serial = await bench.revoked(ca)
    await bench.settle()
    admin = await cluster.admin()
    await admin.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'quash_crl_builder'"
    )
    await admin.close()
    later = await bench.revoked(ca)
    failures = []
    for _ in range(6):
        try:
            await bench.settle()
        except QuashError as error:
            failures.append(error.code)
    assert set(failures) <= {"store.unavailable"}
    assert set(bench.listed()) == {serial, later}
    assert bench.builder.problems == {}


LATE_SECONDS = {"issuer": "ca", "scope": "full"}


def late_seconds() -> float:
    return REGISTRY.get_sample_value("quash_crl_late_seconds", LATE_SECONDS) or 0.0


async def test_late_revocation_is_an_alarm_at_half_of_what_is_allowed(bench: Bench) -> None:
    """G1 allows 2 hours: `problems` says from the start how late the scope is, the alarm comes once, after one hour."""
    ca = await bench.issuer()
    await bench.settle()
    before = REGISTRY.get_sample_value("quash_crl_alarms_total", {"code": "crl.late"}) or 0.0

    def alarmed() -> float:
        return (REGISTRY.get_sample_value("quash_crl_alarms_total", {"code": "crl.late"}) or 0.0) - before

    await bench.revoked(ca)
    bench.signer.fail = QuashError("rpc.unavailable", "ca-signer.sock does not answer", Kind.UNAVAILABLE)
    await bench.settle(600)
    assert "rpc.unavailable" in bench.builder.problems["ca.crl"]
    assert "late by 0:10:00 of 2:00:00 (revoked)" in bench.builder.problems["ca.crl"]
    assert (late_seconds(), alarmed()) == (600, 0)
    for _ in range(2):
        await bench.settle(3000)
    assert (late_seconds(), alarmed()) == (6600, 1)
    bench.signer.fail = None
    await bench.clock.advance(11)
    assert await bench.builder.step() == 1
    assert (late_seconds(), bench.builder.problems) == (0, {}), "with the very step that published it"
    await bench.settle()
    assert (late_seconds(), bench.builder.problems) == (0, {})


async def test_lateness_survives_a_restart_and_covers_the_schedule_and_what_is_not_trusted(bench: Bench) -> None:
    """It is counted from the revocation's own time and from the schedule, not from when a process noticed."""
    ca = await bench.issuer()
    await bench.settle()
    await bench.revoked(ca)
    bench.signer.fail = QuashError("rpc.unavailable", "ca-signer.sock does not answer", Kind.UNAVAILABLE)
    await bench.clock.advance(1200)
    await bench.start()
    await bench.settle()
    assert "late by 0:20:03 of 2:00:00 (revoked)" in bench.builder.problems["ca.crl"]
    await bench.settle(DAY + DAY // 2)
    assert late_seconds() > DAY
    bench.builder._trusted, bench.builder._trust_again_at = False, float("inf")
    await bench.settle()
    assert "late by" in bench.builder.problems["ca.crl"]


async def test_crl_from_the_future_is_replaced_only_by_command(bench: Bench) -> None:
    """A clock that was ahead dates a CRL in the future: it stays until an officer orders otherwise, with a reason.

    The number rises all the same, and the order is spent with the CRL that followed it.
    """
    ca = await bench.issuer()
    await bench.settle()
    bench.clock.step(40 * DAY)
    first = await bench.revoked(ca)
    await bench.settle()
    future = bench.read().this_update
    bench.clock.step(-40 * DAY)
    second = await bench.revoked(ca)
    await bench.settle(300)
    assert "crl.clock_went_back" in bench.builder.problems["ca.crl"]
    assert "replace-future" in bench.builder.problems["ca.crl"]
    (state,) = await states_of(bench)
    async with acquire(bench.database.owner) as conn, conn.transaction():
        await crl_demands.add(conn, [state.scope], actor="test", at=int(bench.clock.now()))
    await bench.settle(300)
    assert bench.read().number == 2, "a demand for a CRL now is no order to go back"
    async with acquire(bench.database.owner) as conn, conn.transaction():
        now = int(bench.clock.now())
        await crl_demands.add(conn, [state.scope], actor="test", at=now, replaces_future="the clock ran ahead")
    await bench.settle(300)
    crl = bench.read()
    assert crl.number > 2
    assert crl.this_update < future
    assert abs(crl.this_update - bench.clock.now()) <= 301
    assert set(bench.listed()) == {first, second}
    assert bench.builder.problems == {}
    act = await bench.database.owner.fetchval("select subject from act where action = 'crl.replace_future'")
    assert act["why"] == "the clock ran ahead"
    bench.clock.step(-DAY)
    await bench.revoked(ca)
    await bench.settle(300)
    assert "crl.clock_went_back" in bench.builder.problems["ca.crl"], "the order is spent"


async def states_of(bench: Bench) -> list[crls.ScopeState]:
    async with acquire(bench.database.owner) as conn:
        return await crls.states(conn)


async def test_builder_paused_before_publishing_overwrites_nothing(bench: Bench, cluster: Any) -> None:
    """Paused between recording its CRL and the put, it wakes after another builder has published: the put is refused.

    Each number was published at most once, and the file is the other builder's.
    """
    ca = await bench.issuer()
    await bench.settle()
    paused, go_on = asyncio.Event(), asyncio.Event()

    class Pausing(FolderPublisher):
        async def put(self, name: str, body: bytes, replaces: str | None) -> str:
            paused.set()
            await go_on.wait()
            return await super().put(name, body, replaces)

    first = await bench.start(Pausing(bench.folder))
    one = await bench.revoked(ca)
    await first.step()
    await bench.clock.advance(2)
    stuck = asyncio.create_task(first.step())
    await paused.wait()
    pool = bench.pool
    admin, name = await cluster.admin(), await bench.database.owner.fetchval("select current_database()")
    await admin.execute(
        "select pg_terminate_backend(pid, 5000) from pg_locks where locktype = 'advisory' and granted"
        " and database = (select oid from pg_database where datname = $1)",
        name,
    )
    await admin.close()
    bench.pool = None
    await bench.start()
    two = await bench.revoked(ca)
    await bench.settle()
    assert set(bench.listed()) == {one, two}
    number, body = bench.read().number, bench.path("ca.crl").read_bytes()
    assert number == 3, "the number of the paused one is spent"
    go_on.set()
    await stuck
    assert bench.path("ca.crl").read_bytes() == body
    assert "publish.conflict" in first.problems["ca.crl"]
    assert await first.step() == 0
    rows = await bench.database.owner.fetch("select number from crl where published_at is not null order by number")
    assert [int(row["number"]) for row in rows] == [1, 3]
    await first.close()
    await pool.close()


async def test_retired_issuer_keeps_its_last_crl_and_is_no_problem(bench: Bench) -> None:
    """B6: CRLs are made until the last certificate of the issuer has ended, up to its very end; then nothing is late.

    A renewed certificate brings the issuer back by itself.
    """
    ca = await bench.issuer()
    serial = await bench.revoked(ca, not_after=bench.clock.now() + 400 * DAY)
    ends = int(bench.clock.now()) + 10 * DAY
    await bench.database.owner.execute("update issuer_certificate set not_after = $1", ends)
    for _ in range(12):
        await bench.settle(DAY)
    last = bench.read()
    assert last.next_update == ends
    assert set(bench.listed()) == {serial}
    await bench.revoked(ca)
    await bench.settle(DAY)
    assert bench.builder.problems == {}
    assert missing_and_late() == (0, 0)
    assert bench.read() == last
    await bench.database.owner.execute("update issuer_certificate set not_after = $1", ends + 500 * DAY)
    await bench.settle(400)
    await bench.settle()
    assert bench.read().number > last.number
    assert len(bench.listed()) == 2
    assert bench.builder.problems == {}


def missing_and_late() -> tuple[float, float]:
    return REGISTRY.get_sample_value("quash_crl_missing", LATE_SECONDS) or 0.0, late_seconds()
