"""Flow 4 over weeks of fake time (A1-A5, G3)."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from pydantic import ValidationError

from quash.cache import layout
from quash.pki.rules import answers_late_after
from quash.runtime.config import Presign
from quash.store import buckets, outbox
from responder.presign import refresh
from responder.presign.desk import SigningDesk
from responder.presign.metrics import ALARMS
from responder.presign.refresh import Pace
from responder.presign.schedule import next_due

HOUR = 3600
DAY = 24 * HOUR
VALIDITY = 2 * DAY - 1


async def test_a_week_of_refreshes(world: Any) -> None:
    """At any hour of a week: no answer older than 21 h (A4, G3), each valid 48 h - 1 s, none late (A3)."""
    authority, second = await world.authority(), await world.authority("tls-ov")
    keys = {(authority.id, serial) for serial in await world.imported(authority, 30)}
    keys |= {(second.id, await world.issue(second)), (authority.id, await world.issue(authority))}
    revoked = await world.issue(authority)
    await world.revoke(authority, revoked, 4)
    keys.add((authority.id, revoked))
    presigner = await world.presigner()
    await presigner.step()
    for _ in range(7 * 24):
        await world.clock.advance(HOUR)
        cache = await world.cache()
        for key in keys:
            record = cache[key]
            assert record.next_update - record.this_update == VALIDITY
            assert world.now - record.this_update <= 21 * HOUR
            assert record.next_update - world.now >= 8 * HOUR
        await presigner.step()
    assert cache[authority.id, revoked].reason == 4
    signed = Counter(
        (issuer_id, serial)
        for payload in await world.feed("records")
        for issuer_id, serial, _ in layout.decode_batch(payload)
    )
    assert max(signed.values()) <= 7 * 24 // 20 + 5  # a cycle is no shorter than its 20 h, but for the start


async def test_what_was_due_longest_comes_first(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a standstill buckets are passed in the order in which they came due, whichever issuers they are of."""
    monkeypatch.setattr(refresh, "_ENOUGH", 0)  # a bucket a pass
    first, second = await world.authority(), await world.authority("tls-ov")
    hours = {
        **{(first.id, bucket): ago for bucket, ago in enumerate((40, 10, 30, 20))},
        **{(second.id, bucket): ago for bucket, ago in enumerate((15, 35, 5, 25))},
    }
    async with world.database.owner.acquire() as conn:
        for (issuer_id, bucket), ago in hours.items():
            await conn.execute(
                "update bucket set due_at = $3 where issuer_id = $1 and bucket = $2",
                issuer_id,
                bucket,
                world.now - ago * HOUR,
            )
        passed = []
        while (begun := await refresh.begin_pass(conn, world.now, ())) is not None:
            (bucket,) = begun.buckets
            passed.append((bucket.issuer_id, bucket.bucket))
            await buckets.finish_pass(
                conn, bucket, passed_at=world.now, pass_xmin=begun.xmin, due_at=world.now + HOUR, signer_id=None
            )
    assert passed == sorted(hours, key=hours.__getitem__, reverse=True)


async def test_load_is_flat_after_the_first_cycle(world: Any) -> None:
    """Buckets that all came due together are due in different quarters of the next cycle."""
    authority = await world.authority()
    await world.imported(authority, 20)
    presigner = await world.presigner()
    await presigner.step()
    due = await world.database.owner.fetch("select due_at from bucket order by due_at")
    times = [row["due_at"] - world.now for row in due]
    assert all(0 < time <= 20 * HOUR for time in times)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(gap == 5 * HOUR for gap in gaps)


async def test_expired_certificates_drop_out(world: Any) -> None:
    """A revocation is answered through the certificate's notAfter (A41); later it goes with its feed partition."""
    authority = await world.authority()
    serial = await world.issue(authority, days=3)
    await world.revoke(authority, serial, 1)
    presigner = await world.presigner()
    not_after = world.now + 3 * DAY - 1
    while world.now <= not_after:
        await presigner.step()
        record = (await world.cache())[authority.id, serial]
        assert (record.version, record.next_update > world.now) == (1, True)
        await world.clock.advance(HOUR)
    for _ in range(2 * 24):
        await presigner.step()
        await world.clock.advance(HOUR)
        assert (await world.cache()).get((authority.id, serial), record).this_update <= not_after
    assert await world.cache() == {}


