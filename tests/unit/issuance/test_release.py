"""Answer before release: the certificate leaves only once strangers get `good` for it, for both CertID hashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from issuer.issuance.api import describe
from issuer.issuance.issue import Issuance
from issuer.issuance.visible import MAX_RESPONSE, PublicAnswers
from quash.pki.certid import CertIdHash
from quash.pki.ocsp_response import GOOD, Status
from quash.runtime.clock import FakeClock, SystemClock
from quash.store import acts, orders, revocations
from quash.store.issuers import Issuer
from quash.store.orders import Order
from quash.store.revocations import Revocation
from tests.support.issuing import Responder, World, make_csr


@pytest.fixture
async def responder(world: World) -> AsyncIterator[Responder]:
    certificates = {name: await world.certificate_of(name) for name in world.hierarchy}
    async with Responder(world.hierarchy, certificates, world.clock).serving() as responder:
        yield responder


@pytest.fixture
async def second(world: World) -> AsyncIterator[Responder]:
    """Another site's responder."""
    certificates = {name: await world.certificate_of(name) for name in world.hierarchy}
    async with Responder(world.hierarchy, certificates, world.clock).serving() as responder:
        yield responder


async def _ready(issuance: Issuance) -> Order:
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    order = await issuance.advance(order.id)
    assert order.serial is not None
    return order


async def _revoke(world: World, order: Order) -> None:
    now = int(world.clock.now())
    assert order.issuer_id is not None
    async with world.owner.acquire() as conn, conn.transaction():
        act = await acts.record(conn, at=now, actor="operator:bob", action="test", subject={})
        await revocations.add(conn, [Revocation(order.issuer_id, order.serial or b"", 1, 4, now, now, None, act)])


async def _told(world: World, order_id: UUID) -> dict[str, Any]:
    async with world.owner.acquire() as conn:
        order = await orders.get(conn, order_id)
        assert order is not None
        return await describe(conn, order)


async def test_nothing_is_released_before_both_hashes_are_answered(world: World, responder: Responder) -> None:
    """No answer, then SHA-1 alone, then both: only the last releases certificate and chain."""
    async with PublicAnswers([responder.url], world.clock) as answers:
        issuance = world.issuance(answers=answers)
        order = await _ready(issuance)
        told = await _told(world, order.id)
        assert (told["state"], told["certificate"], told["chain"]) == ("ready", None, None)
        assert responder.requests == 1  # the other hash would come out with it

        responder.says[order.serial], responder.hashes = GOOD, {CertIdHash.SHA1}
        assert await issuance.step() == 0
        responder.hashes = {CertIdHash.SHA256}
        assert await issuance.step() == 0
        assert (await _told(world, order.id))["certificate"] is None

        responder.hashes = set(CertIdHash)
        assert await issuance.step() == 1
    told = await _told(world, order.id)
    assert told["state"] == "issued"
    assert told["certificate"].startswith("-----BEGIN CERTIFICATE-----")
    assert told["chain"].count("BEGIN CERTIFICATE") == 1  # the sub-CA; clients have the root
    assert told["not_after"] == "2027-08-02T07:59:59Z"


async def test_every_configured_responder_must_answer(world: World, responder: Responder, second: Responder) -> None:
    """One site of two is not enough; a trailing slash in its URL does no harm."""
    async with PublicAnswers([responder.url, second.url + "/"], world.clock) as answers:
        issuance = world.issuance(answers=answers)
        order = await _ready(issuance)
        responder.says[order.serial] = GOOD
        assert await issuance.step() == 0
        second.says[order.serial] = GOOD
        assert await issuance.step() == 1


async def test_a_dead_responder_is_no_answer(world: World, responder: Responder) -> None:
    """Nobody listens: the order waits, and goes on when somebody does."""
    async with PublicAnswers(["http://127.0.0.1:1"], world.clock) as answers:
        order = await _ready(world.issuance(answers=answers))
        assert (await world.issuance(answers=answers).advance(order.id)).state == "ready"
    responder.says[order.serial] = GOOD
    async with PublicAnswers([responder.url], world.clock) as answers:
        assert (await world.issuance(answers=answers).advance(order.id)).state == "issued"


BELIEVED_NOT = {
    "garbage": lambda body: b"<html>ok</html>",
    "empty": lambda body: b"",
    "truncated": lambda body: body[:-7],
    "changed": lambda body: body.replace(b"20270115080000Z", b"20270115080001Z"),
    "huge": lambda body: body + bytes(MAX_RESPONSE),
}


