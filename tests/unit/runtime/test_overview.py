"""The supervisor's metrics: by process, and summed over the processes of a kind."""

from __future__ import annotations

import socket
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from quash.runtime.config import Config
from quash.runtime.metrics import HealthSockets
from quash.runtime.overview import Overview
from quash.runtime.process import Process, health_endpoint
from quash.runtime.state import State

COUNTER = Counter("test_overview_asked", "What is counted", ["how"])
GAUGE = Gauge("test_overview_level", "What is no sum")
HISTOGRAM = Histogram("test_overview_seconds", "What is measured", buckets=(1, 2))


def samples(text: bytes, name: str) -> dict[tuple[str, ...], float]:
    """Values by their labels' values in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    }


async def test_workers_are_told_apart_and_summed(tmp_path: Path) -> None:
    """Each process under its own name; counters and histograms also as one, gauges never; who is silent, not at all."""
    state = State(tmp_path)
    names = ("responder-1", "responder-2", "follower", "silent-1")
    overview = Overview({name: state.run / f"{name}.health" for name in names})
    COUNTER.labels("fast").inc(5)
    HISTOGRAM.observe(1.5)
    GAUGE.set(7)
    async with (
        health_endpoint(Process("responder-1", Config(), state)),
        health_endpoint(Process("responder-2", Config(), state)),
        health_endpoint(Process("follower", Config(), state)),
    ):
        apart, summed = await overview.metrics(), await overview.summed()
    assert samples(apart, "quash_process_up") == {**{(name,): 1 for name in names[:3]}, ("silent-1",): 0}
    assert samples(apart, "test_overview_asked_total") == {("fast", name): 5 for name in names[:3]}
    assert samples(summed, "test_overview_asked_total") == {("fast", "responder"): 10, ("fast", "follower"): 5}
    assert samples(summed, "test_overview_seconds_bucket")["2.0", "responder"] == 2
    assert samples(summed, "test_overview_seconds_count") == {("responder",): 2, ("follower",): 1}
    assert samples(apart, "test_overview_level") == {(name,): 7 for name in names[:3]}
    assert samples(summed, "test_overview_level") == {}


async def test_a_dead_process_is_told_of(tmp_path: Path) -> None:
    """It cannot say so itself: its socket is left behind, and the one that asks tells. Up is not ready."""
    state = State(tmp_path)
    admin, jobs = (Process(name, Config(), state) for name in ("admin", "jobs"))
    overview = Overview(HealthSockets(state.run))
    async with health_endpoint(admin), health_endpoint(jobs):
        admin.health.set("database", True)
        jobs.health.set("database", False)
        text = await overview.metrics()
    assert samples(text, "quash_process_up") == {("admin",): 1, ("jobs",): 1}
    assert samples(text, "quash_process_ready") == {("admin",): 1, ("jobs",): 0}
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(admin.health_socket))
    text = await overview.metrics()
    assert samples(text, "quash_process_up") == {("admin",): 0}
    assert samples(text, "quash_process_ready") == {("admin",): 0}
