"""What one client may cost a worker: connections, time, octets, requests."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_request import build_request
from quash.runtime.config import Responder as ResponderConfig
from responder.serve.connection import ENDED
from tests.unit.serve.conftest import GOOD as SERVED_GOOD
from tests.unit.serve.conftest import Served, read_all, serving
from tests.unit.serve.in_memory import DV, GOOD, Site, answers, settle
from tests.unit.serve.test_differential import get, post
from tests.unit.serve.test_served import curl, target

PLAIN = get(build_request(DV.cert_id(GOOD)))
FULL = get(build_request(DV.cert_id(GOOD)), headers="Host: x\r\nIf-None-Match: x\r\n")


def test_defaults() -> None:
    """The limits that a deployment has without saying anything."""
    limits = ResponderConfig()
    assert limits.max_connections == 4096
    assert limits.max_requests == 1000
    assert limits.max_header == 8 * 1024
    assert limits.max_body == 16 * 1024
    assert (limits.header_seconds, limits.body_seconds) == (10, 10)
    assert (limits.idle_seconds, limits.stall_seconds) == (75, 20)
    assert limits.drain_seconds == 3
    assert limits.cpus == ()
    assert limits.access_log_every == 0
    assert limits.fast_path


def ended(cause: str) -> float:
    """How many connections were ended for a cause so far."""
    return ENDED.labels(cause)._value.get()  # type: ignore[no-any-return]


async def test_a_header_must_be_complete_in_time() -> None:
    """From the accepted connection; octets that trickle in win no time, nor does a first request later on."""
    site = Site(header_seconds=10)
    now = asyncio.get_running_loop().time()
    before = ended("header")
    _, silent_wire = site.connect()
    slow, slow_wire = site.connect()
    asked, asked_wire = site.connect()
    _, late_wire = site.connect()
    asked.data_received(PLAIN)
    slow.data_received(PLAIN[:10])
    await settle()
    site.server.guard.sweep(now + 9)
    slow.data_received(PLAIN[10:20])
    site.server.guard.sweep(now + 9.9)
    assert not any(wire.closed for wire in (silent_wire, slow_wire, asked_wire, late_wire))
    site.server.guard.sweep(now + 10.5)
    assert (silent_wire.closed, slow_wire.closed, asked_wire.closed) == (True, True, False)
    assert ended("header") == before + 3
    await settle()
    assert site.server.guard.open == 1
    asked_wire.close()
    await settle()
    assert site.server.guard.open == 0


@pytest.mark.parametrize("first", [PLAIN, FULL], ids=["fast", "full"])
async def test_a_later_header_must_be_complete_in_time_too(first: bytes) -> None:
    """From its first octet; between requests the idle time counts alone."""
    site = Site(header_seconds=10)
    loop = asyncio.get_running_loop()
    connection, wire = site.connect()
    connection.data_received(first)
    await settle()
    site.server.guard.sweep(loop.time() + 70)
    assert not wire.closed
    connection.data_received(FULL[:30])
    site.server.guard.sweep(loop.time() + 9)
    connection.data_received(FULL[30:])
    await settle()
    site.server.guard.sweep(loop.time() + 70)
    assert (wire.closed, len(answers(wire.written))) == (False, 2)
    connection.data_received(FULL[:30])
    site.server.guard.sweep(loop.time() + 10.5)
    assert wire.closed
    await settle()


async def test_a_body_in_progress_is_no_header() -> None:
    """The header's time and size do not count what belongs to a body."""
    site = Site(max_header=1024, header_seconds=10)
    connection, wire = site.connect()
    await settle()
    body = b"0" * 8000
    connection.data_received(post(body)[:-7900])
    for at in range(100, 8000, 100):
        await settle(2)
        connection.data_received(body[at : at + 100])
        site.server.guard.sweep(asyncio.get_running_loop().time() + 20)
    await settle()
    assert [answer[9:12] for answer in answers(wire.written)] == [b"200"]
    wire.close()
    await settle()


LONG_FIELDS = [b"X-%d: %b\r\n" % (number, b"v" * 900) for number in range(10)]


