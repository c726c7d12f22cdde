"""aiohttp from the inside: a release that changes what we rely on fails here, before it serves anybody."""

from __future__ import annotations

import asyncio
import hashlib
import inspect

import aiohttp
import pytest
from aiohttp.web_protocol import RequestHandler

from quash.pki.ocsp_request import build_request
from responder.serve.adapter import ATTRIBUTES, METHODS
from tests.unit.serve.in_memory import DV, GOOD, MISSING, Site, answers, settle
from tests.unit.serve.test_differential import get, post

# The first 12 hexadecimal digits of the SHA-256 of each method's source. Where one differs: read the new source, see
# whether the adapter's assumptions and the tests below still hold, then write the new value.
READ = {
    "__init__": "46c577d1f419",
    "connection_made": "44d50b5763b2",
    "connection_lost": "df2fe6e95fd0",
    "data_received": "1ee57ebe052e",
    "eof_received": "5652627579a0",
    "pause_writing": "e727e6c57a46",
    "resume_writing": "7db135e0841e",
    "close": "84518f965e19",
    "force_close": "38d0e1e798e4",
    "shutdown": "5eb4bd473db6",
    "start": "2e565fd40c8e",
    "_process_keepalive": "b472e0fb8445",
    "handle_error": "94962ffef500",
    "finish_response": "b7eb53db8f4b",
}


@pytest.mark.parametrize("name", METHODS)
def test_aiohttps_code_is_the_one_that_was_read(name: str) -> None:
    """The adapter relies on what these methods do with the attributes it uses, not only on their names."""
    source = inspect.getsource(getattr(RequestHandler, name))
    found = hashlib.sha256(source.encode()).hexdigest()[:12]
    assert found == READ.get(name), f"aiohttp {aiohttp.__version__} has another RequestHandler.{name}: {found}"


async def test_every_attribute_exists() -> None:
    """On a connection that is made, each attribute is there."""
    connection, wire = Site().connect()
    assert {name for name in ATTRIBUTES if not hasattr(connection, name)} == set()
    assert connection.wire is connection.transport is wire
    wire.close()
    await settle()


async def test_fast_answers_are_in_aiohttps_books() -> None:
    """Requests are counted for the connection, wherever they were answered."""
    site = Site()
    connection, wire = site.connect()
    plain, missing = (get(build_request(DV.cert_id(serial))) for serial in (GOOD, MISSING))
    for number, request in enumerate([plain, plain, missing, plain], 1):
        connection.data_received(request)
        await settle()
        assert connection.requests == number
    assert sum(counted.answers for counted in site.worker.fast.take_counts()) == 2  # the fourth came after the third
    assert len(answers(wire.written)) == 4
    wire.close()
    await settle()


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose time a test moves on."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def test_a_busy_connection_lives_past_the_idle_time() -> None:
    """Each fast answer renews the deadline; a connection that then says nothing is closed."""
    request = get(build_request(DV.cert_id(GOOD)))

    async def stay() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        connection, wire = Site(idle_seconds=75).connect()
        await settle()
        for _ in range(5):
            connection.data_received(request)
            loop.ahead += 74
            await settle()
            assert not wire.closed
        loop.ahead += 2
        await settle()
        assert wire.closed

    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        runner.run(stay())


async def test_nothing_is_answered_beside_while_writing_is_paused() -> None:
    """A client that does not read gets the full path, which waits; so it stays, also when it reads again."""
    site = Site()
    connection, wire = site.connect()
    request = get(build_request(DV.cert_id(GOOD)))
    connection.data_received(request)
    connection.pause_writing()
    connection.data_received(request)
    await settle()
    connection.resume_writing()
    await settle()
    connection.data_received(request)
    await settle()
    assert len(answers(wire.written)) == 3
    assert sum(counted.answers for counted in site.worker.fast.take_counts()) == 1
    wire.close()
    await settle()


