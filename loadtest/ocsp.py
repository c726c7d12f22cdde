"""`make bench-ocsp`: cached OCSP answers by GET, against the best that can be done with the same bytes.

Contestants, one after the other in each round, each alone on one pinned core, with wrk on another one:
  * fast: a responder worker; full: the same without its fast path;
  * constant: an event loop's protocol that writes the same octets unread to whatever arrives;
  * nginx: the same answers as static files, open files cached, access log off;
  * openssl: `openssl ocsp`, which signs each answer and ends each connection, asked by ab for one certificate by POST;
    wrk would hang it, and it listens everywhere, so both are in a network namespace of their own;
  * cfssl: `cfssl ocspserve` with the same answers, where cfssl 1.6 or newer is installed.
Judged by CPU time of the server per request, since that holds on a machine that does other things as well; each ratio
is the median of those of the rounds. Turns are short and many, since a virtual core has fast and slow seconds. Before
the rounds every contestant's answers are verified.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from loadtest import page
from loadtest.contestants import cfssl_version, contestants
from loadtest.servers import Contestant, check, load, post, running, script

BUDGETS = {
    "nginx": 1.0,
    "constant": 0.45,
    "cfssl": 4.0,
}  # CPU of the contestant over ours, at least (design, section 8)


def measure(all_: Sequence[Contestant], folder: Path, options: argparse.Namespace) -> None:
    """Rounds in which the order rotates; every server runs all the time, idle but for its turn."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(contestant)) for contestant in all_]
        scripts = [script(folder, contestant.name, contestant.paths, options.zipf) for contestant in all_]
        turns = [
            partial(load, server.port, lua, options.seconds, options.connections)
            if contestant.paths
            else partial(post, server, contestant.posted, options.signed)
            for contestant, server, lua in zip(all_, servers, scripts, strict=True)
        ]
        for contestant, server, take_turn in zip(all_, servers, turns, strict=True):
            check(contestant, server.port)
            warm = 0
            while warm < 2 * len(contestant.paths):  # every answer was asked for: memos, page cache, open files
                warm += take_turn()[0]
        for number in range(options.rounds):
            for turn in range(len(all_)):
                index = (number + turn) % len(all_)
                contestant, server = all_[index], servers[index]
                before = server.cpu()
                requests, rate = turns[index]()
                contestant.seconds.append((server.cpu() - before) / requests)
                contestant.rates.append(rate)
                print(f"round {number + 1}: {contestant.name:9} {rate:8.0f}/s {contestant.seconds[-1] * 1e6:6.1f} µs")
        for contestant, server in zip(all_, servers, strict=True):
            check(contestant, server.port)


def ratio(ours: Contestant, other: Contestant) -> float:
    """How many times our rate the other's would be on a full core, inverted: above 1, we are faster."""
    return statistics.median(b / a for a, b in zip(ours.seconds, other.seconds, strict=True))


def report(all_: Sequence[Contestant], options: argparse.Namespace) -> str:
    """Markdown."""
    ours = all_[0]
    mix = f"{options.zipf} drawn by Zipf's law" if options.zipf else "each as often"
    what = f"GETs of {options.certificates} certificates, {mix}, both hashes, {options.connections} connections"
    how = f"{options.rounds} rounds of {options.seconds:.0f} s, medians of CPU time"
    lines = [
        f"`make bench-ocsp`, {datetime.now(UTC):%Y-%m-%d}: {what}; {how}; {machine()}.",
        "",
        "| server | CPU per request | requests/s of that core | requests/s seen | ours against it (budget) |",
        "|---|---|---|---|---|",
    ]
    labels = {"fast": "responder", "full": "responder, full path alone", "constant": "constant octets, nothing read"}
    labels |= {
        "nginx": "nginx, static files",
        "openssl": "openssl ocsp, signing each answer (by ab)",
        "cfssl": f"cfssl {'.'.join(map(str, cfssl_version()))} ocspserve",
    }
    for each in all_:
        cpu, rate = statistics.median(each.seconds), statistics.median(each.rates)
        budget = f" (≥ {BUDGETS[each.name]})" if each.name in BUDGETS else ""
        against = f"{ratio(ours, each):.2f}{budget}" if each is not ours else ""
        label = labels[each.name]
        lines.append(f"| {label} | {cpu * 1e6:.1f} µs | {1 / cpu:.0f} | {rate:.0f} | {against} |")
    if "cfssl" not in [each.name for each in all_]:
        lines += ["", "cfssl 1.6 or newer is not installed on this machine: its ocspserve was not measured."]
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores, kernel, versions."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip().split(" ")[-1]
    processor = model[1] if model else platform.machine()
    software = f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, {version}"
    return f"{processor}, {os.cpu_count()} cores, {software}; load average {os.getloadavg()[0]:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--certificates", type=int, default=10_000)
    parser.add_argument("--signed", type=int, default=300, help="requests of a turn of openssl")
    parser.add_argument("--zipf", type=int, default=0, help="draw so many requests by Zipf's law, as traffic is")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="quash-bench-") as name:
        folder = Path(name)
        all_ = contestants(folder, options.certificates)
        measure(all_, folder, options)
    text = report(all_, options)
    print(text)
    if options.write:
        page.write(page.PERFORMANCE, "bench-ocsp", text)
    missed = [each.name for each in all_ if each.name in BUDGETS and ratio(all_[0], each) < BUDGETS[each.name]]
    if missed:
        sys.exit(f"below the budget against: {', '.join(missed)}")


if __name__ == "__main__":
    main()
