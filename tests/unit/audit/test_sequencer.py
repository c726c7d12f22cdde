"""The sequencer: one chain, every committed row once, checkpoints in two places."""

from __future__ import annotations

import asyncio
import json

import pytest

from issuer.audit.chain import Checkpoint
from quash.errors import QuashError
from quash.store import acts
from quash.store.database import acquire
from tests.support.ledger import Ledger


async def test_acts_are_chained_in_order_and_once(book: Ledger) -> None:
    """Every act gets the next position; a second step has nothing to do."""
    sequencer = book.sequencer()
    await book.act(5)
    assert await sequencer.step() == 5
    assert await sequencer.step() == 0
    await book.act(2)
    assert await sequencer.step() == 2
    assert await book.links() == [(n, "act", n) for n in range(1, 8)]
    assert (await book.verify()).fault_count == 0


async def test_signatures_of_the_ca_are_chained_too(book: Ledger) -> None:
    """What the CA signer logged is in the ledger beside the acts (F1)."""
    await book.act()
    await book.owner.execute("""
        insert into issuer
            (name, kind, subject, spki, signature_algorithm, ocsp_path, max_age, bucket_count, created_at)
            values ('a', 'root', '', '', 'x', 'a', 1, 1, 1);
        insert into signing_log (at, kind, issuer_id, serial, tbs_sha256, der)
            values (1, 'certificate', 1, '\\x01', '\\x02', '\\x03');
        insert into signing_log (at, kind, issuer_id, scope, number, tbs_sha256) values (2, 'crl', 1, 'full', 7, '');
    """)
    assert await book.sequencer().step() == 3
    report = await book.verify()
    assert (report.fault_count, report.covered) == (0, 3)
    exported = [json.loads(line) for line in await book.export()]
    assert [line["content"]["number"] for line in exported if line.get("source") == "signing_log"] == [None, "7"]
    async with book.tampering() as conn:
        await conn.execute("update signing_log set der = '\\x04' where kind = 'certificate'")
    assert any("is not what was chained" in fault for fault in (await book.verify()).faults)


async def test_a_late_commit_is_chained_late_and_never_skipped(book: Ledger) -> None:
    """An act whose transaction is still open when later ones are chained is chained after its commit."""
    sequencer = book.sequencer()
    async with acquire(book.writer) as conn:
        async with conn.transaction():
            late = await acts.record(conn, at=1, actor="late", action="b", subject={})
            await book.act(3)
            assert await sequencer.step() == 3
            assert late not in [source_id for _, _, source_id in await book.links()]
        assert await sequencer.step() == 1
    assert (await book.links())[-1] == (4, "act", late)
    assert await book.sequencer(file=book.folder / "other").step() == 0
    assert (await book.verify()).fault_count == 0


async def test_two_sequencers_make_one_chain(book: Ledger) -> None:
    """Of two that step at once the lease's holder works; when it goes the other one goes on, with no row twice."""
    first, second = book.sequencer(), book.sequencer(file=book.folder / "second.jsonl")
    for _ in range(10):
        _, done, also = await asyncio.gather(book.act(4), first.step(), second.step())
        assert not (done and also)
    working, idle = (first, second) if first.leading else (second, first)
    await working.step()
    assert await idle.step() == 0
    await working.let_go()
    await book.act(3)
    assert await idle.step() == 3
    assert [position for position, _, _ in await book.links()] == list(range(1, 44))
    assert len({source_id for _, _, source_id in await book.links()}) == 43
    assert (await book.verify()).fault_count == 0


async def test_a_holder_that_lost_its_session_chains_nothing(book: Ledger, database: object) -> None:
    """Its lease is gone with its session: the other one works, and the first one's next step stands by."""
    first, second = book.sequencer(), book.sequencer(pool=book.owner, file=book.folder / "second.jsonl")
    await book.act()
    assert await first.step() == 1
    await book.owner.execute("update lease set fence = fence + 1 where name = 'ledger'")  # as if taken over
    await book.act()
    with pytest.raises(QuashError) as lost:
        await first.step()
    assert lost.value.code == "lease.lost"
    assert await second.step() == 1
    assert [position for position, _, _ in await book.links()] == [1, 2]


async def test_checkpoints_follow_rows_and_time(book: Ledger) -> None:
    """The first at once; then after so many rows, or so many seconds when there are new rows; none without."""
    sequencer = book.sequencer(checkpoint_rows=10, checkpoint_seconds=300)

    async def step(rows: int, seconds: float = 0) -> list[int]:
        await book.act(rows)
        await book.clock.advance(seconds)
        await sequencer.step()
        return [Checkpoint.parse(line).position for line in book.file.read_bytes().splitlines()]

    assert await step(1) == [1]
    assert await step(9) == [1]
    assert await step(1) == [1, 11]
    assert await step(3, 299) == [1, 11]
    assert await step(0, 1) == [1, 11, 14]
    assert await step(0, 1000) == [1, 11, 14]
    lines = await book.owner.fetch("select line from ledger_checkpoint order by number")
    assert [row["line"].encode() for row in lines] == book.file.read_bytes().splitlines()


async def test_the_file_catches_up_after_a_crash_or_a_full_disk(book: Ledger) -> None:
    """A line that did not reach the file, or only half of it, is appended by the next step."""
    sequencer = book.sequencer(checkpoint_rows=1)
    for _ in range(3):
        await book.act()
        await sequencer.step()
    whole = book.file.read_bytes()
    lines = whole.splitlines(keepends=True)
    for left in (lines[0], lines[0] + lines[1][:40]):
        book.file.write_bytes(left)
        await sequencer.let_go()
        await sequencer.step()
        assert book.file.read_bytes() == whole
    book.file.unlink()
    book.file.mkdir()
    await book.act()
    with pytest.raises((QuashError, OSError)):
        await sequencer.step()
    book.file.rmdir()
    await sequencer.step()
    assert len(book.file.read_bytes().splitlines()) == 4
    assert (await book.verify()).fault_count == 0


@pytest.mark.parametrize("rows_too", [True, False])
async def test_a_database_that_lost_what_was_signed_is_not_chained_on(book: Ledger, rows_too: bool) -> None:
    """A restored backup must not look whole: the sequencer says which checkpoint it contradicts and stops."""
    sequencer = book.sequencer(checkpoint_rows=1)
    for _ in range(3):
        await book.act()
        await sequencer.step()
    await sequencer.let_go()
    async with book.tampering() as conn:
        await conn.execute("delete from ledger_checkpoint where number = 3")
        if rows_too:
            await conn.execute("delete from ledger where position = 3")
    await book.act()
    with pytest.raises(QuashError) as refused:
        await book.sequencer().step()
    assert refused.value.code == "ledger.contradicts_checkpoint"
    report = await book.verify()
    assert bool(report.fault_count) == rows_too
