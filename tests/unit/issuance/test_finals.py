"""E6: final certificates are in a log within 24 hours, whatever crashes or fails, and no order waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from issuer.ct.double import LogDouble
from issuer.ct.sct import Sct
from issuer.ct.submit import CtLogs
from issuer.issuance import finals
from issuer.issuance.finals import Finals
from issuer.issuance.issue import Logging
from quash.runtime.clock import FakeClock
from quash.store import final_submissions
from quash.store.final_submissions import FIRST_PAUSE, LONGEST_PAUSE
from quash.store.orders import Order
from quash.store.roles import ISSUING
from tests.support.issuing import DAY, World, make_csr

Logs = tuple[CtLogs, dict[str, LogDouble]]


async def order(world: World, client: CtLogs, names: tuple[str, ...] = ("www.example.org",)) -> Order:
    issuance = world.issuance(logging=Logging(world.signer.sign_precertificate, client))
    made = await issuance.submit("operator:ann", "tls-dv", make_csr(names))
    made = await issuance.finish(made.id, timeout=0)
    assert made.state == "issued"
    return made


def entries(doubles: dict[str, LogDouble]) -> list[bytes]:
    return [entry for double in doubles.values() for entry in double.entries]


async def rows(world: World) -> list[Any]:
    return await world.fetch("select * from final_submission order by added_at, serial")


async def test_a_final_certificate_is_handed_out_first_and_logged_then(world: World, logs: Logs) -> None:
    """The order is issued while nothing but precertificates is in any log; then one log has the certificate whole."""
    client, doubles = logs
    await order(world, client)
    (row,) = await rows(world)
    assert (row["attempts"], row["logged_at"], row["next_at"]) == (0, None, row["added_at"])
    assert len(entries(doubles)) == 3
    submitting = Finals(world.pool, client, world.clock)
    assert await submitting.step() == 1
    (certificate,) = await world.fetch("select der from certificate")
    (double,) = [double for double in doubles.values() if len(double.entries) == 2]
    assert certificate["der"] in double.entries[-1]
    (row,) = await rows(world)
    assert (row["attempts"], row["logged_at"], row["log_id"]) == (1, int(world.clock.now()), double.log_id)
    assert await submitting.step() == 0
    assert len(entries(doubles)) == 4


async def test_the_next_log_is_asked_where_one_fails(world: World, logs: Logs) -> None:
    """A log that answers 500, and one whose signature is another's, give no SCT that counts."""
    client, doubles = logs
    await order(world, client)
    doubles["alpha-one"].status = 500
    doubles["alpha-two"].mangle = lambda found: replace(found, signature=b"0" * 70)  # type: ignore[method-assign]
    assert await Finals(world.pool, client, world.clock).step() == 1
    (row,) = await rows(world)
    assert row["log_id"] == doubles["beta-one"].log_id


async def test_what_no_log_takes_is_tried_again_until_it_expires(
    world: World, clock: FakeClock, logs: Logs, database: Any
) -> None:
    """Pauses grow to an hour, a restart changes nothing, and an expired certificate is let alone."""
    client, doubles = logs
    await order(world, client)
    for double in doubles.values():
        double.status = 503
    pauses = []
    for _ in range(9):
        assert await Finals(await database.pool(ISSUING), client, clock).step() == 0
        (row,) = await rows(world)
        pauses.append(row["next_at"] - int(clock.now()))
        clock.step(pauses[-1] - 1)
        assert await final_submissions_due(world) == 0
        clock.step(1)
    assert pauses == [min(FIRST_PAUSE << attempt, LONGEST_PAUSE) for attempt in range(9)]
    for double in doubles.values():
        double.status = 200
    clock.step(300 * DAY)
    assert await final_submissions_due(world) == 0
    clock.step(-300 * DAY)
    assert await Finals(world.pool, client, clock).step() == 1


async def final_submissions_due(world: World) -> int:
    async with world.pool.acquire() as conn, conn.transaction():
        return len(await final_submissions.claim(conn, int(world.clock.now()), 10))


async def test_several_processes_share_the_work(world: World, logs: Logs, database: Any) -> None:
    """Six certificates, three processes: each is in a log once."""
    client, doubles = logs
    for number in range(6):
        await order(world, client, (f"www{number}.example.org",))
    before = len(entries(doubles))
    several = [Finals(await database.pool(ISSUING), client, world.clock) for _ in range(3)]
    assert sum([await each.step() for each in several]) == 6
    assert len(entries(doubles)) == before + 6


async def test_a_backlog_is_claimed_in_batches_and_submitted_few_at_once(
    world: World, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question for many; and no more submissions side by side than before, however many there are."""
    monkeypatch.setattr(finals, "BATCH", 5)
    client, _ = logs
    for number in range(6):
        await order(world, client, (f"www{number}.example.org",))
    under_way, most = 0, 0

    class Log:
        async def log_final(self, certificate: bytes, issuers: Sequence[bytes], not_after: int) -> Sct:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return await client.log_final(certificate, issuers, not_after)

    submitting = Finals(world.pool, Log(), world.clock)
    assert [await submitting.step() for _ in range(3)] == [5, 1, 0]
    assert most == 4


async def test_a_crash_behind_t3_loses_no_submission(world: World, logs: Logs) -> None:
    """The row is committed with the certificate: a process that ends right there leaves it to the next."""
    client, _ = logs

    async def end_at_commit(step: str) -> None:
        if step == "commit":
            raise ConnectionError

    issuance = world.issuance(logging=Logging(world.signer.sign_precertificate, client), passed=end_at_commit)
    made = await issuance.submit("operator:ann", "tls-dv", make_csr())
    with pytest.raises(ConnectionError):
        await issuance.advance(made.id)
    assert await Finals(world.pool, client, world.clock).step() == 1


async def test_a_certificate_without_scts_goes_to_no_log(world: World) -> None:
    """A demonstration without logs has nothing to submit to."""
    issuance = world.issuance()
    made = await issuance.submit("operator:ann", "tls-dv", make_csr())
    await issuance.finish(made.id, timeout=0)
    assert await rows(world) == []
