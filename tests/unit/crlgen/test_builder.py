"""When CRLs are made, and what they list."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from quash.runtime.config import Config
from quash.store import crl_demands, crls
from quash.store.database import acquire
from tests.support.crl_bench import DAY, Bench


async def test_first_crl_of_every_online_scope_is_published_and_empty(bench: Bench) -> None:
    """A new issuer gets its CRLs at once (B5), without revokedCertificates (B9); an offline one gets none from us."""
    ca = await bench.issuer("dv", shards=2)
    await bench.issuer("root", key_ref=None)
    assert await bench.builder.step() == 3
    assert sorted(str(p.relative_to(bench.folder)) for p in bench.folder.rglob("*.crl")) == [
        "dv.crl",
        "dv/0.crl",
        "dv/1.crl",
    ]
    crl = bench.read("dv/1.crl")
    assert (crl.number, crl.entries, crl.issuer) == (1, [], ca.certificate.subject.public_bytes())
    assert (crl.this_update, crl.next_update) == (bench.clock.now(), bench.clock.now() + 4 * DAY - 1)
    assert bench.builder.problems == {}


async def test_revocation_is_published_in_its_own_scope_only(bench: Bench) -> None:
    """Each entry appears on the scope its CRLDP names (B16) with the database's date and reason (A26); others stay."""
    ca = await bench.issuer("dv", shards=2)
    await bench.settle()
    serial = await bench.revoked(ca, 1, shard=1)
    whole = await bench.revoked(ca, 0)
    assert await bench.settle() == 2
    at = int(bench.clock.now()) - 3
    assert bench.listed("dv/1.crl") == {serial: (at, 1)}
    assert bench.listed("dv.crl") == {whole: (at, 0)}
    assert bench.listed("dv/0.crl") == {}
    assert [bench.read(f"dv{name}.crl").number for name in ("", "/0", "/1")] == [2, 1, 2]


async def test_step_with_nothing_due_costs_one_query(bench: Bench) -> None:
    """Idle polling, once per second for each builder, must stay cheap whatever the number of scopes."""
    ca = await bench.issuer("dv", shards=8)
    await bench.revoked(ca, shard=3)
    await bench.settle()
    connections = [holder._con for holder in bench.pool._holders if holder._con is not None]
    queries: list[str] = []
    for connection in connections:
        connection.add_query_logger(lambda record: queries.append(record.query))
    assert await bench.builder.step() == 0
    begin, planned, look, commit = queries
    assert (begin, commit) == ("BEGIN;", "COMMIT;")
    assert planned.startswith("set local ")
    assert "crl_scope" in look


async def test_burst_is_coalesced(bench: Bench) -> None:
    """Fifty revocations within the waiting time make one CRL, not fifty."""
    ca = await bench.issuer()
    await bench.settle()
    serials = []
    for _ in range(50):
        serials.append(await bench.revoked(ca))
        assert await bench.builder.step() == 0
        await bench.clock.advance(0.003)
    await bench.clock.advance(0.2)
    assert await bench.builder.step() == 1
    assert set(bench.listed()) == set(serials)
    assert bench.read().number == 2


async def test_stream_of_revocations_makes_a_crl_a_second_at_most(bench: Bench) -> None:
    """A mass revocation in many transactions keeps publishing, with pauses, and ends with everything listed."""
    ca = await bench.issuer()
    await bench.settle()
    serials, made = set(), 0
    for _ in range(60):
        serials.add(await bench.revoked(ca))
        await bench.clock.advance(0.1)
        made += await bench.builder.step()
    made += await bench.settle()
    assert set(bench.listed()) == serials
    assert 3 <= made <= 8


async def test_a_mass_revocation_makes_a_crl_every_few_seconds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its batches keep coming a scope is built every eight seconds; its last revocation is shown within ten."""
    monkeypatch.setattr("crlgen.build.schedule.MASS", 5)
    monkeypatch.setattr("crlgen.build.builder.MASS", 5)
    ca = await bench.issuer()
    await bench.settle()
    serials, made = set(), list[int]()
    for second in range(30):
        serials |= {await bench.revoked(ca) for _ in range(6)}
        for _ in range(4):
            await bench.clock.advance(0.25)
            made += [second] * await bench.builder.step()
    assert 3 <= len(made) <= 4
    assert all(7 <= later - earlier <= 9 for earlier, later in pairwise((0, *made)))
    await bench.settle(8)
    assert set(bench.listed()) == serials
    await bench.settle(8)
    serials.add(await bench.revoked(ca))
    await bench.settle()
    assert set(bench.listed()) == serials


async def test_a_scope_is_built_once_the_mass_revocation_has_left_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One CRL for all batches of some seconds, a second after the last; what another scope gets is no growth."""
    monkeypatch.setattr("crlgen.build.schedule.MASS", 5)
    monkeypatch.setattr("crlgen.build.builder.MASS", 5)
    ca = await bench.issuer(shards=2)
    await bench.settle()
    serials = set()
    for _ in range(12):
        serials |= {await bench.revoked(ca, shard=0) for _ in range(3)}
        await bench.clock.advance(0.25)
        assert await bench.builder.step() == 0
    passed = 0.0
    while not bench.listed("ca/0.crl"):
        await bench.revoked(ca, shard=1)
        await bench.clock.advance(0.25)
        await bench.builder.step()
        passed += 0.25
    assert 1.0 <= passed <= 2.0
    assert set(bench.listed("ca/0.crl")) == serials


