"""The supervisor itself: killed, its children end and the next run goes on; told to stop, it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.system import System
from quash.runtime.state import State
from tests.support.faults import Records, assert_everything_holds, processes_of, until
from tests.support.traffic import Traffic

_STOPPED_WITHIN = 20.0
_SLOW = 2.0


@contextlib.contextmanager
def _idle_clients(system: System) -> Iterator[None]:
    """Connections to every public port that send nothing, as a browser keeps them."""
    with contextlib.ExitStack() as stack:
        for name in ("responder", "crl_origin", "metrics", "issuer", "admin"):
            for _ in range(4):
                stack.enter_context(socket.create_connection(("127.0.0.1", system.ports[name])))
        yield


async def _has_begun(system: System, killed: int) -> bool:
    """Whether another supervisor is at the state's lock: seen from outside, since taking the lock would keep it out."""
    assert system.process is not None
    pid, lock = system.process.pid, str(State(system.state).root / "lock")
    if pid == killed:
        return False
    with contextlib.suppress(OSError):  # a descriptor closed meanwhile
        return lock in [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    return False


async def test_a_killed_supervisor_takes_all_along_and_the_next_run_goes_on(system: System, records: Records) -> None:
    """Started again at once, beside children that are slow to end; what was acknowledged before and after holds."""
    async with Traffic(system) as traffic:
        await traffic.progress()
        before = processes_of(system)
        slow = system.children()["responder-1"]
        with _idle_clients(system):
            os.kill(slow, signal.SIGSTOP)
            assert system.process is not None
            killed = system.process.pid
            system.process.kill()
            system.process.wait()
            starting = asyncio.create_task(asyncio.to_thread(system.start))
            await until("the next run has begun", lambda: _has_begun(system, killed))
            await asyncio.sleep(_SLOW)
            os.kill(slow, signal.SIGCONT)
            await starting
        await traffic.progress()
        told = await traffic.stop()

    async def gone() -> bool:
        return not before.keys() & processes_of(system).keys()

    assert len(before) > 11
    await until("the children of the first run have ended", gone)
    await assert_everything_holds(system, records, told)


@pytest.mark.long  # without traffic: test_a_second_run_goes_on_at_other_ports
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_a_clean_stop_is_short_and_leaves_no_process(
    system: System, records: Records, sig: signal.Signals
) -> None:
    """In the middle of traffic; the next run finishes what was under way."""
    async with Traffic(system) as traffic:
        await traffic.progress()
        with _idle_clients(system):
            began = time.monotonic()
            status = await asyncio.to_thread(system.stop, sig)
            seconds = time.monotonic() - began
            left = processes_of(system)
        await asyncio.to_thread(system.start)
        await traffic.progress()
        told = await traffic.stop()

    assert status == 0
    assert left == {}
    assert seconds < _STOPPED_WITHIN
    await assert_everything_holds(system, records, told)
