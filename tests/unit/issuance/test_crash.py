"""Flow 1 interrupted between any two steps: the order goes on, or its serial is revoked; never two certificates."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from issuer.issuance.issue import Issuance
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.runtime.clock import FakeClock, SystemClock
from quash.store.roles import ISSUING
from tests.support.issuing import World, make_csr

# What is interrupted: after a step of the recipe is complete, or around the CA signer's own work.
POINTS = ("accept", "reserve", "before the signer", "signed but not told", "sign", "commit", "release")
COMMITTED = POINTS[1:]  # a serial exists
RELEASABLE = ("commit", "release")  # T3 is done


class ProcessEndedError(Exception):
    """The process ends here: nothing behind this line runs."""


Blow = Callable[[], Awaitable[None]]


async def _raise() -> None:
    raise ProcessEndedError


@pytest.fixture
def kill(world: World, cluster: Any) -> Blow:
    """Ends every database session of the issuing role, as a killed process or a restarted server does."""

    async def terminate() -> None:
        admin = await cluster.admin()
        try:
            (database,) = await world.fetch("select current_database() as name")
            await admin.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = $1 and datname = $2",
                ISSUING,
                database["name"],
            )
        finally:
            await admin.close()

    return terminate


def _interrupted(world: World, point: str, blow: Blow) -> Issuance:
    """The use case that suffers `blow` at one point."""

    async def passed(step: str) -> None:
        if step == point:
            await blow()

    async def sign(issuer_id: int, serial: bytes) -> bytes:
        if point == "before the signer":
            await blow()
        der = await world.signer.sign_certificate(issuer_id, serial)
        if point == "signed but not told":
            await blow()
        return der

    return world.issuance(passed=passed, sign=sign)


async def _suffer(world: World, point: str, blow: Blow, *, whole: bool = False) -> None:
    """One order up to the blow. What the caller sees of it is not what counts.

    `whole`: as a client's order goes, on one connection as far as it is signed.
    """
    issuance = _interrupted(world, point, blow)
    with contextlib.suppress(ProcessEndedError, QuashError):
        if whole:
            await issuance.order("operator:ann", "tls-dv", make_csr(), by=None, timeout=0)
        else:
            order = await issuance.submit("operator:ann", "tls-dv", make_csr())
            await issuance.advance(order.id)


async def _assert_invariants(world: World) -> None:
    """At most one certificate for a serial, the one that was signed; every serial has a certificate or is revoked."""
    rows = await world.fetch(
        "select c.serial, c.state, c.tbs, c.der, l.der as signed, r.reason, o.state as order_state,"
        " (select count(*) from outbox b where b.issuer_id = c.issuer_id and b.serial = c.serial) as news"
        " from certificate c join certificate_order o on o.id = c.order_id"
        " left join signing_log l on l.issuer_id = c.issuer_id and l.serial = c.serial"
        " left join revocation r on r.issuer_id = c.issuer_id and r.serial = c.serial and r.version = 1"
    )
    for row in rows:
        answered = row["state"] == "issued" or row["reason"] is not None
        assert answered, dict(row)
        assert row["news"] >= 1, "the presigner never hears of it"
        if row["state"] == "issued":
            assert row["der"] == row["signed"]
            assert row["tbs"] is None
        assert row["order_state"] == ("refused" if row["reason"] is not None else "issued")
    assert len(await world.fetch("select from signing_log")) <= len(rows)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("point", POINTS)
async def test_after_a_crash_the_order_resumes(world: World, database: Any, point: str, *, whole: bool) -> None:
    """An exception ends the process between two steps; the next process finishes the order with the same serial."""
    await _suffer(world, point, _raise, whole=whole)
    before = await world.fetch("select serial from certificate")
    restarted = world.issuance(pool=await database.pool(ISSUING))

    await restarted.step()

    (order,) = await world.fetch("select state, serial from certificate_order")
    assert order["state"] == "issued"
    after = await world.fetch("select serial from certificate")
    assert [row["serial"] for row in after] == [order["serial"]]
    assert before in ([], after)
    await _assert_invariants(world)
    assert await restarted.step() == 0


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_connection_loses_nothing(world: World, kill: Blow, point: str, *, whole: bool) -> None:
    """The database ends our sessions between two steps; the same process goes on with new ones."""
    await _suffer(world, point, kill, whole=whole)
    again = world.issuance()
    for _ in range(3):  # each dead connection of the pool costs one attempt
        with contextlib.suppress(QuashError):
            await again.step()
    (order,) = await world.fetch("select state from certificate_order")
    assert order["state"] == "issued"
    assert len(await world.fetch("select from certificate")) == 1
    await _assert_invariants(world)


@pytest.mark.parametrize("point", POINTS)
async def test_an_order_left_for_long_is_given_up_and_its_serial_revoked(
    world: World, database: Any, clock: FakeClock, point: str
) -> None:
    """After `resume_seconds`, nothing is signed any more: a committed serial is revoked as superseded and announced."""
    await _suffer(world, point, _raise)
    clock.step(world.config.issuance.resume_seconds)
    restarted = world.issuance(pool=await database.pool(ISSUING))

    await restarted.step()

    (order,) = await world.fetch("select state, code from certificate_order")
    revoked = await world.fetch("select reason, version, shard, revoked_at from revocation")
    if point in RELEASABLE:
        assert (order["state"], revoked) == ("issued", [])
    else:
        assert (order["state"], order["code"]) == ("refused", "order.expired")
        assert [row["reason"] for row in revoked] == ([Reason.superseded] if point in COMMITTED else [])
        assert all(row["revoked_at"] == int(clock.now()) for row in revoked)
    await _assert_invariants(world)
    assert len(await world.fetch("select from signing_log")) <= 1


async def test_an_abandoned_serial_carries_its_shard_and_its_act(world: World, database: Any, clock: FakeClock) -> None:
    """The revocation of a given-up serial goes to the CRL that its CRLDP names (B16), with an act that says why."""
    await _suffer(world, "reserve", _raise)
    clock.step(world.config.issuance.resume_seconds)
    await world.issuance(pool=await database.pool(ISSUING)).step()
    (row,) = await world.fetch(
        "select r.shard, c.shard as of_certificate, a.action, a.actor, a.subject from revocation r"
        " join certificate c using (issuer_id, serial) join act a on a.id = r.act_id"
    )
    assert row["shard"] == row["of_certificate"] is not None
    assert (row["action"], row["actor"]) == ("certificate.abandon", "operator:ann")
    assert row["subject"]["reason"] == "superseded"


async def test_a_signer_that_is_away_delays_and_does_not_refuse(world: World) -> None:
    """While the CA signer does not answer, the order stays pending with its serial; then it is signed."""
    away = True

    async def sign(issuer_id: int, serial: bytes) -> bytes:
        if away:
            raise QuashError("rpc.unavailable", "down", Kind.UNAVAILABLE)
        return await world.signer.sign_certificate(issuer_id, serial)

    issuance = world.issuance(sign=sign)
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    order = await issuance.finish(order.id, timeout=0)
    assert order.state == "pending"
    assert await issuance.step() == 0
    serial = order.serial
    away = False
    assert await issuance.step() == 1
    (row,) = await world.fetch("select serial, state from certificate_order")
    assert (row["serial"], row["state"]) == (serial, "issued")


async def test_a_certificate_that_was_not_reserved_is_not_taken(world: World) -> None:
    """D19: the signer's answer for another serial is refused, and the row keeps its reservation."""
    first = world.issuance()
    other = await first.submit("operator:ann", "tls-dv", make_csr())
    other = await first.finish(other.id, timeout=0)
    (row,) = await world.fetch("select der from certificate")

    async def sign(_issuer_id: int, _serial: bytes) -> bytes:
        return bytes(row["der"])

    issuance = world.issuance(sign=sign)
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    with pytest.raises(QuashError, match=r"signer\.other_certificate"):
        await issuance.advance(order.id)
    states = await world.fetch("select state from certificate order by state")
    assert [each["state"] for each in states] == ["issued", "reserved"]


