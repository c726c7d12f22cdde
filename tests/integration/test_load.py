"""Locust's users on a running system: a short run meets every goal, and one wrong answer fails it."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.system import System
from loadtest.traffic.__main__ import locust, populate
from loadtest.traffic.truth import UNAUTHORIZED, Population
from tests.support.postgres import folder_for_servers

pytestmark = pytest.mark.long

LATER = 50  # answers, before the first lie


@pytest.fixture(scope="module")
def population() -> Iterator[Path]:
    """A system of its own, with an imported issuer: the file that each run reads, and writes what it revoked into."""
    with folder_for_servers() as folder, System(folder) as system:
        path = folder / "population.json"
        populate(system, folder, 300).save(path)
        yield path


def run(population: Path, *arguments: str) -> tuple[int, str]:
    """(exit status, what Locust printed) of a run of at most a few seconds."""
    done = locust(population, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180)
    return done.returncode, done.stdout


def test_a_short_run_meets_every_goal(population: Path) -> None:
    """Users of every kind, sixteen times as many for a while; revocations meanwhile; all that is verified is right."""
    shape = ("--load", "cdn-drop", "--users", "5", "--run-time", "15", "--verify", "0.3", "--goal-p99", "10000")
    status, said = run(population, *shape)
    assert status == 0, said
    assert "every goal met" in said


def test_a_goal_that_is_missed_fails_the_run(population: Path) -> None:
    """Nobody answers a million a second."""
    status, said = run(population, "--users", "5", "--run-time", "10", "--goal-rate", "1000000")
    assert status == 1, said
    assert "goal 1000000" in said


Change = Callable[[bytes], bytes]
Lie = Callable[[bytes, bytes], bytes]
LIES: dict[str, tuple[Lie, str]] = {
    "another certificate's answer": (lambda _, first: first, "asked about"),
    "a spoilt signature": (lambda answer, _: spoilt(answer), "ocsp.not_trusted"),
    "denial": (lambda *_: http(UNAUTHORIZED), "ocsp.not_successful"),
}


def http(body: bytes) -> bytes:
    fields = f"Content-Type: application/ocsp-response\r\nContent-Length: {len(body)}"
    return f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + body


def spoilt(answer: bytes) -> bytes:
    """With another octet in its producedAt."""
    at = answer.index(b"\x18\x0f") + 15  # the last digit of its seconds
    return answer[:at] + bytes((answer[at] ^ 1,)) + answer[at + 1 :]


@contextmanager
def liar(url: str, lie: Lie) -> Iterator[str]:
    """A proxy before `url` that passes on everything, and after some answers lies about certificates."""
    host, _, port = url.split("/")[2].partition(":")
    loop, signed = asyncio.new_event_loop(), []

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
    ) -> None:
        with suppress(ConnectionError):
            while octets := await reader.read(65_536):
                writer.write(change(octets))
        writer.close()

    def changed(answer: bytes) -> bytes:
        if len(answer) < 500:  # an error, or a part of an answer
            return answer
        signed.append(answer)
        return lie(answer, signed[0]) if len(signed) > LATER else answer

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, ours, bytes), pump(theirs, writer, changed))

    server = loop.run_until_complete(asyncio.start_server(relay, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield url.replace(port, str(server.sockets[0].getsockname()[1]), 1)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for each in asyncio.all_tasks(loop):
            each.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.mark.parametrize("name", LIES)
def test_one_wrong_answer_fails_the_run(population: Path, name: str) -> None:
    """The run ends at once, with exit status 1, and says what was wrong."""
    lie, says = LIES[name]
    honest = Population.load(population).ocsp
    with liar(honest, lie) as url:
        replace(Population.load(population), ocsp=url).save(population)
        status, said = run(population, "--users", "5", "--run-time", "60", "--verify", "1")
        replace(Population.load(population), ocsp=honest).save(population)
    assert status == 1, said
    assert "goal missed: wrong answer: " in said
    assert says in said
