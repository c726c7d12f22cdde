"""The presigner asks for new signers by itself, once, and tells a person where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from quash.keys import KeyUnavailable, ensure_successor
from quash.pki.csr import proven_key
from quash.store import signer_requests
from responder.presign.metrics import ALARMS

DAY = 86_400


async def online(world: Any, **options: Any) -> Any:
    """An issuer whose key the CA signer has."""
    authority = await world.authority(**options)
    await world.database.owner.execute("update issuer set key_ref = 'pem:ca/x.pem' where id = $1", authority.id)
    return authority


async def requests(world: Any) -> list[Any]:
    return list(await world.database.owner.fetch("select * from signer_request order by id"))


def alarms() -> float:
    return float(ALARMS.labels("presign.signer_ends")._value.get())


async def test_asks_at_half_life_once(world: Any) -> None:
    """Not before; then with a new key that it proves to hold; and not again while the request is open."""
    authority = await online(world)
    presigner = await world.presigner()
    await presigner.step()
    await world.clock.advance(15 * DAY - 60)
    await presigner.step()
    assert await requests(world) == []
    for _ in range(3):
        await world.clock.advance(60)
        await presigner.step()
    (request,) = await requests(world)
    assert (request["issuer_id"], request["state"], request["switch_id"]) == (authority.id, "open", None)
    assert proven_key(request["csr"]) == world.open_key(request["key_ref"]).spki
    assert request["key_ref"] == "pem:ocsp/tls-dv-r1.pem"


async def test_a_refused_request_is_made_again_an_hour_later(world: Any) -> None:
    """With a key of its own: what was wrong with the first one is not known here."""
    await online(world)
    presigner = await world.presigner()
    await world.clock.advance(16 * DAY)
    await presigner.step()
    await world.database.owner.execute("update signer_request set state = 'refused', code = 'x'")
    await world.clock.advance(3500)
    await presigner.step()
    assert len(await requests(world)) == 1
    await world.clock.advance(100)
    await presigner.step()
    assert [row["key_ref"] for row in await requests(world)] == ["pem:ocsp/tls-dv-r1.pem", "pem:ocsp/tls-dv-r2.pem"]


async def test_a_switch_is_asked_for_at_once(world: Any) -> None:
    """An operator's order wakes the presigner by its news; done once, it is over."""
    authority = await online(world)
    presigner = await world.presigner()
    await presigner.step()
    async with world.database.owner.acquire() as conn, conn.transaction():
        await signer_requests.order_switch(conn, authority.id, "tls-dv", actor="operator:o", at=world.now)
    await presigner.step()
    (request,) = await requests(world)
    assert request["switch_id"] is not None
    await world.database.owner.execute("update signer_request set state = 'done'")
    await world.clock.advance(2 * DAY)
    await presigner.step()
    assert len(await requests(world)) == 1


async def test_a_switch_waits_for_nothing_that_was_refused_before_it(world: Any) -> None:
    """The hour after a refusal is that of the same request: a stolen key is no time to wait (A17)."""
    authority = await online(world)
    presigner = await world.presigner()
    await world.clock.advance(16 * DAY)
    await presigner.step()
    await world.database.owner.execute("update signer_request set state = 'refused', code = 'x'")
    await world.clock.advance(60)
    async with world.database.owner.acquire() as conn, conn.transaction():
        ordered, _ = await signer_requests.order_switch(conn, authority.id, "tls-dv", actor="operator:o", at=world.now)
    await presigner.step()
    assert [row["switch_id"] for row in await requests(world)] == [None, ordered]
    await world.database.owner.execute("update signer_request set state = 'refused', code = 'x'")
    await world.clock.advance(3500)
    await presigner.step()
    assert len(await requests(world)) == 2, "its own refusal is waited for"
    await world.clock.advance(100)
    await presigner.step()
    assert [row["switch_id"] for row in await requests(world)] == [None, ordered, ordered]


async def test_how_far_a_switch_is_has_its_metrics(world: Any) -> None:
    """Buckets that are left, of an issuer with a switch under way alone; when nothing is left, nothing is told."""

    def told(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"quash_presign_switch_{name}", {"issuer": "tls-dv"})

    authority = await online(world)
    owner, presigner = world.database.owner, await world.presigner()
    await presigner.step()
    assert told("left") is None
    async with owner.acquire() as conn, conn.transaction():
        await signer_requests.order_switch(conn, authority.id, "tls-dv", actor="operator:o", at=world.now)
    await world.clock.advance(10)
    await presigner.step()
    buckets = await owner.fetchval("select count(*) from bucket where issuer_id = $1", authority.id)
    assert (told("left"), told("left_seconds")) == (buckets, None)
    await owner.execute(
        "update signer_request set state = 'done', signer_id = (select max(id) from ocsp_signer where issuer_id = $1)",
        authority.id,
    )
    await owner.execute("update bucket set signer_id = null, passed_at = null where bucket = 0")
    await world.clock.advance(10)
    await presigner.step()
    assert told("left") == 1
    assert told("left_seconds") > 0
    await presigner.close()
    assert (told("left"), told("left_seconds")) == (None, None), "told by one that does not lead, it would never change"
    await presigner.step()
    assert told("left") == 1
    await owner.execute("update bucket set signer_id = (select max(signer_id) from bucket)")
    await world.clock.advance(10)
    await presigner.step()
    assert told("left") is None


