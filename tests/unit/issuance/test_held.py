"""High-profile names wait for an officer (G19, D38)."""

from __future__ import annotations

from uuid import uuid4

import pytest

from issuer.issuance.validations import record
from quash.errors import Kind, QuashError
from quash.runtime.clock import FakeClock
from quash.store import operators
from quash.store.operators import Operator
from quash.store.orders import Order
from tests.support.issuing import World, make_config, make_csr

ANN, BOB = "operator:ann", "operator:bob"


async def _held(world: World, name: str = "login-paypal.example.org") -> Order:
    config = make_config(world.config, high_profile=["paypal"])
    return await world.issuance(config=config).submit(ANN, "tls-dv", make_csr(["www.example.org", name]))


async def test_an_order_with_such_a_name_waits_and_nothing_is_reserved(world: World) -> None:
    """However often it is driven, a held order stays held; the act names what was seen."""
    order = await _held(world)
    assert (order.state, order.detail) == ("held", "an officer looks at login-paypal.example.org first (G19)")
    assert (await world.issuance().finish(order.id, timeout=60)).state == "held"
    assert await world.issuance().step() == 0
    assert await world.fetch("select from certificate") == []
    (act,) = await world.fetch("select actor, action, subject from act")
    assert (act["actor"], act["action"]) == (ANN, "order.hold")
    assert act["subject"]["names"] == "login-paypal.example.org"
    assert (await _held(world, "www.example.net")).state == "pending"


async def test_a_released_order_is_issued_even_after_days(world: World, clock: FakeClock) -> None:
    """Its age counts from the release; who released it is on record."""
    order = await _held(world)
    clock.step(5 * 86_400)
    released = await world.issuance().decide(order.id, BOB, None)
    assert (released.state, released.detail) == ("pending", None)
    assert (await world.issuance().finish(order.id, timeout=0)).state == "issued"
    acts = await world.fetch("select actor, action from act order by id")
    assert [tuple(act) for act in acts] == [
        (ANN, "order.hold"),
        (BOB, "order.release"),
        (ANN, "certificate.issue"),
    ]


async def test_a_refused_order_is_over(world: World) -> None:
    """The applicant reads the reason; a second decision is a conflict."""
    order = await _held(world)
    refused = await world.issuance().decide(order.id, BOB, "not their name")
    assert (refused.state, refused.code, refused.detail) == ("refused", "order.high_profile", "not their name")
    for refusal in (None, "again"):
        with pytest.raises(QuashError) as error:
            await world.issuance().decide(order.id, BOB, refusal)
        assert error.value.code == "order.conflict"
    assert await world.fetch("select from certificate") == []
    assert len(await world.fetch("select from act where action = 'order.refuse'")) == 1


async def test_nobody_decides_about_an_order_of_their_own(world: World) -> None:
    """Four eyes, and an unknown order is unknown."""
    order = await _held(world)
    for refusal in (None, "no"):
        with pytest.raises(QuashError) as error:
            await world.issuance().decide(order.id, ANN, refusal)
        assert (error.value.code, error.value.kind) == ("order.own", Kind.FORBIDDEN)
    with pytest.raises(QuashError, match=r"order\.unknown"):
        await world.issuance().decide(uuid4(), BOB, None)
    assert [row["state"] for row in await world.fetch("select state from certificate_order")] == ["held"]


# Name of a certificate, its holder, role, state, account.
CERTIFICATES = (
    ("ann", "Ann Example", "operator", "active", None),
    ("ann-officer", "ANN  Example", "officer", "active", None),
    ("acme-1", "Carol Example", "reseller", "active", "acme"),
    ("acme-2", "Ann Example", "reseller", "disabled", "acme"),
    ("bob", "Bob Example", "officer", "active", None),
)


async def _add_operators(world: World) -> None:
    async with world.owner.acquire() as conn:
        for number, (name, person, role, state, account) in enumerate(CERTIFICATES):
            await operators.add(conn, Operator(bytes([number] * 32), name, person, role, state, account), 0)


@pytest.mark.parametrize(("applicant", "by"), [(ANN, None), ("account:acme", "operator:acme-1")])
async def test_four_eyes_are_of_two_persons_whatever_certificates_they_hold(
    world: World, applicant: str, by: str | None
) -> None:
    """F9, G19: neither one's own order, nor one's account's, also where its certificate was disabled since."""
    await _add_operators(world)
    issuance = world.issuance(config=make_config(world.config, high_profile=["paypal"]))
    order = await issuance.submit(applicant, "tls-dv", make_csr(["paypal.example.org"]), by=by)
    example, now = {"kind": "dns", "value": "example.org"}, int(world.clock.now())
    for refusal in (None, "no"):
        with pytest.raises(QuashError, match=r"order\.own"):
            await issuance.decide(order.id, "operator:ann-officer", refusal)
    async with world.pool.acquire() as conn:
        with pytest.raises(QuashError, match=r"validation\.own"):
            await record(
                conn, "operator:ann-officer", applicant, example, method="3.2.2.4.7", validated_at=now, now=now
            )
        assert await world.fetch("select from validated_identifier") == []
        await record(conn, BOB, applicant, example, method="3.2.2.4.7", validated_at=now, now=now)
    assert (await issuance.decide(order.id, BOB, None)).state == "pending"
