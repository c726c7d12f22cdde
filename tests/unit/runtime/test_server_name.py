"""No server of ours tells which library answers, in which version: neither its handlers nor its parser."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import cast

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.api import listening
from quash.runtime.overview import Overview
from quash.store.database import Pool
from tests.support.edge import Edge


async def heads(reader: asyncio.StreamReader) -> list[str]:
    """The Server fields of an answer."""
    head = (await reader.read()).decode().partition("\r\n\r\n")[0]
    assert head.startswith("HTTP/1.")
    return [line for line in head.split("\r\n") if line.lower().startswith("server:")]


async def test_the_private_apis_name_no_version(tmp_path: Path) -> None:
    """What is found, what is not, and what is no HTTP are all answered by `Quash`."""
    edge = Edge(tmp_path, cast(Pool, None))  # nobody is looked up
    edge.operators.mkdir()
    (edge.operators / "ca.pem").write_bytes(edge.ca.certificate.public_bytes(Encoding.PEM))
    edge.ca.issue(edge.state, "api", "server")
    edge.make_client("operator")
    async with listening(web.Application(), edge.tls, "127.0.0.1", 0) as port:
        for request in (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"no HTTP\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=edge.client_context("operator"))
            writer.write(request)
            assert await heads(reader) == ["Server: Quash"]
            writer.close()


async def test_the_overview_names_no_version() -> None:
    """So does the supervisor's endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with Overview({}).serve("127.0.0.1", port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
        assert await heads(reader) == ["Server: Quash"]
        writer.close()
