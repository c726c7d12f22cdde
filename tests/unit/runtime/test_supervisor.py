"""The supervisor with real children: kept running, held, replaced while they work."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog

from quash.errors import QuashError
from quash.runtime.clock import SystemClock
from quash.runtime.supervisor import Child, Supervisor

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """One with a child called `sleeper`."""
    made = Supervisor(SystemClock(), structlog.get_logger())
    await made.start(Child("sleeper", SLEEPER))
    await until(lambda: "sleeper" in made.pids)
    yield made
    await made.stop()
    assert made.pids == {}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - processes have no events
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def at_once() -> None:
    """Ready."""


async def never() -> None:
    """Not ready, for as long as somebody waits."""
    await asyncio.Event().wait()


async def test_a_child_that_dies_is_started_again(supervisor: Supervisor) -> None:
    """Another process of the same name, and counted."""
    before = supervisor.pids["sleeper"]
    os.kill(before, signal.SIGKILL)
    await until(lambda: supervisor.pids.get("sleeper", before) != before)
    assert supervisor.restarts["sleeper"] == 1


async def test_the_new_one_is_ready_before_the_old_one_goes(supervisor: Supervisor) -> None:
    """With its own environment; and it is kept running like any other from then on."""
    before = supervisor.pids["sleeper"]

    async def ready() -> None:
        assert alive(before)

    await supervisor.replace("sleeper", {"QUASH_TEST": "new"}, ready, within=20)
    after = supervisor.pids["sleeper"]
    assert after != before
    assert not alive(before)
    assert b"QUASH_TEST=new" in Path(f"/proc/{after}/environ").read_bytes()
    assert supervisor.restarts["sleeper"] == 0
    os.kill(after, signal.SIGKILL)
    await until(lambda: supervisor.pids.get("sleeper", after) != after)


async def test_one_that_does_not_get_ready_replaces_nobody(supervisor: Supervisor) -> None:
    """It is stopped, the old one goes on, and the caller is told."""
    before = supervisor.pids["sleeper"]
    with pytest.raises(QuashError) as error:
        await supervisor.replace("sleeper", {}, never, within=0.5)
    assert error.value.code == "supervisor.not_replaced"
    assert supervisor.pids["sleeper"] == before
    assert alive(before)
    assert _children() == {before}


async def test_one_that_ends_at_once_replaces_nobody(supervisor: Supervisor) -> None:
    """As with a configuration that it cannot read: without waiting for the whole time."""
    before = supervisor.pids["sleeper"]
    spoilt = {"PYTHONHOME": "/nowhere"}  # no interpreter gets far with that
    with pytest.raises(QuashError):
        await asyncio.wait_for(supervisor.replace("sleeper", spoilt, never, within=600), 20)
    assert supervisor.pids["sleeper"] == before


async def test_a_child_that_dies_while_it_is_replaced_leaves_one(supervisor: Supervisor) -> None:
    """Whether it was started again meanwhile or was about to be: in the end there is the new one alone."""
    for pause in (0.0, 0.15, 0.6):
        before = supervisor.pids["sleeper"]

        async def ready(victim: int = before, pause: float = pause) -> None:
            os.kill(victim, signal.SIGKILL)
            await asyncio.sleep(pause)

        await supervisor.replace("sleeper", {"QUASH_TEST": str(pause)}, ready, within=20)
        after = supervisor.pids["sleeper"]
        await asyncio.sleep(0.6)
        assert supervisor.pids["sleeper"] == after
        assert _children() == {after}


async def test_a_child_that_is_held_stays_away(supervisor: Supervisor) -> None:
    """Until it is resumed; again and again."""
    for _ in range(2):
        before = supervisor.pids["sleeper"]
        await supervisor.hold("sleeper")
        await asyncio.sleep(0.5)
        assert supervisor.pids == {}
        assert not alive(before)
        supervisor.resume("sleeper")
        await until(lambda: "sleeper" in supervisor.pids)
    assert supervisor.restarts["sleeper"] == 0


def _children() -> set[int]:
    """Sleepers of this process."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in listed if b"time.sleep(600)" in Path(f"/proc/{pid}/cmdline").read_bytes()}
