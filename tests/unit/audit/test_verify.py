"""Verification finds whatever was done to the ledger, in the database and in an export."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from issuer.audit.chain import GENESIS, Checkpoint, Entry, canonical, parse_entry
from issuer.audit.verify import read_keys
from quash.errors import QuashError
from tests.support.ledger import Ledger

ROWS = 6

# What an owner of the database may do, each found.
TAMPERING = {
    "a subject": "update act set subject = '{\"n\": 99}' where id = 3",
    "a time": "update act set at = at + 1 where id = 1",
    "an actor": "update act set actor = 'operator:z' where id = 2",
    "an action": "update act set action = 'c' where id = 6",
    "an act dropped": "delete from act where id = 4",
    "a link dropped": "delete from ledger where position = 4",
    "the first dropped": "delete from ledger where position = 1",
    "the tail cut": "delete from ledger where position > 4",
    "all dropped": "delete from ledger",
    "a link's time": "update ledger set chained_at = 1 where position = 2",
    "a link's hash": "update ledger set hash = sha256(hash) where position = 5",
    "two acts swapped": "update ledger set source_id = -source_id where source_id in (2, 3);"
    "update ledger set source_id = case source_id when -2 then 3 else 2 end where source_id < 0",
    "two links swapped": "update ledger set position = position + 1000 where position in (2, 3);"
    "update ledger set position = case position when 1002 then 3 else 2 end where position > 1000",
    "a checkpoint dropped": "delete from ledger_checkpoint where number = 1",
    "a checkpoint changed": "update ledger_checkpoint set line = replace(line, '\"number\":1', '\"number\":2')",
    "a checkpoint damaged": "update ledger_checkpoint set line = left(line, 50)",
    "an act inserted before": "insert into act (at, actor, action, subject) values (1, 'x', 'y', '{}');"
    "update ledger set source_id = (select max(id) from act) where position = 6",
}


@pytest.fixture
async def whole(book: Ledger) -> Ledger:
    """Six acts, with checkpoints after the third and the sixth."""
    sequencer = book.sequencer(checkpoint_rows=3)
    await book.act(3, name='ä\u2028"', big=2**63 - 1, nested={"b": [1, None], "a": 1.5})
    await sequencer.step()
    await book.act(3)
    await sequencer.step()
    report = await book.verify()
    assert (report.fault_count, report.entries, report.checkpoints, report.covered) == (0, ROWS, 4, ROWS)
    return book


@pytest.mark.parametrize("what", sorted(TAMPERING))
async def test_what_is_done_to_the_database_is_found(whole: Ledger, what: str) -> None:
    """Changed, dropped, cut, swapped, inserted: each is a fault."""
    async with whole.tampering() as conn:
        await conn.execute(TAMPERING[what])
    assert (await whole.verify()).fault_count > 0


async def test_a_chain_rebuilt_after_tampering_is_found_by_the_checkpoints(whole: Ledger) -> None:
    """Whoever recomputes every hash still cannot sign: both lists of checkpoints say so."""
    async with whole.tampering() as conn:
        await conn.execute("update act set actor = 'operator:z' where id = 2")
        previous = GENESIS
        for line in await whole.export():
            if b'"content"' not in line:
                continue
            fields = json.loads(line)
            fields.pop("hash")
            entry = Entry(**fields)
            previous = entry.hash_after(previous)
            await conn.execute("update ledger set hash = $1 where position = $2", previous, entry.position)
    report = await whole.verify()
    assert report.covered == 0
    assert len(report.faults) == report.fault_count == 4
    assert all("signs another hash" in fault for fault in report.faults)


async def test_a_tail_cut_with_its_checkpoints_is_found_by_the_file(whole: Ledger) -> None:
    """Everything in the database was cut alike; what lies outside it tells."""
    async with whole.tampering() as conn:
        await conn.execute(
            "delete from ledger where position > 3; delete from act where id > 3;"
            "delete from ledger_checkpoint where number > 1"
        )
    faults = (await whole.verify()).faults
    assert faults == ["position 6 is missing: checkpoint 2 signs it"]


async def test_an_export_verifies_elsewhere(whole: Ledger) -> None:
    """Its lines alone are enough, with the public key."""
    lines = await whole.export()
    report = whole.verify_lines(b"\n".join(lines) + b"\n", whole.file)
    assert (report.fault_count, report.entries, report.covered) == (0, ROWS, ROWS)
    assert [json.loads(line)["content"]["subject"]["n"] for line in lines[2:]] == [0, 1, 2, 0, 1, 2]


async def test_every_flipped_byte_of_an_export_is_found(whole: Ledger) -> None:
    """Each byte, in one of several ways."""
    body = b"\n".join(await whole.export()) + b"\n"
    for index, flip in zip(range(len(body)), itertools.cycle((1, 0x20, 0x80, 4, 0x10)), strict=False):
        changed = bytearray(body)
        changed[index] ^= flip
        report = whole.verify_lines(bytes(changed))
        assert report.fault_count, (index, flip, changed[max(0, index - 20) : index + 20])


async def test_dropped_swapped_repeated_and_cut_lines_are_found(whole: Ledger) -> None:
    """Every line dropped or repeated, every two swapped, every tail cut; the file outside knows the last checkpoint."""
    lines = await whole.export()
    for index in range(len(lines)):
        for changed in (
            lines[:index] + lines[index + 1 :],
            [*lines[:index], lines[index], *lines[index:]],
            lines[:index],
        ):
            assert whole.verify_lines(b"".join(line + b"\n" for line in changed), whole.file).fault_count or (
                index == 1 and len(changed) == len(lines) - 1  # the last checkpoint: the file has it
            )
    for a, b in itertools.combinations(range(len(lines)), 2):
        changed = list(lines)
        changed[a], changed[b] = changed[b], changed[a]
        report = whole.verify_lines(b"".join(line + b"\n" for line in changed))
        same_order = (a < 2) != (b < 2)  # of checkpoints among themselves, and of entries among themselves
        assert report.fault_count or (same_order and _order_kept(lines, changed))


def _order_kept(lines: list[bytes], changed: list[bytes]) -> bool:
    def kind(many: list[bytes], signed: bool) -> list[bytes]:
        return [line for line in many if (b'"signature"' in line) == signed]

    return all(kind(lines, signed) == kind(changed, signed) for signed in (True, False))


async def test_another_key_signs_in_vain(whole: Ledger, tmp_path: Any) -> None:
    """A checkpoint by a key that was not given is a fault, and a file without keys is refused."""
    with pytest.raises(QuashError) as refused:
        read_keys(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    assert refused.value.code == "ledger.no_key"
    with pytest.raises(QuashError):
        read_keys(b"")
    verifier = whole.verifier()
    verifier._keys = {}  # nobody's
    verifier.checkpoints(whole.file.read_bytes().splitlines(), "file")
    assert verifier.report.fault_count == 2


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=10,
    )
)
def test_lines_come_back_as_they_were_written(value: Any) -> None:
    """Whatever JSON an act holds, its line parses to the same entry, and only that line does."""
    entry = Entry(7, "act", 9, 1, {"subject": value})
    line = entry.line(bytes(32))
    assert parse_entry(line) == (entry, bytes(32))
    with pytest.raises(QuashError):
        parse_entry(line.replace(b'"id":9', b'"id": 9'))
    assert canonical(json.loads(line)) == line
    checkpoint = Checkpoint(1, 2, bytes(32), 3, bytes(32), bytes(32), b"\1")
    assert Checkpoint.parse(checkpoint.line) == checkpoint