PLAIN = get(build_request(DV.cert_id(GOOD)))
MORE = get(build_request(DV.cert_id(GOOD)), headers="Host: x\r\nIf-None-Match: x\r\n")
POSTED = post(build_request(DV.cert_id(MISSING)))
# What a client sends before it closes its side, and how many answers it waits for.
LAST_WORDS = {
    "fast": ([PLAIN], 1),
    "full": ([MORE], 1),
    "one of each": ([PLAIN, MORE], 2),
    "pipelined": ([MORE * 3 + POSTED], 4),
    "and half a request": ([MORE, PLAIN[:9]], 1),
    "nothing": ([], 0),
    "half a line": ([PLAIN[:9]], 0),
    "half a body": ([POSTED[:-1]], 0),
}


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("name", LAST_WORDS)
async def test_a_client_that_closes_its_side_gets_its_answers(name: str, paused: bool) -> None:
    """RFC 9112 9.6: at once after the last octet, or while answers wait to be written; then the server closes too."""
    segments, count = LAST_WORDS[name]
    connection, wire = Site().connect()
    await settle(2 * paused)
    for segment in segments:
        connection.data_received(segment)
    if paused and count:
        connection.pause_writing()
        await settle()
    if not connection.eof_received():
        wire.close()  # as the event loop does
    if paused and count and not wire.closed:
        connection.resume_writing()
    await settle(40)
    assert len(answers(wire.written)) == count
    assert wire.closed


@pytest.mark.parametrize("end", ["close", "force_close"])
async def test_nothing_is_answered_on_a_connection_that_closes(end: str) -> None:
    """As aiohttp's own data_received: it ignores what comes after."""
    site = Site()
    connection, wire = site.connect()
    await settle()
    getattr(connection, end)()
    if not wire.closed:
        connection.data_received(post(build_request(DV.cert_id(GOOD))))
    await settle()
    assert wire.written == b""
    wire.close()
    await settle()


async def test_a_server_that_shuts_down_closes_its_fast_connections() -> None:
    """They are idle to aiohttp: it has never had a request of theirs."""
    site = Site()
    connection, wire = site.connect()
    connection.data_received(get(build_request(DV.cert_id(GOOD))))
    await settle()
    await site.server.shutdown(1)
    assert wire.closed
    assert len(answers(wire.written)) == 1


@pytest.mark.parametrize("method", [b"FOO", b"get", b"BREW", b"GETT", b"A_B"])
async def test_an_unknown_method_is_405_in_pieces_too(method: bytes) -> None:
    """A38: cut at every octet, and octet by octet, though the parser refuses it before it has seen the line."""
    site = Site()
    request = get(build_request(DV.cert_id(GOOD))).replace(b"GET", method, 1)
    pieces = [[request[:at], request[at:]] for at in range(1, len(request))]
    for segments in ([request], *pieces, [request[at : at + 1] for at in range(len(request))]):
        said = await site.exchange(segments)
        assert (said.octets[9:12], said.octets.count(b"Allow: GET, HEAD, POST"), said.closed) == (b"405", 1, True)


@pytest.mark.parametrize(
    "segments",
    [
        [b"\x16\x03\x01\x02\x00\x01\x00"],
        [b"\x16\x03\x01\x02\x00\x01\x00\r\n"],
        [b"FO\0"],
        [b"FOO\t/ HTTP/1.1\r\n\r\n"],
        [b"FOO /M\r\n\r\n"],
        [b"FOO / HTTP/2.0\r\n\r\n"],
        [b"FOO / SIP"],
        [b"EHLO x\r\n"],
        [b"SSH-2.0-OpenSSH_9.2\r\n"],
        [b"GE", b"\xff"],
    ],
)
async def test_what_is_no_http_is_400(segments: list[bytes]) -> None:
    """Not the method alone is wrong with it."""
    said = await Site().exchange(segments)
    assert (said.octets[9:12], said.closed) == (b"400", True)
