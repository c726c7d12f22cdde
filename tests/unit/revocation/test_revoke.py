"""Flow 2 on a real database: what a revocation writes, what changes it, and what is refused."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from issuer.revocation.find import Target
from issuer.revocation.revoke import REVOKE, REVOKE_SIBLING, Request, revoke
from quash.errors import Kind, QuashError
from quash.pki.reasons import ALLOWED_REASONS, Reason
from quash.store import blocked_keys
from quash.store.database import acquire
from tests.support.revoking import ACTOR, DAY, Key, World, key_hash


async def standing(world: World, key: Key) -> tuple[Reason, int, int]:
    latest = (await world.history(key))[-1]
    return Reason(latest.reason), latest.revoked_at, latest.version


@pytest.mark.parametrize("reason", [Reason.superseded, Reason.keyCompromise])
async def test_a_clock_that_stepped_back_moves_no_date(world: World, reason: Reason) -> None:
    """Repeating a revocation is never refused and never backdates it, nor its siblings."""
    spki = key_hash()
    key, sibling = await world.certificate(spki=spki), await world.certificate("beta", spki=spki)
    first = await world.revoke(key, reason)
    world.clock.step(-3600)
    again = await world.revoke(key, reason)
    assert (again.changed, again.revoked_at) == (False, first.revoked_at)
    dates = [[row.revoked_at for row in await world.history(each)] for each in (key, sibling)]
    assert dates == [[first.revoked_at], [first.revoked_at] if reason is Reason.keyCompromise else []]


async def test_each_reason_is_recorded(world: World) -> None:
    """Each reason of B11 revokes: one row, one act, one piece of news, at the clock's second."""
    for reason in sorted(ALLOWED_REASONS):
        key = await world.certificate(spki=key_hash())
        revoked = await world.revoke(key, reason)
        assert (revoked.changed, revoked.reason, revoked.revoked_at) == (True, reason, world.now)
        (row,) = await world.history(key)
        assert (row.version, row.reason, row.revoked_at, row.recorded_at) == (1, reason, world.now, world.now)
        assert row.act_id == revoked.act_id
        assert key in await world.news()
        act = await world.owner.fetchrow("select * from act where id = $1", revoked.act_id)
        assert (act["actor"], act["action"]) == (ACTOR, REVOKE)
        assert act["subject"]["serial"] == key[1].hex().lstrip("0")
        assert act["subject"]["reason"] == reason.name
    count = len(ALLOWED_REASONS)
    assert await world.counts() == {"revocation": count, "act": count, "blocked_key": 1, "outbox": count, "job": 0}


async def test_only_key_compromise_replaces_a_reason(world: World) -> None:
    """Over all pairs of reasons: the same again writes no row; another is refused, but for keyCompromise (B25)."""
    for first, second in itertools.product(sorted(ALLOWED_REASONS), repeat=2):
        key = await world.certificate(spki=key_hash())
        done = await world.revoke(key, first)
        since, before = world.now, await world.counts()
        world.clock.step(60)
        if second is first:
            again = await world.revoke(key, second)
            assert (again.changed, again.act_id, again.revoked_at) == (False, done.act_id, since)
            assert await world.counts() == before
        elif second is Reason.keyCompromise:
            assert (await world.revoke(key, second)).changed
            assert await standing(world, key) == (Reason.keyCompromise, since, 2)  # the earlier date stays
        else:
            with pytest.raises(QuashError) as refused:
                await world.revoke(key, second)
            assert (refused.value.code, refused.value.kind) == ("revocation.not_upgradable", Kind.REFUSED)
            assert await world.counts() == before


async def test_key_compromise_moves_the_date_back_and_never_forward(world: World) -> None:
    """B25: the date of a key compromise may move to an earlier one; a later one changes nothing."""
    key = await world.certificate(spki=key_hash())
    await world.revoke(key, Reason.keyCompromise)
    since = world.now
    world.clock.step(100)
    assert (await world.revoke(key, Reason.keyCompromise, revoked_at=since - DAY)).changed
    assert await standing(world, key) == (Reason.keyCompromise, since - DAY, 2)
    assert not (await world.revoke(key, Reason.keyCompromise, revoked_at=since)).changed
    assert await standing(world, key) == (Reason.keyCompromise, since - DAY, 2)


async def test_first_revocation_to_a_date(world: World) -> None:
    """B26: a certificate can be revoked as of a past date, for any reason."""
    key = await world.certificate()
    await world.revoke(key, Reason.superseded, revoked_at=world.now - DAY)
    assert await standing(world, key) == (Reason.superseded, world.now - DAY, 1)


