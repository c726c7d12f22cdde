"""What the benchmark of mass revocations says of single ones beside it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

from loadtest.mass_report import Measured, histogram, missed


def test_a_histogram_has_each_value_once() -> None:
    """In the row of its milliseconds, which begins with its first mark; rows without any are left out."""
    assert histogram({"idle": [9.0, 10.0, 19.9, 5000.0], "busy": [10.0, 150.0]}) == [
        "",
        "| revoke -> visible | idle | busy |",
        "|---|---|---|",
        f"| 0 to 10 ms | {'#' * 13} 1 |  |",
        f"| 10 to 20 ms | {'#' * 25} 2 | {'#' * 25} 1 |",
        f"| 150 to 200 ms |  | {'#' * 25} 1 |",
        f"| from 2000 ms | {'#' * 13} 1 |  |",
    ]


def test_nothing_measured_is_no_histogram() -> None:
    assert histogram({"idle": [], "busy": []}) == []


def test_what_is_beyond_its_budget_is_named() -> None:
    """Design, section 8: three times the bare loop on all cores, 300 octets, 2 s and 10 s; each by itself."""
    stages = {"in the cache": 6.0 / (os.cpu_count() or 1)}  # two signatures of 1000 take 2 s of one core
    held = Measured(1000, 0.001, 1, 1, 1, 1, stages, Counter(), {}, 300.0, 1.0, [9.0], [2000.0], [10_000.0], 4)
    assert missed(held) == []
    assert [each.partition(" ")[2] for each in missed(replace(held, signature=0.00099))] == [
        "times the bare loop (budget 3)"
    ]
    assert missed(replace(held, octets=301.0)) == ["301.00 octets of cache a certificate (budget 300)"]
    assert missed(replace(held, listed=[10_001.0])) == ["10001.00 ms p99 until its CRL is published (budget 10000)"]
    assert missed(replace(held, busy=[2001.0])) == ["2001.00 ms p99 until a single revocation is seen (budget 2000)"]
