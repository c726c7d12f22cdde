"""What the private APIs say to octets that never become a request."""

from __future__ import annotations

import asyncio
from typing import cast

import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.api import listening
from quash.store.database import Pool
from tests.support.edge import Edge

UNREADABLE = {
    "no HTTP": (b"no HTTP\r\n\r\n", 400, "request.malformed"),
    "unknown method": (b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "request.method"),
    "a method in small letters": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "request.method"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "request.malformed"),
    "URL over 8 KiB": (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 9000), 414, "request.uri_too_long"),
    "field over 8 KiB": (b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"a" * 9000), 431, "request.header_too_large"),
}


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Edge:
    """An operator's and the server's certificates; nobody is looked up."""
    edge = Edge(tmp_path_factory.mktemp("edge"), cast(Pool, None))
    edge.operators.mkdir()
    (edge.operators / "ca.pem").write_bytes(edge.ca.certificate.public_bytes(Encoding.PEM))
    edge.ca.issue(edge.state, "api", "server")
    edge.make_client("operator")
    return edge


@pytest.mark.parametrize("name", UNREADABLE)
async def test_it_is_a_problem_document(edge: Edge, name: str) -> None:
    """RFC 9457 with a stable code, kept by no cache; the connection ends."""
    octets, status, code = UNREADABLE[name]
    async with listening(web.Application(), edge.tls, "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=edge.client_context("operator"))
        writer.write(octets)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    fields = head.decode().lower().split("\r\n")
    assert fields[0].split()[1] == str(status)
    assert {"cache-control: no-store", "server: quash", f"x-quash-code: {code}"} <= set(fields)
    assert any(field.startswith("content-type: application/problem+json") for field in fields)
    said = orjson.loads(body)
    assert (said["code"], said["status"], said["kind"]) == (code, status, "input")
