"""Responder workers are replaced, or die, under a load of clients that keep their connections."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from loadtest.system import System
from tests.faults.conftest import CPUS
from tests.support.faults import RESPONDERS, until
from tests.support.strangers import load, ocsp_request

_CLIENTS = 16
_PAUSE = 0.02
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")


@dataclass
class Load:
    """Clients that ask again and again on one connection each, and connect anew when told `Connection: close`.

    `failed`: the local ports of connections that were reset, or ended without an answer before any such word.
    """

    port: int
    requests: list[bytes]
    answers: int = 0
    goodbyes: int = 0
    failed: list[int] = field(default_factory=list)
    wrong: list[bytes] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    _stopping: bool = False

    async def run(self) -> None:
        await asyncio.gather(*(self._client(self.requests[n % len(self.requests)]) for n in range(_CLIENTS)))

    def stop(self) -> None:
        self._stopping = True

    async def _client(self, request: bytes) -> None:
        while not self._stopping:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            local = writer.get_extra_info("sockname")[1]
            self.open.add(local)
            try:
                while await self._ask(request, reader, writer):  # noqa: ASYNC110 - not waiting, asking
                    await asyncio.sleep(_PAUSE)
            except (ConnectionError, asyncio.IncompleteReadError):
                self.failed.append(local)
            self.open.discard(local)
            writer.close()

    async def _ask(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection is used on."""
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        assert length
        await reader.readexactly(int(length[1]))
        self.answers += 1
        if not head.startswith(b"HTTP/1.1 200 "):
            self.wrong.append(head)
        if b"\r\nconnection: close\r\n" in head.lower():
            self.goodbyes += 1
            return False
        return not self._stopping


def load_of(system: System, name: str) -> Load:
    """Of GETs and POSTs about a new certificate, on the fast path and on the full one."""
    pem, issuer = system.issue(name), system.state / "certs" / "tls-dv.pem"
    der = ocsp_request(load(pem), load(issuer), "sha256")
    get = f"GET /tls-dv/{quote(base64.b64encode(der).decode(), safe='')} HTTP/1.1\r\nHost: x\r\n"
    post = f"POST /tls-dv HTTP/1.1\r\nHost: x\r\nContent-Length: {len(der)}\r\n"
    full = "If-None-Match: x\r\n"
    heads = [(get, b""), (get + full, b""), (post, der), (post + full, der)]
    return Load(system.ports["responder"], [head.encode() + b"\r\n" + body for head, body in heads])


async def some_answers(under: Load, count: int) -> None:
    goal = under.answers + count

    async def look() -> bool:
        return under.answers >= goal

    await until(f"{count} more answers", look)


def clients_of(pid: int, port: int) -> set[int]:
    """The client ports of a process's connections, from /proc."""
    inodes = {
        found[1]
        for entry in Path(f"/proc/{pid}/fd").iterdir()
        if (found := re.match(r"socket:\[(\d+)\]", os.readlink(entry)))
    }
    return {port_ for inode, port_ in _connections(port) if inode in inodes}


def _connections(port: int) -> Iterator[tuple[str, int]]:
    """(inode, remote port) of the established connections at a local port."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port and fields[3] == "01":
            yield fields[9], int(fields[2].partition(":")[2], 16)


async def test_a_rolling_restart_fails_no_request(system: System) -> None:
    """SIGHUP under load: every worker is another process, on its own core, and every connection was told to close."""
    under = load_of(system, "rolled")
    before = system.children()
    running = asyncio.create_task(under.run())
    await some_answers(under, 200)
    assert system.process is not None
    system.process.send_signal(signal.SIGHUP)

    async def rolled() -> bool:
        now = system.children()
        gone = not any(Path(f"/proc/{before[name]}").exists() for name in RESPONDERS)
        return gone and all(name in now and now[name] != before[name] for name in RESPONDERS)

    await until("both workers were replaced", rolled)
    await some_answers(under, 200)
    under.stop()
    await running
    assert (under.failed, under.wrong) == ([], [])
    assert under.goodbyes >= _CLIENTS / 2
    now = system.children()
    assert {name: pid for name, pid in now.items() if name not in RESPONDERS} == {
        name: pid for name, pid in before.items() if name not in RESPONDERS
    }
    assert [len(os.sched_getaffinity(now[name])) for name in RESPONDERS] == [1, 1]
    assert {cpu for name in RESPONDERS for cpu in os.sched_getaffinity(now[name])} == set(CPUS)
    await asyncio.to_thread(system.wait_ready)


@pytest.mark.long
async def test_a_crashed_worker_is_unseen_by_the_others_clients(system: System) -> None:
    """Only its own connections break; new ones are taken at once, and it is started again."""
    under = load_of(system, "crashed")
    pids = system.children()
    victim, other = (pids[name] for name in RESPONDERS)
    running = []
    for stopped, working in ((other, victim), (victim, other)):  # so that each has clients
        os.kill(stopped, signal.SIGSTOP)
        running.append(asyncio.create_task(under.run()))
        await some_answers(under, 100)
        its_own = clients_of(victim, under.port) & under.open
        if working is victim:
            os.kill(stopped, signal.SIGCONT)
    others = clients_of(other, under.port) & under.open
    os.kill(victim, signal.SIGKILL)
    await some_answers(under, 500)

    async def back() -> bool:
        now = system.children().get("responder-1")
        return now is not None and now != victim

    await until("the worker was started again", back)
    under.stop()
    await asyncio.gather(*running)
    assert its_own
    assert others
    assert under.wrong == []
    assert Counter(under.failed) == Counter(its_own)
    await asyncio.to_thread(system.wait_ready)
