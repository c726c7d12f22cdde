"""`make bench-signing`: records a presigner's process signs, against a bare sign loop of the same library.

Every record has two signatures, one for each CertID hash. Both loops run in one process, in alternating rounds; the
ratio is that of the medians of CPU time, the budget is 0.9 (design, section 8). `--write` appends to
docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from loadtest import page

REPOSITORY = Path(__file__).parents[1]
BUDGET = 0.9
# Kind of key, records in a round: about a tenth of a second of signing.
_KINDS = (("ec-p256", 2000), ("ec-p384", 200), ("rsa-2048", 200), ("rsa-4096", 30))


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the rounds: CPU microseconds of a record, bare and ours."""

    kind: str
    bare: float
    records: float

    @property
    def ratio(self) -> float:
        """1: signing costs nothing beside the signatures."""
        return self.bare / self.records


def measure(kind: str, count: int, rounds: int) -> Measured:
    """Measures in a process of its own, as the presigner's signing processes are."""
    command = [sys.executable, "-m", "responder.presign.measure", kind, str(count), str(rounds)]
    said = subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY).stdout
    found = json.loads(said)
    bare, records = (statistics.median(found[name]) / count * 1e6 for name in ("bare", "records"))
    return Measured(kind, bare, records)


def table(measured: Sequence[Measured], rounds: int) -> str:
    """Markdown."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"`make bench-signing`, {datetime.now(UTC):%Y-%m-%d}: {rounds} alternating rounds, medians of CPU; {machine}.",
        "",
        "| key | two bare signatures | one record | records/s of one process | ratio (budget 0.9) |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.kind} | {each.bare:.1f} µs | {each.records:.1f} µs | {1e6 / each.records:.0f} | {each.ratio:.2f} |"
        for each in measured
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kinds", nargs="*", default=[kind for kind, _ in _KINDS])
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args(arguments)
    measured = [measure(kind, count, options.rounds) for kind, count in _KINDS if kind in options.kinds]
    text = table(measured, options.rounds)
    print(text)
    if options.write:
        page.write(page.PERFORMANCE, "bench-signing", text)
    late = [each.kind for each in measured if each.ratio < BUDGET]
    if late:
        sys.exit(f"below the budget of {BUDGET}: {', '.join(late)}")


if __name__ == "__main__":
    main()
