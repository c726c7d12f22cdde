"""No `good` for what the issuer did not demonstrably sign (A9, A8), and no harm done to the rest."""

from __future__ import annotations

from typing import Any

import pytest

from quash.pki.serials import new_serial
from responder.presign.metrics import ALARMS


def alarms(code: str) -> float:
    return float(ALARMS.labels(code)._value.get())


async def settle(world: Any, presigner: Any, hours: int = 44) -> None:
    """More than two refresh cycles."""
    await presigner.step()
    for _ in range(hours):
        await world.clock.advance(3600)
        await presigner.step()


async def test_reserved_is_answered_only_once_signed_or_revoked(world: Any) -> None:
    """A reserved serial gets no `good`, not in refreshes either; revoked, it is answered at once (A8)."""
    authority = await world.authority()
    reserved, later = await world.reserve(authority), await world.reserve(authority)
    presigner = await world.presigner()
    await settle(world, presigner)
    assert await world.cache() == {}
    await world.revoke(authority, reserved, 4)
    await world.complete(authority, later)
    await presigner.step()
    cache = await world.cache()
    assert cache[authority.id, reserved].reason == 4
    assert cache[authority.id, later].reason is None


@pytest.mark.parametrize("forgery", ["other issuer", "other serial", "no certificate"])
async def test_a_certificate_that_does_not_verify_is_never_good(world: Any, forgery: str) -> None:
    """DER of another issuer, of another serial, or rubbish: alarm, no `good` ever, and its neighbours get theirs."""
    authority = await world.authority()
    stranger = await world.authority("stranger")
    bad, neighbour = await world.reserve(authority), await world.reserve(authority)
    if forgery == "other issuer":
        # the same name, signed by another key
        stranger.name = authority.name
        await world.complete(authority, bad, by=stranger)
    elif forgery == "other serial":
        await world.complete(authority, bad, as_serial=new_serial())
    else:
        await world.database.owner.execute(
            "update certificate set state = 'issued', der = '\\x3000' where serial = $1", bad
        )
    await world.complete(authority, neighbour)
    before = alarms("presign.certificate_not_issued")
    presigner = await world.presigner()
    await settle(world, presigner)
    cache = await world.cache()
    assert (authority.id, bad) not in cache
    assert cache[authority.id, neighbour].reason is None
    assert alarms("presign.certificate_not_issued") > before
    await world.revoke(authority, bad, 9)
    await presigner.step()
    assert (await world.cache())[authority.id, bad].reason == 9


async def test_an_import_needs_no_certificate(world: Any) -> None:
    """Imported rows are good without a file: the import vouches for them."""
    authority = await world.authority()
    serials = await world.imported(authority, 50)
    await (await world.presigner()).step()
    cache = await world.cache()
    assert {cache[authority.id, serial].reason for serial in serials} == {None}


async def test_a_proof_lasts(world: Any) -> None:
    """Once proven, a refresh does not ask for the DER again, which may then be anything."""
    authority = await world.authority()
    serial = await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    first = (await world.cache())[authority.id, serial].this_update
    await world.database.owner.execute("update certificate set der = '\\x00' where serial = $1", serial)
    await settle(world, presigner)
    assert (await world.cache())[authority.id, serial].this_update > first


async def test_a_proof_is_kept_only_with_its_record(world: Any) -> None:
    """While the key is away nothing is fed, and nothing is marked as proven."""
    authority = await world.authority()
    await world.issue(authority)
    world.key_fault = "away"
    presigner = await world.presigner()
    await presigner.step()
    count = "select count(*) from proven_certificate"
    assert await world.database.owner.fetchval(count) == 0
    world.key_fault = ""
    await world.clock.advance(11)
    await presigner.step()
    assert await world.database.owner.fetchval(count) == 1


async def test_the_presigner_cannot_change_what_it_reads(world: Any) -> None:
    """Its database role may neither revoke, nor add certificates, nor delete what is in the feed."""
    conn = await world.database.connection("quash_presigner")
    for statement in (
        "delete from revocation",
        "update revocation set reason = 0",
        "update certificate set state = 'imported'",
        "insert into certificate (issuer_id, serial) values (1, '\\x01')",
        "delete from feed",
        "update feed set payload = ''",
        "delete from feed_partition",
        "delete from proven_certificate",
    ):
        with pytest.raises(Exception, match="permission denied"):
            await conn.execute(statement)