async def test_pause_ends_when_a_burst_is_due(bench: Bench) -> None:
    """The main loop wakes for the end of a burst, not a second later; with nothing waiting it polls each second."""
    ca = await bench.issuer()
    await bench.settle()
    assert bench.builder.pause() == 1.0
    await bench.revoked(ca)
    await bench.builder.step()
    assert bench.builder.pause() == pytest.approx(0.2)


async def test_schedule_makes_a_crl_each_day_whatever_was_revoked(bench: Bench) -> None:
    """Every 24 h a regularly scheduled CRL appears (B3), and those between do not move the schedule."""
    ca = await bench.issuer()
    started = int(bench.clock.now())
    for hour in range(24 * 7):
        if hour % 10 == 5:
            await bench.revoked(ca)
        await bench.settle()
        await bench.clock.advance(3600 - 3)
    rows = await bench.database.owner.fetch("select this_update, next_update, scheduled from crl order by number")
    regular = [row["this_update"] - started for row in rows if row["scheduled"]]
    assert len(regular) == 7
    assert all(abs(at - day * DAY) < 20 for day, at in enumerate(regular))
    assert len(rows) == 7 + 17
    assert all(row["next_update"] - row["this_update"] == 4 * DAY - 1 for row in rows)


async def test_expired_entry_stays_until_a_regular_crl_after_its_end(bench: Bench) -> None:
    """B13: unscheduled CRLs after notAfter do not count; the first regular one still lists it, the next CRL may not."""
    ca = await bench.issuer()
    await bench.settle()
    dying = await bench.revoked(ca, not_after=bench.clock.now() + 3600)
    staying = await bench.revoked(ca)
    await bench.settle()
    await bench.clock.advance(2 * 3600)  # expired now
    await bench.revoked(ca)
    await bench.settle()
    assert dying in bench.listed(), "an unscheduled CRL after notAfter releases nothing"
    await bench.clock.advance(DAY)
    await bench.settle()
    assert dying in bench.listed(), "the first regular CRL after notAfter shows it"
    await bench.revoked(ca)
    await bench.settle()
    assert dying not in bench.listed()
    assert staying in bench.listed()
    assert bench.builder.problems == {}


