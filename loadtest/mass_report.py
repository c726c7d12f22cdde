"""What was measured of a mass revocation: as a page shows it, and which budgets it did not hold."""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loadtest.revocations import percentile

MARCH_2020 = 3_048_289
_MARKS = (10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 1000, 2000)  # milliseconds, of the histogram


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds; `stages`: from the start of the job until each is over. `idle`, `busy`: milliseconds of single ones.

    `listed`: milliseconds of single ones afterwards until their CRL is published.
    `compared`: what a presigner that takes over spends on what CRLs and OCSP tell already.
    """

    count: int
    signature: float
    loaded: float
    answered: float
    answered_cpu: float
    previewed: float
    stages: Mapping[str, float]
    cpu: Counter[str]
    peaks: Mapping[str, float]
    octets: float
    compared: float
    idle: Sequence[float]
    busy: Sequence[float]
    listed: Sequence[float]
    shards: int


def table(of: Measured) -> str:
    """Markdown."""
    cores, count, cpu, load = os.cpu_count() or 1, of.count, of.cpu.total(), os.getloadavg()[1]
    alone, last = 2 * count * of.signature, max(of.stages.values())
    lines = [
        f"{count} certificates; {cores} cores, load {load:.1f}, {platform.machine()}, {platform.python_version()}.",
        f"Bare sign loop on all cores: {of.signature * 1e6:.1f} µs of CPU a signature, {alone:.1f} s for two of each.",
        "",
        "| stage | over after s | certificates/s |",
        "|---|---|---|",
    ]
    before = {
        "pre-loaded by COPY": of.loaded,
        f"answered good, in the cache ({of.answered_cpu:.1f} s of CPU)": of.answered,
        "preview: set, siblings, scopes, hash": of.previewed,
    }
    for name, seconds in (before | dict(of.stages)).items():
        lines.append(f"| {name} | {seconds:.1f} | {count / seconds:.0f} |")
    lines += [
        "",
        f"From the start to the last: {last:.1f} s, {last * cores / alone:.2f} times the bare loop on all cores.",
        f"CPU {cpu:.1f} s, {cpu / alone:.2f} times the bare loop's, {cpu / count * 1e6:.0f} µs a certificate.",
        f"All {MARCH_2020} of March 2020, at this CPU: {cpu / count * MARCH_2020 / cores / 60:.1f} minutes.",
        "",
        "| process | CPU s | µs a certificate | peak MB |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {seconds:.1f} | {seconds / count * 1e6:.1f} | {of.peaks[name]:.0f} |"
        for name, seconds in of.cpu.most_common()
        if seconds > cpu / 200
    ]
    lines += ["", f"Cache: {of.octets:.0f} used octets a certificate, both hashes."]
    lines += [f"A takeover's comparison of CRLs and cache with the database: {of.compared:.1f} s."]
    for name, values in (("idle system", of.idle), ("beside the mass revocation", of.busy)):
        if values:
            p50, p99 = percentile(list(values), 0.5), percentile(list(values), 0.99)
            lines.append(f"Single revocation -> visible, {name} ({len(values)}): p50 {p50:.0f} ms, p99 {p99:.0f} ms.")
    if of.listed:
        p50, p99 = percentile(list(of.listed), 0.5), percentile(list(of.listed), 0.99)
        entries = count // of.shards
        lines.append(
            f"Single revocation -> published CRL, of some {entries} entries ({len(of.listed)}):"
            f" p50 {p50:.0f} ms, p99 {p99:.0f} ms."
        )
    return "\n".join([*lines, *histogram({"idle system": of.idle, "beside the mass revocation": of.busy})])


def missed(of: Measured) -> list[str]:
    """The budgets that were not held."""
    alone = 2 * of.count * of.signature / (os.cpu_count() or 1)
    found = {
        "times the bare loop": (max(of.stages.values()) / alone, 3.0),
        "octets of cache a certificate": (of.octets, 300.0),
        "ms p99 until a single revocation is seen": (percentile(list(of.busy), 0.99) if of.busy else 0.0, 2000.0),
        "ms p99 until its CRL is published": (percentile(list(of.listed), 0.99) if of.listed else 0.0, 10_000.0),
    }
    return [f"{value:.2f} {what} (budget {limit:.0f})" for what, (value, limit) in found.items() if value > limit]


def histogram(series: Mapping[str, Sequence[float]]) -> list[str]:
    """Lines of Markdown: how many of each series (milliseconds) lie between two marks, with a bar, 2 % a sign."""
    named = {name: values for name, values in series.items() if values}
    if not named:
        return []
    lines = ["", f"| revoke -> visible | {' | '.join(named)} |", f"|---|{'---|' * len(named)}"]
    for low, high in pairwise((0.0, *_MARKS, math.inf)):
        counts = [sum(low <= value < high for value in values) for values in named.values()]
        if any(counts):
            bars = [_bar(n, len(values)) for n, values in zip(counts, named.values(), strict=True)]
            lines.append(f"| {_between(low, high)} | {' | '.join(bars)} |")
    return lines


def _between(low: float, high: float) -> str:
    return f"{low:.0f} to {high:.0f} ms" if high < math.inf else f"from {low:.0f} ms"


def _bar(count: int, of: int) -> str:
    return f"{'#' * math.ceil(50 * count / of)} {count}" if count else ""