async def test_never_past_the_signers_certificate(world: Any) -> None:
    """Near the end of the signer's certificate nextUpdate is cut to it (A5), refreshes come by half-lives (A2, A3),
    never below 8 hours of validity (A1), and then an alarm stands where records would."""
    authority = await world.authority(signer_days=3)
    serial = await world.issue(authority)
    not_after = world.now + 3 * DAY - 1
    presigner = await world.presigner()
    before = ALARMS.labels("presign.no_signer")._value.get()
    for _ in range(3 * 24 + 5):
        await presigner.step()
        record = (await world.cache())[authority.id, serial]
        validity = record.next_update - record.this_update
        assert record.next_update <= not_after
        assert 8 * HOUR <= validity <= VALIDITY
        if world.now <= not_after - 8 * HOUR:
            assert world.now <= record.this_update + validity // 2
        await world.clock.advance(HOUR)
    assert record.next_update == not_after
    assert ALARMS.labels("presign.no_signer")._value.get() > before


async def test_a_new_signer_takes_over(world: Any) -> None:
    """A second signer's answers replace the first one's, whose template stays known while its answers live."""
    authority = await world.authority(signer_days=3)
    serial = await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    (first,) = authority.signers
    await world.clock.advance(2 * DAY)
    await presigner.step()
    second = await world.signer(authority)
    for _ in range(24):
        await presigner.step()
        await world.clock.advance(HOUR)
    record = (await world.cache())[authority.id, serial]
    assert (record.signer_id, record.next_update - record.this_update) == (second, VALIDITY)
    assert {layout.decode_template(payload).signer_id for payload in await world.feed("template")} == {first, second}