async def test_a_year_of_entries_that_expire(bench: Bench) -> None:
    """B13, B2, B3 over a year of the longest schedule: each entry is there until a regular CRL after its notAfter.

    The next CRL lets it go, so that the list does not grow; and there is a CRL in force at every moment.
    """
    every = 4 * DAY
    bench.config = Config.model_validate({"crl": {"every": every, "validity": 9 * DAY}})
    await bench.start()
    ca, ends, shown = await bench.issuer(), dict[bytes, float](), set[bytes]()
    sizes, number, regulars = list[int](), 0, set[int]()
    for day in range(365):
        if day % 4 == 0:
            lasts = (1, 3, 10, 47, 90)[day // 4 % 5] * DAY + day % 3
            ends[await bench.revoked(ca, not_after=bench.clock.now() + lasts)] = bench.clock.now() + lasts
        await bench.clock.advance(DAY)
        if not await bench.builder.step():
            assert bench.read().next_update > bench.clock.now()
            continue
        crl, listed = bench.read(), bench.listed()
        number += 1
        assert crl.number == number
        assert set(listed) == set(ends) - shown, "what was shown after its end goes, and nothing else"
        if await bench.database.owner.fetchval("select scheduled from crl where number = $1", number):
            regulars.add(crl.this_update)
            shown |= {serial for serial in listed if int(ends[serial]) < crl.this_update}
        sizes.append(len(listed))
    assert bench.builder.problems == {}
    assert len(regulars) >= 365 // 4 - 1
    assert max(later - earlier for earlier, later in pairwise(sorted(regulars))) <= every + 10
    assert len(shown) > 60
    assert max(sizes[-30:]) < len(ends) / 2, "it does not grow"


async def test_entry_that_expires_in_the_second_of_the_regular_crl_stays(bench: Bench) -> None:
    """notAfter is inclusive: a regular CRL of that very second was not issued after it (B13)."""
    ca = await bench.issuer()
    await bench.settle()
    first = bench.read().this_update
    at_the_edge = await bench.revoked(ca, not_after=first + DAY)
    before = await bench.revoked(ca, not_after=first + DAY - 1)
    await bench.settle(first + DAY - bench.clock.now())
    assert bench.read().this_update == first + DAY
    await bench.settle()
    await bench.revoked(ca)
    await bench.settle()
    assert at_the_edge in bench.listed()
    assert before not in bench.listed()


async def test_revocation_recorded_after_expiry_is_shown_once(bench: Bench) -> None:
    """An import brings revocations of long expired certificates: each appears on one regular CRL, then goes."""
    ca = await bench.issuer()
    await bench.settle()
    serial = await bench.revoked(ca, not_after=bench.clock.now() - 1000 * DAY)
    await bench.settle()
    assert serial in bench.listed()
    await bench.settle(DAY)
    assert serial in bench.listed()
    await bench.settle(DAY)
    assert serial not in bench.listed()
    assert bench.builder.problems == {}


async def test_upgrade_replaces_the_entry(bench: Bench) -> None:
    """B25: keyCompromise replaces the reason and may move the date back; the serial stays on the CRL once."""
    ca = await bench.issuer()
    serial, other = await bench.revoked(ca, 4), await bench.revoked(ca, 9)
    await bench.settle()
    earlier = bench.clock.now() - 500
    await bench.revoke(ca, serial, 1, at=earlier)
    await bench.settle()
    assert bench.listed()[serial] == (earlier, 1)
    assert len(bench.read().entries) == 2
    assert bench.listed()[other][1] == 9
    assert bench.builder.problems == {}


async def test_late_commit_is_never_taken_for_covered(bench: Bench) -> None:
    """A transaction that began before the snapshot and commits after publication makes the scope dirty again."""
    ca = await bench.issuer()
    late, early = await bench.certificate(ca), await bench.certificate(ca)
    await bench.settle()
    conn = await bench.database.connection()
    transaction = conn.transaction()
    await transaction.start()
    await bench.revoke(ca, late, conn=conn)  # has the smaller transaction number
    await bench.revoke(ca, early)
    await bench.settle()
    assert set(bench.listed()) == {early}
    async with acquire(bench.database.owner) as other:
        assert await crls.is_covered(other, ca.id, early)
        assert not await crls.is_covered(other, ca.id, late)
    await transaction.commit()
    await bench.settle()
    assert set(bench.listed()) == {early, late}
    async with acquire(bench.database.owner) as other:
        assert await crls.is_covered(other, ca.id, late)


async def test_many_writers_out_of_order_lose_nothing(bench: Bench) -> None:
    """Writers that commit in another order than they began, with builds between, all end up on the CRL."""
    ca = await bench.issuer()
    await bench.settle()
    serials = [await bench.certificate(ca) for _ in range(12)]
    open_ones: list[Any] = []
    for number, serial in enumerate(serials):
        conn = await bench.database.connection()
        transaction = conn.transaction()
        await transaction.start()
        await bench.revoke(ca, serial, conn=conn)
        open_ones.append(transaction)
        if number % 3 == 2:
            await open_ones.pop(0).commit()
            await bench.settle()
    for transaction in reversed(open_ones):
        await transaction.commit()
        await bench.settle()
    assert set(bench.listed()) == set(serials)
    assert bench.builder.problems == {}


async def test_demand_makes_a_crl_although_nothing_was_revoked(bench: Bench) -> None:
    """`quash crl build --now`: a demand makes its scope due once, and counts as covered by the CRL that followed."""
    await bench.issuer()
    await bench.issuer("other")
    await bench.settle()
    async with acquire(bench.database.owner) as conn, conn.transaction():
        (state, _) = await crls.states(conn)
        await crl_demands.add(conn, [state.scope], actor="test", at=int(bench.clock.now()))
    await bench.settle()
    await bench.settle()
    assert (bench.read().number, bench.read("other.crl").number) == (2, 1)


async def test_new_issuer_is_taken_up_without_a_restart(bench: Bench) -> None:
    """An import beside a running service is served at once, above the number and time of the CA's old CRL."""
    await bench.settle()
    ca = await bench.issuer("old")
    now = int(bench.clock.now())
    async with acquire(bench.database.owner) as conn:
        for _ in range(2):
            await crls.start_after(conn, ca.id, "full", number=4711, this_update=now - 5, next_update=now + DAY)
    serial = await bench.revoked(ca)
    assert await bench.builder.step() == 1
    crl = bench.read("old.crl")
    assert crl.number == 4712
    assert crl.this_update > now - 5
    assert set(bench.listed("old.crl")) == {serial}


async def test_entries_of_upgrades_and_appends_agree_with_a_full_reading(bench: Bench) -> None:
    """The incremental set and one read anew after a restart list the same entries."""
    ca = await bench.issuer()
    serials = [await bench.revoked(ca, reason) for reason in (0, 3, 4, 5, 9)]
    await bench.settle()
    for serial in serials[::2]:
        await bench.revoke(ca, serial, 1)
        await bench.revoked(ca)
        await bench.settle()
    assert bench.builder.problems == {}
    incremental = bench.listed()
    await bench.start()
    await bench.settle(DAY)
    assert bench.listed() == incremental
    assert len(incremental) == 8
