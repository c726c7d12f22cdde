"""Keys that fail or lie: nothing wrong goes out, nothing is lost, and other issuers go on."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from responder.presign.metrics import ALARMS


def alarms(code: str) -> float:
    return float(ALARMS.labels(code)._value.get())


@pytest.mark.parametrize(("fault", "code"), [("away", "key.unavailable"), ("mixed up", "presign.self_check_failed")])
async def test_a_bad_token_feeds_nothing_and_is_retried(world: Any, fault: str, code: str) -> None:
    """A token that is away or returns other signatures: alarm, no record; once it is well, every news is answered."""
    authority = await world.authority()
    serials = [await world.issue(authority) for _ in range(3)]
    await world.revoke(authority, serials[0])
    world.key_fault, before = fault, alarms(code)
    presigner = await world.presigner()
    assert await presigner.step() == 0
    assert await world.cache() == {}
    assert alarms(code) > before
    assert world.closed_keys > 0
    world.key_fault = ""
    await world.clock.advance(11)
    await presigner.step()
    cache = await world.cache()
    assert [cache[authority.id, serial].version for serial in serials] == [1, 0, 0]


async def test_one_issuers_missing_key_does_not_stop_the_others(world: Any) -> None:
    """An issuer whose signer's key is not there raises an alarm; the other issuer's certificates are answered."""
    broken, well = await world.authority("broken"), await world.authority("well")
    ref = next(ref for ref in world.keys if "broken" in ref)
    key = world.keys.pop(ref)
    first, second = await world.issue(broken), await world.issue(well)
    presigner = await world.presigner()
    await presigner.step()
    assert set(await world.cache()) == {(well.id, second)}
    world.keys[ref] = key
    await world.clock.advance(11)
    await presigner.step()
    assert set(await world.cache()) == {(well.id, second), (broken.id, first)}


async def test_a_key_that_is_not_the_certificates_is_refused(world: Any) -> None:
    """A key reference that leads to another key signs nothing."""
    authority = await world.authority()
    (ref,) = world.keys
    world.keys[ref] = ec.generate_private_key(ec.SECP256R1())
    await world.issue(authority)
    before = alarms("presign.key_mismatch")
    await (await world.presigner()).step()
    assert await world.cache() == {}
    assert alarms("presign.key_mismatch") > before
