"""The CA signer's socket: exactly two requests, and an answer to whatever else comes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from issuer.signer.requests import serve
from issuer.signer.tbs import tbs_of
from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.serials import format_serial
from quash.runtime import rpc
from tests.support.reserving import Desk

MAX_BODY = 4096


@pytest.fixture
async def socket(desk: Desk, tmp_path: Path) -> AsyncIterator[Path]:
    """The signer, served with a small limit."""
    path = tmp_path / "ca-signer.sock"
    server = await serve(path, desk.signer, max_body=MAX_BODY)
    yield path
    server.close()


async def ask(socket: Path, request: dict[str, Any], body: bytes = b"") -> bytes:
    header, reply = await rpc.call(socket, request, body, timeout=10)
    assert header == {}
    return reply


async def code_of(socket: Path, request: dict[str, Any], body: bytes = b"") -> str:
    with pytest.raises(QuashError) as caught:
        await ask(socket, request, body)
    return caught.value.code


async def test_signs_both_kinds(desk: Desk, socket: Path) -> None:
    """A certificate comes as DER, a CRL's signature raw."""
    issuer = desk.hierarchy["tls-dv"]
    leaf, tbs = await desk.leaf(), await desk.crl()
    serial = format_serial(await desk.reserve(leaf))
    made = await ask(socket, {"type": "certificate", "issuer_id": issuer.id, "serial": serial})
    assert tbs_of(made) == leaf.tbs
    raw = await ask(socket, {"type": "crl", "issuer_id": issuer.id, "scope": "1"}, tbs)
    verify(issuer.spki, SIGNATURE_ALGORITHMS[issuer.signature_algorithm], raw, tbs)


async def test_refusals_arrive_as_raised(desk: Desk, socket: Path) -> None:
    """A refusal of the signer reaches the caller with its code, message and kind."""
    with pytest.raises(QuashError) as caught:
        await ask(socket, {"type": "certificate", "issuer_id": desk.hierarchy["tls-dv"].id, "serial": "1f"})
    assert (caught.value.code, caught.value.kind.value) == ("signer.not_reserved", "refused")
    assert "1f" in caught.value.message


GOOD = {"type": "certificate", "issuer_id": 1, "serial": "01"}


MALFORMED: list[dict[str, Any]] = [
    {},
    {"type": "certificate"},
    {"type": "sign", "issuer_id": 1, "tbs": "30"},
    {"type": ["certificate"], "issuer_id": 1, "serial": "01"},
    {"type": None},
    {**GOOD, "issuer_id": "1"},
    {**GOOD, "issuer_id": True},
    {**GOOD, "issuer_id": 1.0},
    {**GOOD, "issuer_id": 0},
    {**GOOD, "issuer_id": 1 << 15},
    {**GOOD, "serial": 1},
    {**GOOD, "serial": "1" * 257},
    {**GOOD, "serial": None},
    {**GOOD, "profile": "sub-ca"},
    {**GOOD, "scope": "full"},
    {"type": "crl", "issuer_id": 1},
    {"type": "crl", "issuer_id": 1, "scope": 1},
    {"type": "crl", "issuer_id": 1, "scope": "x" * 65},
    {"type": "crl", "issuer_id": 1, "scope": "full", "serial": "01"},
]


async def test_malformed_requests(socket: Path, desk: Desk) -> None:
    """Missing, foreign and mistyped fields are refused by name, and nothing is signed."""
    codes = [(request, await code_of(socket, request)) for request in MALFORMED]
    assert codes == [(request, "signer.malformed_request") for request in MALFORMED]
    assert await desk.fetch("select from signing_log") == []


async def test_bodies(desk: Desk, socket: Path) -> None:
    """A request for a certificate has no body; a list may not be larger than the limit; a serial must be one."""
    issuer_id = desk.hierarchy["tls-dv"].id
    serial = format_serial(await desk.reserve(await desk.leaf()))
    good = {"type": "certificate", "issuer_id": issuer_id, "serial": serial}
    assert await code_of(socket, good, (await desk.leaf()).tbs) == "signer.malformed_request"
    assert await code_of(socket, {**good, "serial": "not hex"}) == "serial.malformed"
    assert await code_of(socket, {**good, "serial": "1" * 200}) == "serial.too_long"
    crl = {"type": "crl", "issuer_id": issuer_id, "scope": "1"}
    assert await code_of(socket, crl) == "crl.malformed"
    assert await code_of(socket, crl, b"\x30" * MAX_BODY) == "crl.malformed"
    assert await code_of(socket, crl, b"\x30" * (MAX_BODY + 1)) == "rpc.too_large"
    assert await code_of(socket, {**crl, "scope": "x" * 70_000}) == "rpc.too_large"
    assert await desk.fetch("select from signing_log") == []
    assert await ask(socket, good)


FRAMES = [
    b"",
    b"\0",
    struct.pack(">IQ", 2, 0) + b"[]",
    struct.pack(">IQ", 3, 0) + b"{{{",
    struct.pack(">IQ", 0, 0),
    struct.pack(">IQ", 1 << 31, 0),
    struct.pack(">IQ", 2, 1 << 63) + b"{}",
    struct.pack(">IQ", 100, 0) + b"{}",
]


async def test_broken_frames(desk: Desk, socket: Path) -> None:
    """Broken and half-sent frames end their own connection and nobody else's."""
    for frame in FRAMES:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(frame)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        if answer:
            length, _ = struct.unpack_from(">IQ", answer)
            assert orjson.loads(answer[12 : 12 + length])["error"].startswith(("rpc.", "signer."))
    serial = format_serial(await desk.reserve(await desk.leaf()))
    assert await ask(socket, {"type": "certificate", "issuer_id": desk.hierarchy["tls-dv"].id, "serial": serial})


async def test_two_callers_at_once(desk: Desk, socket: Path) -> None:
    """Two callers that ask for one serial get one certificate; others are served beside them."""
    issuer_id = desk.hierarchy["tls-dv"].id
    serials = [format_serial(await desk.reserve(await desk.leaf())) for _ in range(4)]
    calls = [ask(socket, {"type": "certificate", "issuer_id": issuer_id, "serial": s}) for s in serials * 2]
    answers = await asyncio.gather(*calls)
    assert answers[:4] == answers[4:]
    assert len(set(answers)) == 4
    assert len(await desk.fetch("select from signing_log")) == 4
