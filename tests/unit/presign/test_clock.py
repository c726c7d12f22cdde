"""A signer whose clock is off signs nothing, and no clock shadows a later revocation."""

from __future__ import annotations

from typing import Any

import pytest

from quash.cache import layout
from quash.errors import QuashError
from quash.runtime.clock import FakeClock
from responder.presign.agreement import ClockAgreement


@pytest.mark.parametrize("off", [-3600.0, -6.0, 6.0, 3600.0])
async def test_a_clock_off_the_databases_signs_nothing(world: Any, off: float) -> None:
    """More than 5 s from the database's clock, ahead or behind: not even a heartbeat goes out."""
    authority = await world.authority()
    await world.issue(authority)
    presigner = await world.presigner(clock=FakeClock(world.clock.now() + off))
    with pytest.raises(QuashError) as refused:
        await presigner.step()
    assert refused.value.code == "presign.clock_disagrees"
    assert await world.database.owner.fetchval("select count(*) from feed") == 0


async def test_a_clock_that_jumps_gives_the_lease_up(world: Any) -> None:
    """A leader whose clock jumps ahead signs no more, and another process takes over at once."""
    authority = await world.authority()
    jumping = FakeClock(world.clock.now())
    leader, other = await world.presigner(clock=jumping), await world.presigner()
    await leader.step()
    assert await other.step() == 0
    jumping.step(3600)
    serial = await world.issue(authority)
    with pytest.raises(QuashError, match=r"presign\.clock_disagrees"):
        await leader.step()
    assert await other.step() > 0
    assert (await world.cache())[authority.id, serial].this_update == world.now


async def test_a_tolerated_lead_cannot_shadow_a_later_revocation(world: Any) -> None:
    """The fast signer's `good` has the later thisUpdate, and the slow signer's `revoked` counts all the same."""
    authority = await world.authority()
    await world.clock.advance(60)  # the signer's certificate began for the slow clock too
    serial = await world.issue(authority)
    fast = await world.presigner(clock=FakeClock(world.clock.now() + 4))
    await fast.step()
    good = (await world.cache())[authority.id, serial]
    await fast.close()
    assert good.this_update == world.now + 4
    await world.revoke(authority, serial, at=world.now - 60)
    slow = await world.presigner(clock=FakeClock(world.clock.now() - 4))
    await slow.step()
    revoked = (await world.cache())[authority.id, serial]
    assert revoked.this_update < good.this_update
    assert (revoked.version, revoked.reason) == (1, 1)


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_signed_ahead_of_time_is_signed_again(world: Any, restarted: bool) -> None:
    """Ours and the database's clock both ran 10 days ahead: nodes refused it all as from the future, for good."""
    authority = await world.authority()
    await world.clock.advance(60)
    old, revoked = await world.issue(authority), await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    world.clock.step(10 * 86_400)
    await presigner.step()  # a refresh
    await world.revoke(authority, revoked, at=world.now)
    await presigner.step()
    world.clock.step(-10 * 86_400)
    if restarted:
        await presigner.close()
        presigner = await world.presigner()
    before = set(await world.feed("records"))
    await world.clock.advance(2)
    await presigner.step()
    fed = set(await world.feed("records")) - before
    again = [item for payload in fed for item in layout.decode_batch(payload)]
    records = {serial: layout.decode_record(record) for _, serial, record in again}
    assert {old, revoked} <= records.keys()
    assert (records[revoked].version, records[revoked].reason) == (1, 1)
    assert all(record.this_update <= world.now for record in records.values())
    # and the refresh goes on from today, not from the day that was not
    assert await world.database.owner.fetchval("select max(due_at) from bucket") <= world.now + 86_400


@pytest.mark.parametrize("off", [-2.1, 2.1])
async def test_a_slow_database_answer_makes_the_comparison_stricter(off: float) -> None:
    """A difference that is fine at once is too much when the answer took so long that it could be greater."""
    clock = FakeClock(1000.0)

    async def slowly(_: Any) -> float:
        clock.step(3.0)
        theirs = clock.now() + off
        clock.step(3.0)
        return theirs

    with pytest.raises(QuashError, match=r"presign\.clock_disagrees"):
        await ClockAgreement(clock, slowly).now(None)  # type: ignore[arg-type]
