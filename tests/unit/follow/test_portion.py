"""How much a follower takes up in one commit: lanes at its stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quash.cache.layout import encode_batch, encode_heartbeat
from quash.cache.writer import Changes, LmdbWriter
from quash.store.feed import BULK, URGENT, FeedRow
from responder.follow.follower import READ_LIMIT, RECORDS_AT_ONCE, Portion
from responder.follow.trust import Limits
from tests.unit.follow.conftest import Node


@given(st.lists(st.tuples(st.integers(1, READ_LIMIT), st.integers(0, 3_000_000)), max_size=40))
def test_a_portion_stays_within_its_bounds(batches: list[tuple[int, int]]) -> None:
    """Whatever batches held: at least one row, at most the limit."""
    portion = Portion(READ_LIMIT)
    for rows, records in batches:
        portion.learn(rows, records)
        assert 1 <= portion.rows <= READ_LIMIT


@pytest.mark.parametrize(("each", "wanted"), [(0, READ_LIMIT), (1, READ_LIMIT), (1000, 16), (3000, 5), (10**6, 1)])
def test_it_finds_its_size(each: int, wanted: int) -> None:
    """Heartbeats by the hundred; rows of a thousand records as many as a commit shall have."""
    portion = Portion(READ_LIMIT)
    for _ in range(10):
        portion.learn(portion.rows, each * portion.rows)
    assert portion.rows == wanted


async def test_an_urgent_row_behind_a_mass_job_waits_for_one_commit_of_bounded_size(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many bulk rows lie before it, no commit holds much more than its portion, and all is taken up."""
    sizes: list[int] = []
    apply = LmdbWriter.apply

    def counted(writer: LmdbWriter, changes: Changes) -> int:
        sizes.append(len(list(changes.records)))
        return apply(writer, changes)

    record = node.issuer.record(b"\x01", node.now)
    follower = await node.follower(limits=Limits(sample=10**9))  # one signature for all: none of them is looked at
    await follower.step()
    monkeypatch.setattr(LmdbWriter, "apply", counted)
    for start in range(40):
        items = [(1, (0x0100_0000 + start * 1000 + n).to_bytes(4, "big"), record) for n in range(1000)]
        await node.feed(FeedRow(BULK, "records", None, encode_batch(items)))
    urgent = b"\x7f"
    await node.feed(
        node.records((urgent, node.issuer.record(urgent, node.now))),
        FeedRow(URGENT, "heartbeat", None, encode_heartbeat(node.now)),
    )
    await follower.step()
    assert node.held(urgent) is not None
    assert max(sizes) <= RECORDS_AT_ONCE + 1
    assert len(sizes) >= 3