@pytest.mark.parametrize("apart", [True, False])
async def test_a_header_has_a_size_as_a_whole(apart: bool) -> None:
    """Ten fields of 900 octets are 431, at once or one after the other, first on the connection or not."""
    for before in ([], [PLAIN], [FULL]):
        site = Site()
        parts = [FULL[:-2], *LONG_FIELDS, b"\r\n"]
        said = await site.exchange([*before, *(parts if apart else [b"".join(parts)])])
        *first, last = answers(said.octets)
        assert [answer[9:12] for answer in first] == [b"200"] * len(before)
        assert last.startswith((b"HTTP/1.1 431 ", b"HTTP/1.0 431 "))
        assert said.closed


async def test_a_header_has_so_many_fields() -> None:
    """The HTTP library takes 128 of them: more are 431 too, however short."""
    for count, status in ((100, b"200"), (200, b"431")):
        fields = b"".join(b"X-%d: v\r\n" % number for number in range(count))
        said = await Site().exchange([FULL[:-2] + fields + b"\r\n"])
        assert said.octets[9:12] == status


async def test_a_connection_has_so_many_requests() -> None:
    """The last answer says close, whichever path answers; a client that sent more ahead is answered first."""
    for requests in ([PLAIN] * 5, [FULL] * 5, [PLAIN, FULL, PLAIN, PLAIN]):
        said = await Site(max_requests=3).exchange(requests)
        closes = [b"Connection: close" in answer for answer in answers(said.octets)]
        assert (closes, said.closed) == ([False, False, True], True)
    assert len(answers((await Site(max_requests=2).exchange([FULL * 30])).octets)) < 6
    said = await Site(max_requests=3).exchange([FULL * 5])
    assert ([b"Connection: close" in answer for answer in answers(said.octets)], said.closed) == (
        [False] * 4 + [True],
        True,
    )
    said = await Site(max_requests=1).exchange([PLAIN, PLAIN])
    assert (said.fast, len(answers(said.octets)), said.closed) == (0, 1, True)


async def test_a_client_that_does_not_read_is_let_go() -> None:
    """After the stall time the connection is cut, also one that is closing with octets unsent; reading saves it."""
    site = Site(stall_seconds=20)
    loop = asyncio.get_running_loop()
    before = ended("stall")
    pairs = [site.connect() for _ in range(3)]
    for connection, _ in pairs:
        connection.data_received(PLAIN)
        await settle()
        connection.pause_writing()
    pairs[1][0].resume_writing()
    site.server.guard.sweep(loop.time() + 19)
    assert not any(wire.closed for _, wire in pairs)
    site.server.guard.sweep(loop.time() + 20.5)
    assert [wire.aborted for _, wire in pairs] == [True, False, True]
    assert ended("stall") == before + 2
    await settle()
    assert site.server.guard.open == 1
    pairs[1][1].close()
    await settle()


async def test_too_many_connections_cost_the_slowest() -> None:
    """The one that has waited longest for its header goes; when none waits, the longest idle one."""
    site = Site(max_connections=3)
    before = ended("connections")
    (busy, busy_wire), (_, first), (_, second) = (site.connect() for _ in range(3))
    busy.data_received(PLAIN)
    third, third_wire = site.connect()
    assert [wire.closed for wire in (busy_wire, first, second, third_wire)] == [False, True, False, False]
    _, fourth = site.connect()
    assert (second.closed, third_wire.closed, fourth.closed) == (True, False, False)
    await settle()
    assert site.server.guard.open == 3
    third.data_received(PLAIN)
    fourth.protocol.data_received(FULL)
    await settle()
    busy.data_received(PLAIN)
    await settle()
    _, fifth = site.connect()
    assert [wire.closed for wire in (busy_wire, third_wire, fourth, fifth)] == [False, True, False, False]
    await settle()
    assert (site.server.guard.open, ended("connections")) == (3, before + 3)
    for wire in (busy_wire, fourth, fifth):
        wire.close()
    await settle()
    assert site.server.guard.open == 0


