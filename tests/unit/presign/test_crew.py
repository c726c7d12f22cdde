"""Signing in other processes: the same records, the same errors, and news overtake them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from quash.cache.layout import Record, decode_batch, decode_record, encode_batch, encode_record
from quash.errors import QuashError
from quash.pki.serials import new_serial
from quash.runtime.config import Presign
from quash.runtime.state import State
from quash.store import feed, ocsp_signers, outbox
from quash.store.database import acquire
from quash.store.feed import FeedRow
from quash.store.leases import Lease
from quash.store.ocsp_signers import OcspSigner
from quash.store.statuses import CertificateStatus
from responder.presign import pipeline
from responder.presign.crew import SigningCrew
from responder.presign.desk import SigningDesk
from responder.presign.key_places import opener
from responder.presign.pipeline import FED_AT_ONCE, LARGE
from responder.presign.signing import Batch
from responder.presign.tenure import CREW_BATCH
from responder.presign.throughput import Throughput

NOW = 1_800_000_000
VALIDITY = 172_799


@pytest.fixture
def state(world: Any, tmp_path: Path) -> State:
    """Where the crew finds the world's keys."""
    made = State(tmp_path / "state")
    made.write_secret(made.secrets / "ocsp.passphrase", b"correct horse")
    return made


@pytest.fixture
async def crew(world: Any, state: State) -> AsyncIterator[SigningCrew]:
    made = SigningCrew(opener(world.database.config, state), 2)
    yield made
    await made.close()


def write_keys(world: Any, state: State) -> None:
    for ref, key in world.keys.items():
        path = state.keys / ref.removeprefix("pem:")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"correct horse"))
        )


async def signer_of(world: Any, authority: Any) -> OcspSigner:
    async with world.database.owner.acquire() as conn:
        (signer,) = await ocsp_signers.of_issuer(conn, authority.id)
    return signer


def statuses(authority: Any, count: int) -> list[CertificateStatus]:
    return [
        CertificateStatus(
            authority.id, new_serial(), "issued", 0, NOW * 2, n % 2, 4 if n % 2 else None, NOW * (n % 2), True
        )
        for n in range(count)
    ]


async def test_the_same_records_as_here(world: Any, state: State, crew: SigningCrew) -> None:
    """Several batches at once, each in its order; all but the signatures is what the desk makes."""
    authority = await world.authority()
    write_keys(world, state)
    signer, batches = await signer_of(world, authority), [statuses(authority, 40) for _ in range(5)]
    desk = SigningDesk(opener(world.database.config, state))
    for batch, made in zip(
        batches,
        await asyncio.gather(*(crew.sign(signer, authority.der, batch, NOW, VALIDITY) for batch in batches)),
        strict=True,
    ):
        here = await desk.sign(signer, authority.der, batch, NOW, VALIDITY)
        assert (made.count, here.count) == (40, 40)
        ours, theirs = list(decode_batch(here.payload)), list(decode_batch(made.payload))
        assert [item[:2] for item in theirs] == [item[:2] for item in ours] == [(s.issuer_id, s.serial) for s in batch]
        assert [decode_record(item[2])[:6] for item in theirs] == [decode_record(item[2])[:6] for item in ours]
    await desk.close()
    assert len(_processes(crew)) == 2
    assert os.getpid() not in _processes(crew)


async def test_errors_come_back_as_they_are(world: Any, state: State, crew: SigningCrew) -> None:
    """A key that is not there: the code and the advice of the process that looked for it; then it is there."""
    authority = await world.authority()
    signer, batch = await signer_of(world, authority), statuses(authority, 3)
    with pytest.raises(QuashError, match=r"key\.unavailable: .*tls-dv.*cannot be read"):
        await crew.sign(signer, authority.der, batch, NOW, VALIDITY)
    write_keys(world, state)
    assert (await crew.sign(signer, authority.der, batch, NOW, VALIDITY)).count == 3


async def test_a_process_that_dies_is_replaced(world: Any, state: State, crew: SigningCrew) -> None:
    """Killed while it signs: the batch fails with `presign.crew_lost`, and may be handed in again."""
    authority = await world.authority()
    write_keys(world, state)
    signer = await signer_of(world, authority)
    await crew.sign(signer, authority.der, statuses(authority, 1), NOW, VALIDITY)
    long = asyncio.ensure_future(crew.sign(signer, authority.der, statuses(authority, 30_000), NOW, VALIDITY))
    await asyncio.sleep(0.2)
    for pid in _processes(crew):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(QuashError, match=r"presign\.crew_lost"):
        await long
    assert (await crew.sign(signer, authority.der, statuses(authority, 2), NOW, VALIDITY)).count == 2