@pytest.mark.parametrize("case", BELIEVED_NOT)
async def test_what_does_not_verify_is_not_believed(world: World, responder: Responder, case: str) -> None:
    """Bytes that are no signed answer of the issuer release nothing."""
    async with PublicAnswers([responder.url], world.clock) as answers:
        issuance = world.issuance(answers=answers)
        order = await _ready(issuance)
        responder.says[order.serial], responder.mangle = GOOD, BELIEVED_NOT[case]
        assert await issuance.step() == 0
        responder.mangle = bytes
        assert await issuance.step() == 1


@pytest.mark.parametrize("age", [-60, 3 * 86_400])
async def test_an_answer_from_another_time_is_not_believed(world: World, responder: Responder, age: int) -> None:
    """An answer of the future, or past its nextUpdate, releases nothing."""
    async with PublicAnswers([responder.url], world.clock) as answers:
        issuance = world.issuance(answers=answers)
        order = await _ready(issuance)
        responder.says[order.serial], responder.age = GOOD, age
        assert await issuance.step() == 0
        responder.age = 0
        assert await issuance.step() == 1


async def test_an_answer_revoked_does_not_release(world: World, responder: Responder) -> None:
    """`revoked` is an answer, and not the one that lets a certificate out."""
    async with PublicAnswers([responder.url], world.clock) as answers:
        issuance = world.issuance(answers=answers)
        order = await _ready(issuance)
        responder.says[order.serial] = Status(1, int(world.clock.now()))
        assert await issuance.step() == 0


async def test_a_certificate_revoked_before_its_release_is_never_handed_out(world: World) -> None:
    """Its order ends as refused: nobody would ever answer `good`."""
    async with PublicAnswers(["http://127.0.0.1:1"], world.clock) as answers:
        issuance = world.issuance(answers=answers)
        order = await _ready(issuance)
        await _revoke(world, order)
        assert await issuance.step() == 1
    told = await _told(world, order.id)
    assert (told["state"], told["code"], told["certificate"]) == ("refused", "certificate.revoked", None)


async def test_workers_that_meet_at_the_end_agree(world: World) -> None:
    """Four workers end one revoked order at once: one act, and each of them sees the refusal."""
    async with PublicAnswers(["http://127.0.0.1:1"], world.clock) as answers:
        order = await _ready(world.issuance(answers=answers))
        await _revoke(world, order)
        workers = [world.issuance(answers=answers) for _ in range(4)]
        ended = await asyncio.gather(*(worker.finish(order.id, timeout=0) for worker in workers))
    assert {each.state for each in ended} == {"refused"}
    assert len(await world.fetch("select from act where action = 'order.refuse'")) == 1


async def test_an_order_that_outlives_its_certificate_ends(world: World, clock: FakeClock) -> None:
    """When no responder ever answered until notAfter, the order ends instead of asking for ever."""
    async with PublicAnswers(["http://127.0.0.1:1"], world.clock) as answers:
        issuance = world.issuance(answers=answers)
        order = await _ready(issuance)
        clock.step(200 * 86_400)
        assert await issuance.step() == 1
    assert (await _told(world, order.id))["code"] == "certificate.expired"


class Late:
    """`Answers` that begin to say good when a test lets them; `again`: they were asked twice."""

    def __init__(self) -> None:
        self.asked, self.public, self.again = 0, False, asyncio.Event()

    async def good(self, issuer: Issuer, issuer_certificate: bytes, serial: bytes) -> bool:
        self.asked += 1
        if self.asked == 2:
            self.again.set()
        return self.public


async def test_whoever_waits_asks_strangers_and_nobody_else_takes_the_order_up(world: World) -> None:
    """A7: while a client waits, the public is asked again and again, and `step` leaves the order alone."""
    late = Late()
    clock = SystemClock()
    clock.now = world.clock.now  # type: ignore[method-assign]  # waits are real, times are the world's
    issuance = world.issuance(answers=late, clock=clock)
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    waiting = asyncio.create_task(issuance.finish(order.id, timeout=60))
    await late.again.wait()
    assert await issuance.step() == 0
    assert [row["state"] for row in await world.fetch("select state from certificate_order")] == ["ready"]
    late.public = True
    assert (await waiting).state == "issued"