async def test_too_many_busy_connections_cost_the_newcomer() -> None:
    """Who does not read its answers is not idle: it has a limit of its own."""
    site = Site(max_connections=2)
    wires = []
    for _ in range(2):
        connection, wire = site.connect()
        connection.data_received(PLAIN)
        connection.pause_writing()
        wires.append(wire)
    await settle()
    _, refused = site.connect()
    assert [wire.closed for wire in (*wires, refused)] == [False, False, True]
    await settle()
    for wire in wires:
        wire.close()
    await settle()
    assert site.server.guard.open == 0


async def test_a_draining_server_says_close_on_fast_connections() -> None:
    """The next answer of each connection carries `Connection: close`, and new ones have it too."""
    site = Site()
    connection, wire = site.connect()
    connection.data_received(PLAIN)
    await settle()
    site.server.drain()
    connection.data_received(PLAIN)
    await settle()
    assert [b"Connection: close" in answer for answer in answers(wire.written)] == [False, True]
    assert sum(counted.answers for counted in site.worker.fast.take_counts()) == 1
    said = await site.exchange([PLAIN])
    assert (said.fast, said.closed, said.octets.count(b"Connection: close")) == (0, True, 1)


async def test_a_draining_server_answers_what_came_along() -> None:
    """Requests that were sent ahead of any `Connection: close` are answered; the last one says it."""
    site = Site()
    connection, wire = site.connect()
    connection.data_received(PLAIN)
    await settle()
    site.server.drain()
    connection.data_received(PLAIN * 5)
    await settle(60)
    said = answers(wire.written)
    assert [b"connection: close" in each.lower() for each in said] == [*(False,) * 5, True]
    assert wire.closed


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[Served]:
    """A worker with short time limits, and none of requests: a deaf client is to reach the time limit."""
    with serving(tmp_path, header_seconds=2, stall_seconds=2, idle_seconds=30, max_requests=1_000_000) as served:
        yield served


@pytest.fixture
def _many_files() -> Iterator[None]:
    """Room for a thousand sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def clients(served: Served, count: int, first: bytes) -> list[socket.socket]:
    """Connections that have sent something."""
    made = [served.connect() for _ in range(count)]
    for connection in made:
        connection.sendall(first)
    return made


@pytest.mark.usefixtures("_many_files")
def test_bad_clients_harm_nobody(hurried: Served) -> None:
    """A thousand slow headers, hundreds that close without an octet, one that never reads: the others are served."""
    url = hurried.url + target(hurried, SERVED_GOOD)
    request = f"GET {target(hurried, SERVED_GOOD)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", hurried.port))
        deaf.setblocking(False)
        ended = _send_until_it_blocks(deaf, request * 50)  # already, when this machine is slower than the time-out
        slow = clients(hurried, 1000, b"GET /M")
        for connection in clients(hurried, 300, b""):
            connection.close()
        for _ in range(10):
            body = curl("-i", "--max-time", "10", url)[1]  # A40
            assert verify_response(body, hurried.issuer.row.certificate).status == (None, 0)
        assert all(read_all(connection) == b"" for connection in slow)  # in time, or their own time-out fails this
        _wait_for_a_stall(hurried)  # as long as it takes to answer until the kernel takes no more
        if not ended:
            deaf.settimeout(20)
            with pytest.raises(ConnectionResetError):
                read_all(deaf)
    for connection in slow:
        connection.close()
    assert curl("-i", url)[0][":status"] == "200"
    assert "Traceback" not in (hurried.state.root / "responder-1.log").read_text()


def _wait_for_a_stall(served: Served) -> None:
    """Until the worker has ended a connection for not reading."""
    deadline = time.monotonic() + 60
    while b'quash_ocsp_connections_ended_total{cause="stall"} 1.0' not in served.ask_worker("/metrics"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _send_until_it_blocks(connection: socket.socket, octets: bytes, seconds: float = 1.0) -> bool:
    """Sends until the other side has taken nothing for that long (False), or has ended the connection (True)."""
    last = time.monotonic()
    while time.monotonic() - last < seconds:
        try:
            connection.send(octets)
            last = time.monotonic()
        except BlockingIOError:
            time.sleep(0.02)
        except ConnectionError:
            return True
    return False