async def test_an_order_has_one_worker_at_a_time(world: World) -> None:
    """A second process that meets an order under way leaves it alone: one serial, one signature."""
    calls = []
    rival = world.issuance()

    async def sign(issuer_id: int, serial: bytes) -> bytes:
        calls.append(serial)
        assert (await rival.advance(order.id)).state == "pending"
        return await world.signer.sign_certificate(issuer_id, serial)

    issuance = world.issuance(sign=sign)
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    assert (await issuance.advance(order.id)).state == "issued"
    assert len(calls) == 1
    assert len(await world.fetch("select from certificate")) == 1


async def test_an_order_is_its_workers_before_anybody_sees_it(world: World) -> None:
    """A second process that looks the moment the order is committed finds it taken: one serial, one signature."""
    rival = world.issuance()

    async def passed(step: str) -> None:
        if step in ("accept", "reserve"):
            assert await rival.step() == 0

    order = (await world.issuance(passed=passed).order("operator:ann", "tls-dv", make_csr(), by=None, timeout=0)).order
    assert order.state == "issued"
    assert len(await world.fetch("select from certificate")) == len(await world.fetch("select from signing_log")) == 1


async def test_a_passing_fault_leaves_an_order_to_whoever_waits_for_it(world: World) -> None:
    """The client's own worker goes on with it, from what is committed, as long as the client waits."""
    clock = SystemClock()
    clock.now = world.clock.now  # type: ignore[method-assign]  # waits are real, times are the world's
    faults = [QuashError("rpc.unavailable", "down", Kind.UNAVAILABLE) for _ in range(2)]

    async def sign(issuer_id: int, serial: bytes) -> bytes:
        if faults:
            raise faults.pop()
        return await world.signer.sign_certificate(issuer_id, serial)

    issuance = world.issuance(sign=sign, clock=clock)
    order = (await issuance.order("operator:ann", "tls-dv", make_csr(), by=None, timeout=60)).order
    assert (order.state, faults) == ("issued", [])
    assert len(await world.fetch("select from certificate")) == 1