async def test_date_in_the_future_is_refused(world: World) -> None:
    """Nobody can promise a revocation that is not yet one."""
    key = await world.certificate()
    with pytest.raises(QuashError, match=r"revocation\.date_in_future"):
        await world.revoke(key, revoked_at=world.now + 1)
    assert await world.history(key) == []


async def test_date_that_no_signer_can_write_is_refused(world: World) -> None:
    """A time before 1970 would stand in the append-only rows for ever, and neither OCSP nor CRL could say it."""
    key = await world.certificate()
    with pytest.raises(QuashError, match=r"revocation\.date_too_early"):
        await world.revoke(key, revoked_at=-1)
    assert await world.history(key) == []
    assert (await world.revoke(key, revoked_at=0)).revoked_at == 0


async def test_expired_certificate_is_refused(world: World) -> None:
    """A certificate can be revoked through the second of its notAfter, and not behind it."""
    last = await world.certificate(not_after=world.now)
    expired = await world.certificate(not_after=world.now - 1)
    assert (await world.revoke(last)).changed
    with pytest.raises(QuashError) as refused:
        await world.revoke(expired)
    assert (refused.value.code, refused.value.kind) == ("certificate.expired", Kind.REFUSED)
    assert await world.history(expired) == []


async def test_revoked_and_expired_stays_as_it_is(world: World) -> None:
    """The same request after the expiry is answered; an upgrade comes too late (A41, C16)."""
    key = await world.certificate(spki=key_hash(), not_after=world.now + 10)
    await world.revoke(key, Reason.superseded)
    world.clock.step(11)
    assert not (await world.revoke(key, Reason.superseded)).changed
    with pytest.raises(QuashError, match=r"certificate\.expired"):
        await world.revoke(key, Reason.keyCompromise)


async def test_ca_certificate_needs_a_reason(world: World) -> None:
    """B10, A25: what a root issued is never revoked without a reason."""
    key = await world.certificate("top")
    with pytest.raises(QuashError) as refused:
        await world.revoke(key)
    assert (refused.value.code, refused.value.kind) == ("revocation.reason_required", Kind.REFUSED)
    assert (await world.revoke(key, Reason.cessationOfOperation)).changed


async def test_blocked_key_is_remembered(world: World) -> None:
    """C9: keyCompromise blocks the key, other reasons do not, and the first act stays."""
    compromised, replaced = key_hash(), key_hash()
    first = await world.revoke(await world.certificate(spki=compromised), Reason.keyCompromise)
    await world.revoke(await world.certificate(spki=replaced), Reason.superseded)
    await world.revoke(await world.certificate("beta", spki=compromised), Reason.keyCompromise)
    async with acquire(world.pool) as conn:
        assert await blocked_keys.is_blocked(conn, compromised)
        assert not await blocked_keys.is_blocked(conn, replaced)
    rows = await world.owner.fetch("select spki_sha256, reason, act_id from blocked_key")
    assert [tuple(row) for row in rows] == [(compromised, "keyCompromise", first.act_id)]


async def test_unknown_key_is_revoked_alone(world: World) -> None:
    """An import whose key nobody knows has no siblings, not even others like it, and blocks no key."""
    key = await world.certificate(state="imported")
    other = await world.certificate(state="imported")
    revoked = await world.revoke(key, Reason.keyCompromise)
    assert (revoked.changed, revoked.siblings) == (True, ())
    assert await world.history(other) == []
    assert (await world.counts())["blocked_key"] == 0


@pytest.mark.parametrize("seed", range(5))
async def test_key_compromise_reaches_every_unexpired_sibling_once(world: World, seed: int) -> None:
    """C8: over random populations of issuers, states, expiries and earlier revocations, each sibling gets one row."""
    rng = random.Random(seed)
    keys = [key_hash() for _ in range(3)]
    population: dict[Key, tuple[bytes, bool]] = {}
    for _ in range(40):
        spki, alive = rng.choice(keys), rng.random() < 0.8
        key = await world.certificate(
            rng.choice(("alpha", "beta", "top")),
            spki=spki,
            state=rng.choice(("reserved", "precertificate", "issued", "imported")),
            not_after=world.now + (rng.randrange(0, 100 * DAY) if alive else -rng.randrange(1, DAY)),
        )
        population[key] = (spki, alive)
    earlier: dict[Key, int] = {}
    for key in rng.sample([key for key, (_, alive) in population.items() if alive], 8):
        await world.revoke(key, Reason.superseded)
        earlier[key] = world.now
        world.clock.step(1)
    cause = rng.choice([key for key, (_, alive) in population.items() if alive])
    compromised = population[cause][0]

    revoked = await world.revoke(cause, Reason.keyCompromise)

    reached = {key for key, (spki, alive) in population.items() if spki == compromised and alive}
    assert {(name, serial) for name, serial in revoked.siblings} == {
        (world.name_of(issuer_id), serial) for issuer_id, serial in reached - {cause}
    }
    assert revoked.siblings_total == len(revoked.siblings) == len(reached) - 1
    acts_seen = set()
    for key in population:
        rows = await world.history(key)
        assert len(rows) == (key in earlier) + (key in reached)
        if key in reached:
            assert (rows[-1].reason, rows[-1].revoked_at) == (Reason.keyCompromise, earlier.get(key, world.now))
            acts_seen.add(rows[-1].act_id)
    assert len(acts_seen) == len(reached)
    causes = await world.owner.fetch("select id, subject from act where action = $1", REVOKE_SIBLING)
    assert {row["id"] for row in causes} == acts_seen - {revoked.act_id}
    assert all(row["subject"]["cause"] == revoked.act_id for row in causes)
    assert reached <= await world.news()

    before = await world.counts()
    assert not (await world.revoke(cause, Reason.keyCompromise)).changed
    assert await world.counts() == before


