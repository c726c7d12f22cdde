"""What the benchmark of mass revocations says of single ones beside it."""

from __future__ import annotations

from loadtest.mass import histogram


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