async def test_one_broken_order_holds_up_no_other(world: World) -> None:
    """A fault that nobody foresaw, with one order, leaves the others moving."""
    broken: list[bytes] = []

    async def sign(issuer_id: int, serial: bytes) -> bytes:
        if not broken:
            broken.append(serial)
        if serial == broken[0]:
            raise RuntimeError("a bug")
        return await world.signer.sign_certificate(issuer_id, serial)

    issuance = world.issuance(sign=sign)
    for _ in range(6):
        await issuance.submit("operator:ann", "tls-dv", make_csr())
    # A look moves each that no passing fault (a session that does not open in time, say) leaves to the next one.
    moved = 0
    for _ in range(3):
        moved += await issuance.step()
    assert moved == 5
    states = await world.fetch("select state, count(*) as n from certificate_order group by 1 order by 1")
    assert [tuple(row) for row in states] == [("issued", 5), ("pending", 1)]


async def test_a_resumed_order_may_not_cross_a_validity_limit(world: World, database: Any, clock: FakeClock) -> None:
    """D-4: reserved for 199 days just before 2027-03-15, it is not signed after midnight but given up."""
    clock.step(1_805_068_800 - clock.now() - 60)
    await _suffer(world, "reserve", _raise)
    clock.step(120)
    await world.issuance(pool=await database.pool(ISSUING)).step()
    (order,) = await world.fetch("select state, code from certificate_order")
    assert tuple(order) == ("refused", "validity.too_long")
    assert await world.fetch("select from signing_log") == []
    await _assert_invariants(world)
