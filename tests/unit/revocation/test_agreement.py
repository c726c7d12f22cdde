"""Agreement: whatever is published otherwise than the database says is found, with its serial, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from issuer.revocation.agreement import Sampler
from quash.pki.certid import CertIdHash
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.store.roles import ADMIN, JOBS
from tests.support.public import Public
from tests.support.revoking import DAY, Key, World, make_world

SUPERSEDED = int(Reason.superseded)


@pytest.fixture
async def world(database: Any) -> World:
    return await make_world(database, FakeClock(time.time()), ADMIN)


@pytest.fixture
async def public(world: World) -> AsyncIterator[Public]:
    async with Public(world).serving() as public:
        yield public


@pytest.fixture
async def sampler(world: World, database: Any, public: Public) -> AsyncIterator[Sampler]:
    """With the rights of the job runner, and everything settled: an hour after all that the test records."""
    urls = {"responder": {"base_url": public.ocsp_url}, "crl_origin": {"base_url": public.crl_url}}
    config = Config.model_validate({**database.config.model_dump(), **urls})
    async with Sampler(await database.pool(JOBS), config, world.clock) as sampler:
        yield sampler


async def revoked(world: World, **arguments: Any) -> Key:
    key = await world.certificate(**arguments)
    await world.revoke(key, Reason.superseded)
    return key


async def look(world: World, sampler: Sampler) -> list[str]:
    """What two looks, one after the other, agree that is wrong."""
    for _ in range(2):
        await world.clock.advance(61)
        assert await sampler.step() > 0
    return [str(each) for each in sampler.disagreements]


async def test_what_agrees_is_no_alarm(world: World, public: Public, sampler: Sampler) -> None:
    """Good, revoked, expired and only reserved certificates of two issuers, all published as they are."""
    good, bad = await world.certificate(), await revoked(world)
    await world.certificate("beta", state="reserved")
    ended = await world.certificate("beta", not_after=world.now - DAY)
    public.revoke(bad, SUPERSEDED, world.now)
    await world.clock.advance(10)
    await public.publish("alpha", 1, [(bad[1], (SUPERSEDED, world.now - 10))])
    await public.publish("beta", 1, [])
    assert await look(world, sampler) == []
    asked = {serial for _, serial, _ in public.asked}
    assert asked == {good[1], bad[1]}, "an ended certificate and a mere reservation have no answer"
    assert ended[1] not in asked
    assert REGISTRY.get_sample_value("quash_agreement_disagreements") == 0


Wrong = Callable[[World, Public, Key, Key], Any]


def answers_good(world: World, public: Public, good: Key, bad: Key) -> None:
    public.answers.pop(("alpha", bad[1], CertIdHash.SHA1))


def answers_revoked(world: World, public: Public, good: Key, bad: Key) -> None:
    public.revoke(good, SUPERSEDED, world.now, CertIdHash.SHA256)


def answers_another_reason(world: World, public: Public, good: Key, bad: Key) -> None:
    public.revoke(bad, 1, world.now, CertIdHash.SHA256)


async def not_listed(world: World, public: Public, good: Key, bad: Key) -> None:
    await public.publish("alpha", 2, [])


async def too_much_listed(world: World, public: Public, good: Key, bad: Key) -> None:
    await public.publish("alpha", 2, [(key[1], (SUPERSEDED, world.now)) for key in (bad, good)])


async def listed_otherwise(world: World, public: Public, good: Key, bad: Key) -> None:
    await public.publish("alpha", 2, [(bad[1], (SUPERSEDED, world.now - 5))])


async def no_scope(world: World, public: Public, good: Key, bad: Key) -> None:
    await world.owner.execute("update certificate set shard = 7 where serial = $1", bad[1])


WRONGS: dict[str, tuple[Wrong, str, str]] = {
    "one hash says good": (answers_good, "bad", "SHA1 OCSP"),
    "one hash says revoked": (answers_revoked, "good", "SHA256 OCSP"),
    "another reason": (answers_another_reason, "bad", "revoked for reason 1"),
    "not on the CRL": (not_listed, "bad", "not on the CRL alpha.crl"),
    "good, but on the CRL": (too_much_listed, "good", "the database says good"),
    "another date on the CRL": (listed_otherwise, "bad", "another reason or date"),
    "no CRL shows it": (no_scope, "bad", "no CRL shows its shard"),
}


@pytest.mark.parametrize("name", WRONGS)
async def test_whatever_disagrees_is_an_alarm_with_its_serial(
    world: World, public: Public, sampler: Sampler, name: str
) -> None:
    """Each way in which the database, two CertID hashes and a CRL can differ; the alarm ends when it is mended."""
    spoil, whose, words = WRONGS[name]
    good, bad = await world.certificate(), await revoked(world)
    at = world.now
    public.revoke(bad, SUPERSEDED, at)
    await public.publish("alpha", 1, [(bad[1], (SUPERSEDED, at))])
    if (pending := spoil(world, public, good, bad)) is not None:
        await pending
    found = await look(world, sampler)
    assert len(found) == 1
    assert format_serial({"good": good, "bad": bad}[whose][1]) in found[0]
    assert words in found[0]
    assert REGISTRY.get_sample_value("quash_agreement_disagreements") == 1
    await world.owner.execute("update certificate set shard = null")
    public.answers.clear()
    public.revoke(bad, SUPERSEDED, at)
    await public.publish("alpha", 3, [(bad[1], (SUPERSEDED, at))])
    assert await look(world, sampler) == []


async def test_crldp_that_names_another_crl_is_an_alarm(world: World, public: Public, sampler: Sampler) -> None:
    """B16: a certificate's shard in the database is the one in its octets; former URLs of the CRL count as its own."""
    crldp = bytes.fromhex("0603551d1f")
    await world.certificate(der=crldp + b"http://crl.example/alpha.crl")
    await world.certificate(der=b"no CRLDP at all")
    await world.owner.execute("update crl_scope set former_urls = '{http://old.example/b.crl}' where path = 'beta.crl'")
    await world.certificate("beta", der=crldp + b"http://old.example/b.crl")
    other = await world.certificate(der=crldp + b"http://crl.example/beta.crl")
    await public.publish("alpha", 1, [])
    await public.publish("beta", 1, [])
    (found,) = await look(world, sampler)
    assert format_serial(other[1]) in found
    assert "B16" in found


async def test_new_revocation_has_time_to_be_published(world: World, public: Public, sampler: Sampler) -> None:
    """What was recorded less than a minute ago is not judged; one bad look alone is no alarm either."""
    await public.publish("alpha", 1, [])
    await world.certificate()
    await world.clock.advance(3600)
    bad = await revoked(world)
    await sampler.step()
    assert bad[1] not in {serial for _, serial, _ in public.asked}
    await world.clock.advance(61)
    await sampler.step()
    assert bad[1] in {serial for _, serial, _ in public.asked}
    assert sampler.disagreements == []


async def test_responder_that_is_away_is_no_disagreement(world: World, public: Public, database: Any) -> None:
    """Nobody answering is a matter of availability: it is counted apart, and no serial is blamed."""
    await public.publish("alpha", 1, [])
    await world.certificate()
    urls = {"responder": {"base_url": "http://127.0.0.1:1"}, "crl_origin": {"base_url": "http://127.0.0.1:1"}}
    config = Config.model_validate({**database.config.model_dump(), **urls})
    async with Sampler(await database.pool(JOBS), config, world.clock) as sampler:
        assert await look(world, sampler) == []
    assert REGISTRY.get_sample_value("quash_agreement_unanswered") == 1
