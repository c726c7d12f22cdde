"""`python -m loadtest.counting`: what its metrics cost the responder's fast path, in CPU time for each request.

Two responders side by side, the real one and the same one without the line that counts, in alternating rounds of the
load of `make bench-ocsp`; what is done once a second, both do. A busy machine makes rounds differ by more than the line
costs, so it is also timed alone: the same two fast paths in one process, in thousands of short alternating slices.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from loadtest import ocsp
from loadtest.contestants import contestants
from loadtest.servers import Contestant
from quash.cache.reader import LmdbReader
from quash.runtime.clock import SystemClock
from quash.runtime.config import Config
from quash.runtime.log import logger
from quash.runtime.process import Health
from quash.runtime.state import State

BUDGET = 0.02


def uncounted() -> Any:
    """`FastPath.answer` without the line that counts; fails when there is not exactly one."""
    module = importlib.import_module("responder.serve.fast")  # a benchmark of its code, not a user of it
    lines = inspect.getsource(module.FastPath.answer).splitlines()
    kept = [line for line in lines if "_counts" not in line]
    if len(lines) - len(kept) != 1:
        raise RuntimeError("the fast path counts otherwise than this benchmark knows")
    made: dict[str, object] = {}
    exec(textwrap.dedent("\n".join(kept)), vars(module), made)
    return made["answer"]


def alone(state: State, paths: Sequence[str], slices: int = 3000) -> float:
    """CPU seconds that the line costs an answer: the median over pairs of slices of 200 answers."""
    module = importlib.import_module("responder.serve.worker")
    config = Config.model_validate({"responder": {"fresh_seconds": 7200}})
    worker = module.Worker(LmdbReader(state.cache), SystemClock(), config, Health(), logger())
    worker.refresh()
    counted = worker.fast.answer
    bare = partial(uncounted(), worker.fast)
    asked = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() for path in paths[:200]]
    if not all(counted(request) for request in asked * 2):
        raise RuntimeError("the fast path does not answer the benchmark's requests")
    return statistics.median(_cpu(counted, asked) - _cpu(bare, asked) for _ in range(slices)) / len(asked)


def _cpu(answer: Callable[[bytes], bytes | None], asked: Sequence[bytes]) -> float:
    began = time.thread_time()
    for request in asked:
        answer(request)
    return time.thread_time() - began


def without_counting(real: Contestant) -> Contestant:
    def command(port: int) -> Sequence[str]:
        _, _, program, *arguments = real.command(port)
        assert program == "quash.cli.main"
        return [sys.executable, "-m", "loadtest.counting", "--serve", *arguments]

    return Contestant("uncounted", command, real.paths, real.bodies)


def report(real: Contestant, bare: Contestant, line: float, options: argparse.Namespace) -> str:
    """One paragraph."""
    cpu, least = (statistics.median(each.seconds) * 1e6 for each in (real, bare))
    share = statistics.median(a / b for a, b in zip(real.seconds, bare.seconds, strict=True)) - 1
    return (
        f"`python -m loadtest.counting`, {datetime.now(UTC):%Y-%m-%d}: {options.rounds} alternating rounds of"
        f" {options.seconds:.0f} s: {cpu:.2f} µs of CPU a request with metrics, {least:.2f} µs without; median of the"
        f" rounds' ratios {share:+.1%} (budget {BUDGET:.0%}). The line that counts, alone: {line * 1e9:.0f} ns,"
        f" {line * 1e6 / cpu:.2%} of that; {ocsp.machine()}."
    )


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["--serve"]:
        importlib.import_module("responder.serve.fast").FastPath.answer = uncounted()
        importlib.import_module("quash.cli.main").main(arguments[1:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--certificates", type=int, default=10_000)
    parser.set_defaults(zipf=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="quash-bench-") as name:
        folder = Path(name)
        real = contestants(folder, options.certificates)[0]
        bare = without_counting(real)
        line = alone(State(folder / "var"), real.paths)
        ocsp.measure([real, bare], folder, options)
    print(report(real, bare, line, options))


if __name__ == "__main__":
    main(sys.argv[1:])