def _processes(crew: SigningCrew) -> list[int]:
    assert crew._pool is not None
    return list(crew._pool._processes)


async def test_a_large_refresh_goes_to_the_crew_and_news_overtake_it(
    world: Any, state: State, crew: SigningCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is answered and passed; a revocation that is committed meanwhile is fed before its end."""
    authority = await world.authority()
    write_keys(world, state)
    serials = await world.imported(authority, 3 * LARGE)
    presigner = await world.presigner(crew=crew)
    slices, sign = 0, SigningCrew.sign

    async def counted(crew: SigningCrew, *arguments: Any) -> Any:
        nonlocal slices
        slices += 1
        if slices == 2:
            await world.revoke(authority, serials[0], 4)
        return await sign(crew, *arguments)

    monkeypatch.setattr(SigningCrew, "sign", counted)
    assert await presigner.step() >= len(serials) + 1
    assert slices >= 4
    cache = await world.cache()
    assert {key[1] for key in cache} == set(serials)
    assert cache[authority.id, serials[0]].reason == 4
    rows = await world.database.owner.fetch("select lane, payload from feed where kind = 'records' order by id")
    assert 0 in [row["lane"] for row in rows[:-1]]
    assert rows[-1]["lane"] == 1
    assert max(len(list(decode_batch(row["payload"]))) for row in rows) <= crew.at_once * pipeline.CREW_SLICE
    passed = await world.database.owner.fetchval("select count(*) from bucket where passed_at = $1", world.now)
    assert passed == await world.database.owner.fetchval("select count(*) from bucket")


async def test_a_small_refresh_wakes_nobody(world: Any, crew: SigningCrew) -> None:
    """Processes cost memory: a small deployment signs in its presigner alone."""
    authority = await world.authority()
    await world.imported(authority, 100)
    presigner = await world.presigner(crew=crew, settings=Presign(workers=2))
    assert await presigner.step() == 100
    assert crew._pool is None


async def test_bulk_news_go_to_the_crew_and_urgent_ones_overtake_them(
    world: Any, state: State, crew: SigningCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """News of a mass revocation, certificate by certificate: in slices, and a single one is fed before them."""
    authority = await world.authority()
    write_keys(world, state)
    serials = await world.imported(authority, 1300)
    presigner = await world.presigner(crew=crew)
    await presigner.step()
    keys = [(authority.id, serial) for serial in serials]
    async with world.database.owner.acquire() as conn:
        await outbox.add_certificates(conn, keys[1:], lane=outbox.BULK)
    last, slices, sign = await world.database.owner.fetchval("select max(id) from feed"), 0, SigningCrew.sign

    async def counted(crew: SigningCrew, *arguments: Any) -> Any:
        nonlocal slices
        slices += 1
        if slices == 1:
            await world.revoke(authority, serials[0], 4)
        await asyncio.sleep(0.3)  # so that there is time to look away
        return await sign(crew, *arguments)

    monkeypatch.setattr(SigningCrew, "sign", counted)
    await world.clock.advance(2)
    assert await presigner.step() == 1299  # the urgent one was fed on the way
    assert slices == 3
    rows = await world.database.owner.fetch(
        "select lane, payload from feed where kind = 'records' and id > $1 order by id", last
    )
    assert [(row["lane"], len(list(decode_batch(row["payload"])))) for row in rows] == [(0, 1), (1, 1299)]
    assert (await world.cache())[authority.id, serials[0]].version == 1


@pytest.mark.parametrize("news", [False, True])
async def test_nothing_more_is_fed_that_a_revoked_signer_signed(
    world: Any, state: State, crew: SigningCrew, monkeypatch: pytest.MonkeyPatch, news: bool
) -> None:
    """Revoked in the middle of a pass, or of bulk news: what is out and what is left go to the new one (A13)."""
    authority = await world.authority()
    old = await signer_of(world, authority)
    write_keys(world, state)
    serials = await world.imported(authority, 1300 if news else 3 * LARGE)
    presigner = await world.presigner(crew=crew)
    if news:
        await presigner.step()
        async with world.database.owner.acquire() as conn:
            await outbox.add_certificates(conn, [(authority.id, serial) for serial in serials], lane=outbox.BULK)
    began, slices, sign = await world.database.owner.fetchval("select max(id) from feed") or 0, 0, SigningCrew.sign

    async def counted(crew: SigningCrew, *arguments: Any) -> Any:
        nonlocal slices
        slices += 1
        if slices == 2:
            await world.signer(authority)
            write_keys(world, state)
            await world.revoke_signer(authority, old.id)
        await asyncio.sleep(0.3)  # so that there is time to look away
        return await sign(crew, *arguments)

    monkeypatch.setattr(SigningCrew, "sign", counted)
    await world.clock.advance(2)
    await presigner.step()
    rows = await world.database.owner.fetch("select kind, payload from feed where id > $1 order by id", began)
    templates = [number for number, row in enumerate(rows) if row["kind"] == "template"]
    after = [row["payload"] for row in rows[templates[-1] :] if row["kind"] == "records"]
    signers = {decode_record(item[2]).signer_id for payload in after for item in decode_batch(payload)}
    assert signers == {max(authority.signers)}
    assert {key[1] for key in await world.cache()} >= set(serials)


class ManyProcesses:
    """A crew of more processes than this machine has cores: all that they were given comes back at once."""

    at_once = 3 * FED_AT_ONCE

    def __init__(self, issuer_id: int) -> None:
        self.issuer_id = issuer_id
        self.waiting: list[asyncio.Future[None]] = []

    async def sign(self, _: Any, __: Any, statuses: Any, *___: Any) -> Batch:
        self.waiting.append(asyncio.get_running_loop().create_future())
        if len(self.waiting) >= self.at_once // 2:
            for each in self.waiting:
                each.cancelled() or each.done() or each.set_result(None)
        await asyncio.wait(self.waiting[-1:], timeout=0.5)
        record = encode_record(Record(0, None, 0, NOW, NOW + VALIDITY, 1, (bytes(64), bytes(64))))
        return Batch(len(statuses), encode_batch([(self.issuer_id, each.serial, record) for each in statuses]))

    async def close(self) -> None:
        pass


async def test_no_feed_transaction_grows_with_the_crew(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a writer waits at most 200 ms (design, section 5): so many records, whatever came back."""
    monkeypatch.setattr(pipeline, "CREW_SLICE", 100)
    authority = await world.authority()
    serials = await world.imported(authority, 2 * LARGE + 100)
    presigner = await world.presigner(crew=ManyProcesses(authority.id))
    assert await presigner.step() == len(serials)
    rows = await world.database.owner.fetch("select tx, payload from feed where kind = 'records'")
    counts: Counter[int] = Counter()
    for row in rows:
        counts[row["tx"]] += len(list(decode_batch(row["payload"])))
    assert sum(counts.values()) == len(serials)
    assert 100 < max(counts.values()) <= FED_AT_ONCE * 100


async def test_the_largest_feed_transaction_is_over_soon(world: Any) -> None:
    """As many records as the presigner ever feeds at once, P-256: the best of five, for the machine has other work."""
    record = encode_record(Record(0, None, 0, NOW, NOW + VALIDITY, 1, (bytes(64), bytes(64))))
    items = [(1, new_serial(), record) for _ in range(max(FED_AT_ONCE * pipeline.CREW_SLICE, CREW_BATCH))]
    row, took = FeedRow(feed.BULK, "records", None, encode_batch(items)), []
    async with acquire(await world.database.pool("quash_presigner")) as conn:
        await feed.add_partition(conn, 0, NOW + 1)
        lease = await Lease.acquire(conn, "presign")
        assert lease is not None
        for _ in range(5):
            began = time.monotonic()
            await feed.write(conn, lease, [row], NOW)
            took.append(time.monotonic() - began)
    assert min(took) < 0.2


def test_throughput_is_of_what_was_busy() -> None:
    """No span has a pause in it, and none is shorter than two seconds."""
    measured = Throughput()
    assert [measured.add(1000, at) for at in (0.0, 0.5, 1.0, 1.5)] == [None] * 4
    assert measured.add(1000, 2.0) == 2000
    assert [measured.add(1000, at) for at in (10.0, 10.9, 11.8)] == [None] * 3
    assert measured.add(1000, 12.5) == pytest.approx(1200)
