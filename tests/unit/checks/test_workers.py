"""Worker processes: real ones for real checks, and a small program for their faults."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from issuer.checks.lint import LintGate
from issuer.checks.workers import Workers
from quash.errors import Kind, QuashError
from quash.runtime.config import Lint
from tests.support.issuing import private_key, spki_of
from tests.unit.checks.test_lint import twin

# Speaks the frames of a worker; what it does with a task is the task's name.
PROGRAM = """
import os, sys, time
from issuer.checks.worker import PREFIX, encode
import orjson
out = sys.stdout.buffer
def send(reply):
    out.write(encode(reply)); out.flush()
send({"ready": True})
while prefix := sys.stdin.buffer.read(12):
    text, octets = PREFIX.unpack(prefix)
    header = orjson.loads(sys.stdin.buffer.read(text)); sys.stdin.buffer.read(octets)
    if header["task"] == "hang":
        time.sleep(60)
    if header["task"] == "die":
        os._exit(1)
    if header["task"] == "rave":
        out.write(b"x" * 40); out.flush(); time.sleep(60)
    send({"result": [os.getpid(), header["argument"]]})
"""


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    """Two workers that run PROGRAM."""
    program = tmp_path / "worker.py"
    program.write_text(PROGRAM)
    async with Workers.running(2, 1.0, (sys.executable, str(program))) as running:
        yield running


@pytest.mark.parametrize(
    ("task", "code"), [("hang", "checks.timeout"), ("die", "checks.died"), ("rave", "checks.died")]
)
async def test_a_bad_task_costs_its_own_order_only(workers: Workers, task: str, code: str) -> None:
    """While one worker hangs, dies or talks nonsense, the other serves; afterwards there are two again."""
    bad = asyncio.create_task(workers.run(task, "", b""))
    served = [await workers.run("echo", str(n), b"x" * 100_000) for n in range(20)]
    assert [argument for _, argument in served] == [str(n) for n in range(20)]
    with pytest.raises(QuashError) as error:
        await bad
    assert error.value.code == code
    assert error.value.kind is (Kind.REFUSED if task == "hang" else Kind.UNAVAILABLE)
    pids = set()
    while len(pids) < 2:
        both = await asyncio.gather(*(workers.run("echo", "", b"") for _ in range(8)))
        pids |= {pid for pid, _ in both}


async def test_a_caller_that_gives_up_leaves_no_worker_out_of_step(workers: Workers) -> None:
    """A cancelled request's worker is replaced: its late answer never reaches another request."""
    for _ in range(4):
        task = asyncio.create_task(workers.run("hang", "", b""))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await workers.run("echo", "mine", b""))[1] == "mine"


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
async def test_workers_that_ended_while_idle_cost_nobody_an_order(tmp_path: Path, loop: Callable[..., Any]) -> None:
    """The kernel ends what takes its memory: the next task goes to a new one. uvloop is what services run on."""
    program = tmp_path / "worker.py"
    program.write_text(PROGRAM)

    async def body() -> list[str]:
        said = []
        async with Workers.running(2, 5.0, (sys.executable, str(program))) as running:
            for n in range(3):
                pids: set[int] = set()
                while len(pids) < 2:
                    both = await asyncio.gather(*(running.run("echo", str(n), b"") for _ in range(8)))
                    pids |= {pid for pid, _ in both}
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.2)
                said.append((await running.run("echo", str(n), b"x" * 100_000))[1])
        return said

    assert await asyncio.to_thread(loop, body()) == ["0", "1", "2"]


async def test_real_workers_lint_and_check_keys() -> None:
    """The production command: a clean twin, a good key, a refused key, and octets that break a linter."""
    async with Workers.running(1, 30.0) as running:
        (report,) = await LintGate(Lint(), running)(twin(), "dv-certificate")
        assert report.findings == ()
        await running.run("key", "", spki_of(private_key("leaf")))
        with pytest.raises(QuashError, match=r"key\.malformed"):
            await running.run("key", "", b"what is this?")
        with pytest.raises(QuashError) as error:
            await running.run("lint", "dv-certificate", b"what is this?")
        assert (error.value.code, error.value.kind) == ("checks.failed", Kind.REFUSED)
        await running.run("key", "", spki_of(private_key("leaf")))