async def test_siblings_that_came_later_are_reached_by_the_same_request(world: World) -> None:
    """An import can bring certificates of a key that was blocked before: asking again revokes them too."""
    spki = key_hash()
    key = await world.certificate(spki=spki)
    await world.revoke(key, Reason.keyCompromise)
    late = await world.certificate("beta", spki=spki, state="imported")
    world.clock.step(5)
    again = await world.revoke(key, Reason.keyCompromise)
    assert again.changed
    assert await standing(world, late) == (Reason.keyCompromise, world.now, 1)
    assert len(await world.history(key)) == 1


async def test_dry_run_writes_nothing(world: World) -> None:
    """A dry run says exactly what the real one then does, and leaves no row."""
    spki = key_hash()
    key, _ = await world.certificate(spki=spki), await world.certificate("beta", spki=spki)
    for reason in (Reason.superseded, Reason.keyCompromise):
        before = await world.counts()
        dry = await world.revoke(key, reason, dry_run=True)
        assert await world.counts() == before
        real = await world.revoke(key, reason)
        assert dry.act_id is None
        assert (dry.changed, dry.siblings, dry.revoked_at) == (real.changed, real.siblings, real.revoked_at)


async def test_concurrent_revocations_of_one_serial(world: World) -> None:
    """Of many requests at once, exactly one changes the certificate; the others see it done."""
    for spki in (key_hash(), None):
        key = await world.certificate(spki=spki)
        results = await asyncio.gather(*(world.revoke(key, Reason.superseded) for _ in range(6)))
        assert sorted(each.changed for each in results) == [False] * 5 + [True]
        assert len(await world.history(key)) == 1
        assert len({each.act_id for each in results}) == 1


async def test_concurrent_compromises_of_one_key(world: World) -> None:
    """Two siblings reported at the same moment: each certificate is still revoked once."""
    spki = key_hash()
    keys = [await world.certificate(issuer, spki=spki) for issuer in ("alpha", "beta") for _ in range(5)]
    results = await asyncio.gather(*(world.revoke(key, Reason.keyCompromise) for key in keys[:4]))
    assert sum(each.changed for each in results) == 1
    assert [len(await world.history(key)) for key in keys] == [1] * 10


async def test_ambiguous_serial_lists_every_issuer(world: World) -> None:
    """A serial of two issuers is bad input until the issuer is named; the message names both."""
    serial = (await world.certificate("alpha"))[1]
    await world.certificate("beta", serial=serial)
    async with acquire(world.pool) as conn:
        with pytest.raises(QuashError) as refused:
            await revoke(conn, world.clock, Request(Target(serial=serial)), actor=ACTOR, batch=10)
        assert (refused.value.code, refused.value.kind) == ("certificate.ambiguous", Kind.INPUT)
        assert "alpha " in refused.value.message
        assert "beta " in refused.value.message
        revoked = await revoke(conn, world.clock, Request(Target("beta", serial)), actor=ACTOR, batch=10)
    assert revoked.issuer == "beta"


async def test_failure_in_the_transaction_leaves_nothing(world: World) -> None:
    """When the last statement of the transaction fails, neither revocation nor act nor blocked key is left."""
    spki = key_hash()
    key = await world.certificate(spki=spki)
    await world.owner.execute("alter table outbox add constraint broken check (id < 0) not valid")
    with pytest.raises(Exception, match="broken"):
        await world.revoke(key, Reason.keyCompromise)
    assert set((await world.counts()).values()) == {0}
    await world.owner.execute("alter table outbox drop constraint broken")
    assert (await world.revoke(key, Reason.keyCompromise)).changed