async def test_no_renewal_without_gain(world: Any) -> None:
    """A signer that ends with its issuer is the last one: no ever shorter ones after it."""
    await online(world, signer_days=3650)
    presigner = await world.presigner()
    await world.clock.advance(3640 * DAY)
    await presigner.step()
    assert await requests(world) == []


async def test_an_offline_issuers_signer_alarms_60_days_before_its_end(world: Any) -> None:
    """Nobody can renew it without the key, so a person is told in time, and no request is made."""
    await world.authority("root", signer_days=395)
    presigner = await world.presigner()
    await world.clock.advance(334 * DAY)
    before = alarms()
    await presigner.step()
    assert alarms() == before
    await world.clock.advance(DAY + 60)
    await presigner.step()
    assert alarms() == before + 1
    assert await requests(world) == []


async def test_renewals_that_fail_alarm(world: Any) -> None:
    """A quarter of its life before the end, an online signer that was not renewed is a person's business."""
    await online(world)
    presigner = await world.presigner()
    await world.clock.advance(22 * DAY)
    before = alarms()
    await presigner.step()
    assert alarms() == before
    await world.clock.advance(DAY)
    await presigner.step()
    assert alarms() > before


async def test_an_issuer_that_has_ended_alarms_nobody(world: Any) -> None:
    """There is nothing left that its signer could answer for."""
    await online(world, signer_days=3650)
    presigner = await world.presigner()
    await world.clock.advance(3640 * DAY)
    before = alarms()
    await presigner.step()
    assert alarms() == before + 1
    await world.clock.advance(11 * DAY)
    await presigner.step()
    assert alarms() == before + 1
    assert REGISTRY.get_sample_value("quash_presign_signer_seconds", {"issuer": "tls-dv"}) is None


async def test_a_key_that_cannot_be_made_holds_up_no_other_issuer(world: Any) -> None:
    """Renewals and switches of issuers behind it are asked for in the same minute."""
    await online(world, label="first")
    second = await online(world, label="second")
    real = world.make_key

    def broken(issuer: Any, last: Any, name: str) -> Any:
        if issuer.name == "first":
            raise KeyUnavailable("its token is away")
        return real(issuer, last, name)

    world.make_key = broken
    presigner = await world.presigner()
    await world.clock.advance(16 * DAY)
    await presigner.step()
    assert [row["issuer_id"] for row in await requests(world)] == [second.id]


async def test_a_folder_that_takes_no_key_does_not_end_the_tenure(world: Any, tmp_path: Path) -> None:
    """As the real maker meets it: its folder is full, or not for us to write to (here: a file)."""
    authority = await online(world)
    (tmp_path / "passphrase").write_text("secret\n")
    (tmp_path / "ocsp").write_text("no folder")

    def make(_issuer: Any, last: Any, name: str) -> Any:
        return ensure_successor(last.key_ref, name, "ec-p256", tmp_path, tmp_path / "passphrase", logins=tmp_path), None

    world.make_key = make
    presigner = await world.presigner()
    await presigner.step()
    await world.clock.advance(16 * DAY)
    before = ALARMS.labels("key.not_written")._value.get()
    await presigner.step()
    assert presigner.leading
    assert ALARMS.labels("key.not_written")._value.get() == before + 1
    assert [row["issuer_id"] for row in await requests(world)] == []
    serial = await world.issue(authority)
    await presigner.step()
    assert (authority.id, serial) in await world.cache()


async def test_a_key_that_cannot_be_made_stops_nothing_else(world: Any) -> None:
    """The key folder is full or the token is away: answers are signed on, and the next minute tries again."""
    authority = await online(world)
    serial = await world.issue(authority)

    def broken(*_: Any) -> Any:
        raise KeyUnavailable("no space is left")

    real, world.make_key = world.make_key, broken
    presigner = await world.presigner()
    await world.clock.advance(16 * DAY)
    await presigner.step()
    assert (authority.id, serial) in await world.cache()
    assert await requests(world) == []
    world.make_key = real
    again = await world.presigner()
    await presigner.close()
    await again.step()
    assert len(await requests(world)) == 1


async def test_a_revoked_signer_signs_only_while_there_is_no_other(world: Any) -> None:
    """As soon as the news of its revocation are read, also without a new signer (A13)."""
    authority = await online(world)
    presigner = await world.presigner()
    first = await world.issue(authority)
    await presigner.step()
    (old,) = authority.signers
    new = await world.signer(authority)
    second = await world.issue(authority)
    await presigner.step()

    await world.revoke_signer(authority, new)
    third = await world.issue(authority)
    await presigner.step()
    await world.revoke_signer(authority, old)
    fourth = await world.issue(authority)
    await presigner.step()
    cache = await world.cache()
    by = [cache[authority.id, serial].signer_id for serial in (first, second, third, fourth)]
    assert by == [old, new, old, new]
