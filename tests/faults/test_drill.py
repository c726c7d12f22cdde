"""`quash drill stale`: each state of the cache, served as promised, whoever of three is stopped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.system import System
from quash.runtime.state import State
from tests.support.postgres import folder_for_servers

LIMITS = {"fresh_seconds": 6, "unready_seconds": 12, "good_seconds": 18}
HEARTBEAT_LATE = 4  # seconds that the last one may be old when something is stopped
STATES = ("fresh", "stale", "unready", "too_old", "fresh")


@pytest.fixture(scope="module")
def drilled() -> Iterator[System]:
    """A system whose limits are short enough to wait for, with a good and a revoked certificate."""
    settings = ("drills.allowed=true", *(f"responder.{name}={seconds}" for name, seconds in LIMITS.items()))
    with folder_for_servers() as folder, System(folder, *settings) as running:
        running.issue("good")
        revoked = running.issue("revoked")
        assert running.quash("revoke", "--cert", str(revoked), "--wait").status == 0
        yield running


@pytest.mark.long
def test_every_state_is_served_as_promised(drilled: System) -> None:
    """Design, section 5, three times: misses end, readiness ends, good ends, revoked never; then all is well again."""
    before = drilled.children()
    done = drilled.quash("drill", "stale", "--json", timeout=600)
    assert done.status == 0, done.out + done.err
    steps = done.lines
    assert [step["held"] for step in steps] == [name for name in ("follower", "presigner", "postgres") for _ in STATES]
    assert [step["state"] for step in steps] == [*STATES, *STATES, *STATES]
    assert all(step["as_promised"] for step in steps)
    assert {step["state"]: step["shown"] for step in steps} == {
        "fresh": {"good": "good", "revoked": "revoked", "unknown": "unauthorized", "ready": True},
        "stale": {"good": "good", "revoked": "revoked", "unknown": "try_later", "ready": True},
        "unready": {"good": "good", "revoked": "revoked", "unknown": "try_later", "ready": False},
        "too_old": {"good": "try_later", "revoked": "revoked", "unknown": "try_later", "ready": False},
    }
    since = dict(zip(STATES[1:4], LIMITS.values(), strict=True))
    assert all(step["seconds"] > since.get(step["state"], 0) - HEARTBEAT_LATE for step in steps)
    drilled.wait_ready()
    after = drilled.children()
    assert {name for name in before if before[name] != after[name]} >= {"follower", "presigner", "postgres"}


@pytest.mark.long
def test_what_is_held_comes_back_by_itself(drilled: System) -> None:
    """A drill that is killed leaves nothing stopped for longer than it said, and only three can be stopped at all."""
    program = (
        "import asyncio, sys; from pathlib import Path; from quash.runtime.control import hold;"
        "asyncio.run(hold(Path(sys.argv[1]), sys.argv[2], 2))"
    )
    socket = State(drilled.state).run / "supervisor.sock"
    assert _run(program, socket, "ca-signer") != 0
    before = drilled.children()["follower"]
    assert _run(program, socket, "follower") == 0
    assert drilled.children().get("follower") is None
    drilled.wait_ready()
    assert drilled.children()["follower"] != before


def _run(program: str, socket: Path, name: str) -> int:
    return subprocess.run([sys.executable, "-c", program, socket, name], check=False, capture_output=True).returncode


def test_no_drill_without_leave(system: System) -> None:
    """By default nobody can have a process stopped: the verb says so, and there is no socket to ask."""
    done = system.quash("drill", "stale")
    assert done.status == 3
    assert done.err.startswith("error: drill.not_allowed: ")
    assert not (State(system.state).run / "supervisor.sock").exists()