async def test_news_of_a_bucket_under_way_are_not_lost(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that changes after its pass read it, and says so, is read again before it counts as passed."""
    authority = await world.authority()
    serials = await world.imported(authority, 200)
    presigner = await world.presigner()
    real = SigningDesk.sign
    calls = 0

    async def interrupted(desk: SigningDesk, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:  # a mass revocation, told by bucket, while the first slice is being signed
            async with world.database.owner.acquire() as conn, conn.transaction():
                for serial in serials:
                    await world.revoke_in(conn, authority, serial, 4)
                await outbox.add_buckets(conn, authority.id, range(4))
        return await real(desk, *arguments)

    monkeypatch.setattr(SigningDesk, "sign", interrupted)
    await presigner.step()
    cache = await world.cache()
    assert {cache[authority.id, serial].reason for serial in serials} == {4}


async def test_this_update_is_when_the_status_was_read(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice that is signed minutes after its pass read it says so: at its thisUpdate the status was known (A30)."""
    authority = await world.authority()
    serials = await world.imported(authority, 200)
    began = world.now
    real = SigningDesk.sign

    async def slow(desk: SigningDesk, *arguments: Any) -> Any:
        await world.clock.advance(120)
        return await real(desk, *arguments)

    monkeypatch.setattr(SigningDesk, "sign", slow)
    presigner = await world.presigner()
    await presigner.step()
    while presigner.unfinished:
        await presigner.step()
    cache = await world.cache()
    assert len(cache) == len(serials)
    assert {record.this_update for record in cache.values()} == {began}


async def test_a_late_refresh_raises_an_alarm(world: Any) -> None:
    """Answers 23 hours old: alarm, before G3 is broken (A4)."""
    authority = await world.authority()
    await world.issue(authority)
    presigner = await world.presigner()
    await presigner.step()
    before = ALARMS.labels("presign.refresh_late")._value.get()
    world.key_fault = "away"
    for _ in range(22):
        await world.clock.advance(HOUR)
        await presigner.step()
    assert ALARMS.labels("presign.refresh_late")._value.get() == before
    for _ in range(2):  # from 22 h to 24 h
        await world.clock.advance(HOUR)
        await presigner.step()
    assert ALARMS.labels("presign.refresh_late")._value.get() > before


@given(
    began=st.integers(1_700_000_000, 2_000_000_000),
    buckets=st.integers(1, 65536),
    position=st.floats(0, 1, exclude_max=True),
    every=st.integers(HOUR, 23 * HOUR),
    validity=st.integers(8 * HOUR, 4 * DAY - 1),
)
def test_next_due_is_never_late(began: int, buckets: int, position: float, every: int, validity: int) -> None:
    """Due again within the cycle and within half the validity (A2, A3), and in the bucket's own slot of every cycle."""
    bucket = int(position * buckets)
    due = next_due(began=began, bucket=bucket, bucket_count=buckets, every=every, validity=validity)
    most = validity // 2 - HOUR // 2  # half an hour, in which it comes out
    assert began < due <= began + min(every, most)
    if due < began + most:
        assert due % every == bucket * every // buckets
        again = next_due(began=due, bucket=bucket, bucket_count=buckets, every=every, validity=validity)
        assert again == due + min(every, most)


@pytest.mark.parametrize("validity", [8 * HOUR, 16 * HOUR, 2 * DAY - 1, 4 * DAY - 1])
def test_refreshes_that_come_out_too_late_are_refused(validity: int) -> None:
    """Every validity that A1 allows loads; due at half of it would be published after it (A2, A3)."""
    most = min(validity // 2 - HOUR // 2, 23 * HOUR)
    assert Presign(validity=validity, refresh_every=most).refresh_every == most
    with pytest.raises(ValidationError):
        Presign(validity=validity, refresh_every=most + 1)
    assert most < answers_late_after(validity) < validity // 2 or answers_late_after(validity) == 23 * HOUR


async def test_late_is_what_the_validity_makes_so(world: Any) -> None:
    """Answers of 12 hours have all ended after 23: the alarm comes before half of them (A2)."""
    await world.issue(await world.authority())
    presigner = await world.presigner(settings=Presign(validity=12 * HOUR, refresh_every=3 * HOUR))
    await presigner.step()
    before = ALARMS.labels("presign.refresh_late")._value.get()
    world.key_fault = "away"
    await world.clock.advance(6 * HOUR - HOUR // 4)
    await presigner.step()
    assert ALARMS.labels("presign.refresh_late")._value.get() == before
    await world.clock.advance(61)
    await presigner.step()
    assert ALARMS.labels("presign.refresh_late")._value.get() == before + 1
    assert REGISTRY.get_sample_value("quash_presign_oldest_answers_limit_seconds") == 6 * HOUR - HOUR // 4


def test_the_default_profile_is_the_safe_one() -> None:
    """48 h - 1 s, refreshed every 20 h (A4)."""
    assert (Presign().validity, Presign().refresh_every) == (VALIDITY, 20 * HOUR)


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 10)), max_size=30))
def test_the_pace_stays_within_its_bounds(measured: list[tuple[int, float]]) -> None:
    """However odd the measurements, a slice is never empty and never larger than the limit."""
    pace = Pace()
    for count, seconds in measured:
        before = pace.size
        pace.learn(count, seconds)
        assert 16 <= pace.size <= min(1000, max(2 * before, 16))


def test_the_pace_finds_its_target() -> None:
    """At 2 ms a record (RSA) slices settle at 50 ms, at 40 µs a record (P-256) at their limit."""
    for per_record, wanted in ((0.002, 25), (0.00004, 1000)):
        pace = Pace()
        for _ in range(10):
            pace.learn(pace.size, pace.size * per_record)
        assert pace.size == wanted


async def test_a_step_of_long_work_comes_to_an_end(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what waits for it goes on: looks at keys, renewals, alarms, health. The next steps do the rest."""
    authority = await world.authority()
    presigner = await world.presigner()
    await presigner.step()
    serials = await world.imported(authority, 400)
    real = SigningDesk.sign

    async def slow(desk: SigningDesk, *arguments: Any) -> Any:
        await world.clock.advance(4)
        return await real(desk, *arguments)

    monkeypatch.setattr(SigningDesk, "sign", slow)
    await world.clock.advance(1)
    steps = 0
    while len(await world.cache()) < len(serials):
        before = world.now
        await presigner.step()
        steps += 1
        assert world.now - before <= 12
        assert presigner.unfinished or len(await world.cache()) == len(serials)
    assert steps > 1
    await presigner.step()
    await presigner.step()
    assert not presigner.unfinished
