"""Which logs satisfy Chrome and Apple together (E1-E4), and the log list that names them (E9)."""

from __future__ import annotations

import base64
import hashlib
import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuer.ct import log_list, policy
from issuer.ct.log_list import Log
from quash.errors import QuashError

DAY = 86_400


def log(
    operator: str, kind: Any = "rfc6962", number: int = 0, state: str = "usable", ends_at: int | None = None
) -> Log:
    log_id = hashlib.sha256(f"{operator}{kind}{number}".encode()).digest()
    return Log(operator, f"{operator} {number}", log_id, b"", "http://x/", kind, state, None, ends_at)


# days of validity, the logs' operators and kinds, whether their SCTs are enough
CASES = [
    (180, [("a", "rfc6962"), ("b", "static")], True),
    (180, [("a", "rfc6962"), ("a", "static")], False),  # E2: one operator
    (180, [("a", "static"), ("b", "static")], False),  # E4: Apple wants an RFC 6962 log
    (180, [("a", "rfc6962")], False),  # E1
    (181, [("a", "rfc6962"), ("b", "static")], False),  # E1: three above 180 days
    (181, [("a", "rfc6962"), ("a", "static"), ("b", "static")], True),
    (181, [("a", "rfc6962"), ("a", "static"), ("a", "rfc6962")], False),
    (181, [("a", "rfc6962"), ("b", "static"), ("c", "static")], True),
    (181, [("a", "static"), ("b", "static"), ("c", "static")], False),
    (47, [("a", "rfc6962"), ("b", "rfc6962")], True),
]


@pytest.mark.parametrize(("days", "which", "enough"), CASES)
def test_the_table_of_chrome_and_apple(days: int, which: list[tuple[str, str]], enough: bool) -> None:
    """E1, E2, E4: each row of the two policies, at the length on which they turn."""
    logs = [log(operator, kind, number) for number, (operator, kind) in enumerate(which)]
    assert policy.satisfied(logs, policy.demand(days * DAY)) is enough
    assert (policy.smallest(logs, policy.demand(days * DAY)) is not None) is enough


def test_an_sct_of_the_same_log_counts_once() -> None:
    """E1: distinct logs."""
    logs = [log("a"), log("a"), log("b", "static")]
    assert not policy.satisfied(logs, policy.demand(181 * DAY))


def test_one_second_above_180_days_needs_a_third() -> None:
    """E1: the lifetime counts both ends."""
    assert [policy.demand(180 * DAY).scts, policy.demand(180 * DAY + 1).scts] == [2, 3]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["rfc6962", "static"])), max_size=7), st.booleans())
def test_a_choice_is_found_whenever_there_is_one_and_is_no_larger(which: list[tuple[str, str]], long: bool) -> None:
    """The chosen set satisfies, has exactly the wanted size, and exists if any set of that size does."""
    logs = [log(operator, kind, number) for number, (operator, kind) in enumerate(which)]
    wanted = policy.demand((199 if long else 90) * DAY)
    chosen = policy.smallest(logs, wanted)
    exists = any(policy.satisfied(each, wanted) for each in itertools.combinations(logs, wanted.scts))
    assert (chosen is not None) is exists
    if chosen is not None:
        assert len(chosen) == wanted.scts
        assert policy.satisfied(chosen, wanted)


def test_only_usable_logs_of_the_right_shard_are_candidates() -> None:
    """E3, E9: state usable; the interval's start counts, its end does not."""
    shard = Log("a", "a", b"", b"", "", "rfc6962", "usable", 100, 200)
    logs = [shard, log("b"), *(log("c", state=state) for state in ("qualified", "readonly", "retired", "rejected"))]
    assert [policy.candidates(logs, at) == [shard, log("b")] for at in (99, 100, 199, 200)] == [
        False,
        True,
        True,
        False,
    ]


def _tree(**changes: Any) -> dict[str, Any]:
    key = b"any key"
    entry = {
        "description": "one",
        "log_id": base64.b64encode(hashlib.sha256(key).digest()).decode(),
        "key": base64.b64encode(key).decode(),
        "url": "https://ct.example/one",
        "state": {"usable": {"timestamp": "2026-01-01T00:00:00Z"}},
        "temporal_interval": {"start_inclusive": "2027-01-01T00:00:00Z", "end_exclusive": "2027-07-01T00:00:00Z"},
    } | changes
    tiled = {**entry, "submission_url": "https://ct.example/two/", "monitoring_url": "https://mon.example/two/"}
    operators = [{"name": "Op", "email": [], "logs": [entry], "tiled_logs": [tiled]}]
    return {"version": "1", "log_list_timestamp": "2026-11-20T12:00:00Z", "operators": operators}


def test_the_v3_list_is_read() -> None:
    """Both groups of logs, their addresses, states and intervals."""
    found = log_list.read(orjson.dumps(_tree()))
    assert found.made_at == 1_795_176_000
    assert [(each.kind, each.url, each.operator) for each in found.logs] == [
        ("rfc6962", "https://ct.example/one/", "Op"),
        ("static", "https://ct.example/two/", "Op"),
    ]
    assert (found.logs[0].state, found.logs[0].starts_at, found.logs[0].ends_at) == (
        "usable",
        1_798_761_600,
        1_814_400_000,
    )


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", orjson.dumps(_tree(log_id="AAAA")), orjson.dumps(_tree(state={})), orjson.dumps(_tree(key=7))],
)
def test_a_list_that_is_none_is_refused(text: bytes) -> None:
    """Garbage, missing fields, and a log id that is not the hash of its key."""
    with pytest.raises(QuashError, match=r"ct\.log_list") as error:
        log_list.read(text)
    assert error.value.code == "ct.log_list"
