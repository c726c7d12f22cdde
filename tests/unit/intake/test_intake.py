"""The public report endpoint as strangers meet it: over real HTTP, with a real worker process and its own role."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import REGISTRY

from issuer.checks.workers import Runner, Workers
from issuer.intake.api import MAX_BODY, IntakeApi
from issuer.intake.quota import Quota, network_of
from issuer.intake.server import listening
from issuer.intake.tasks import TASKS
from quash.pki import der
from quash.runtime.clock import FakeClock
from quash.runtime.config import Intake
from quash.store.roles import INTAKE
from tests.support.edge import TestCa
from tests.support.proofs import csr, jws, pem
from tests.support.revoking import World, make_world

WORKER = (sys.executable, "-m", "issuer.checks.worker", "issuer.intake.tasks")
PROBLEM = {"contact": "anna@example.org", "description": "phishing"}
COMPROMISE = {"contact": "anna@example.org"}


@dataclass
class Endpoint:
    """`post` answers (status, headers, body)."""

    url: str
    port: int

    async def post(self, path: str, body: Any, **kwargs: Any) -> tuple[int, Any, Any]:
        how = {"json": body} if not isinstance(body, bytes) else {"data": body}
        async with aiohttp.ClientSession() as session, session.post(self.url + path, **how, **kwargs) as response:
            return response.status, response.headers, await response.json(content_type=None)

    async def code(self, path: str, body: Any, **kwargs: Any) -> str:
        return str((await self.post(path, body, **kwargs))[2]["code"])


@asynccontextmanager
async def endpoint(database: Any, clock: FakeClock, workers: Runner, **config: Any) -> AsyncIterator[Endpoint]:
    limits = Intake.model_validate({"host": "127.0.0.1", **config}).model_copy(update={"port": 0})
    app = IntakeApi(await database.pool(INTAKE), limits, clock, workers).application()
    async with listening(app, limits) as port:
        yield Endpoint(f"http://127.0.0.1:{port}", port)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers.running(1, 10.0, WORKER) as running:
        yield running


@pytest.fixture
async def intake(database: Any, clock: FakeClock, workers: Workers) -> AsyncIterator[Endpoint]:
    async with endpoint(database, clock, workers, per_source_hour=1000, per_minute=1000) as each:
        yield each


class Here:
    """A `Runner` in this process, for tests that are not about workers."""

    async def run(self, task: str, argument: str, octets: bytes) -> Any:
        return TASKS[task](argument, octets)


@pytest.fixture
async def plain(database: Any, clock: FakeClock) -> AsyncIterator[Endpoint]:
    async with endpoint(database, clock, Here(), per_source_hour=1000, per_minute=1000) as each:
        yield each


async def rows(database: Any) -> list[Any]:
    return list(await database.owner.fetch("select * from report order by id"))


async def test_reports_are_kept_and_acknowledged(database: Any, intake: Endpoint) -> None:
    """With the time of receipt, the source and a reference; a private key leaves its proof and nothing else."""
    status, _, said = await intake.post("/report", {**PROBLEM, "serials": ["0a:1b"]})
    assert (status, said["received_at"]) == (202, "2027-01-15T08:00:00Z")
    key = ec.generate_private_key(ec.SECP256R1())
    text = pem(key)
    status, _, second = await intake.post("/report-key-compromise", {**COMPROMISE, "private_key": text})
    assert status == 202
    problem, compromise = await rows(database)
    assert (str(problem["reference"]), problem["source"], problem["contact"]) == (
        said["reference"],
        "127.0.0.1",
        "anna@example.org",
    )
    assert problem["body"] == {"description": "phishing", "serials": ["0a:1b"]}
    assert (str(compromise["reference"]), compromise["proof_kind"]) == (second["reference"], "private-key")
    assert text.splitlines()[1] not in repr(dict(compromise))


async def test_a_proof_over_a_challenge(database: Any, clock: FakeClock, intake: Endpoint) -> None:
    """A request or a JWS signed over what we gave out; a JWS needs the certificate, whose key it must be."""
    world: World = await make_world(database, clock, INTAKE)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = await world.leaf("alpha", key)
    shown = leaf.public_bytes(Encoding.PEM).decode()
    _, _, given = await intake.post("/report-key-compromise/challenges", {})
    assert given["expires_at"] == "2027-01-15T09:00:00Z"
    challenge = given["challenge"]
    assert (await intake.post("/report-key-compromise", {**COMPROMISE, "csr": csr(key, challenge)}))[0] == 202
    signed = jws(key, payload={"challenge": challenge})
    body = {**COMPROMISE, "jws": signed, "certificate": shown}
    assert (await intake.post("/report-key-compromise", body))[0] == 202
    other = ec.generate_private_key(ec.SECP256R1())
    for wrong, code in (
        ({"jws": signed}, "request.invalid"),
        ({"jws": jws(other, payload={"challenge": challenge}), "certificate": shown}, "evidence.jws_signature"),
        ({"private_key": pem(other), "certificate": shown}, "evidence.key_mismatch"),
        ({"csr": csr(key, "no challenge")}, "evidence.no_challenge"),
        ({"private_key": shown}, "evidence.public_half"),
        ({"private_key": "x"}, "evidence.key_malformed"),
        ({"private_key": pem(other), "csr": csr(key, challenge)}, "request.invalid"),
        ({}, "request.invalid"),
    ):
        assert await intake.code("/report-key-compromise", {**COMPROMISE, **wrong}) == code, wrong
    assert [row["challenge"] for row in await rows(database)] == [challenge, challenge]


async def test_what_is_too_much_is_refused_before_it_is_read(database: Any, plain: Endpoint) -> None:
    """16 KiB of body, known length or not; RSA of at most 8192 bits; nothing but JSON; no GET."""
    large = {**PROBLEM, "description": "x" * MAX_BODY}
    assert await plain.code("/report", large) == "request.too_large"

    async def drops() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 1024

    async with aiohttp.ClientSession() as session:
        headers = {"Content-Type": "application/json"}
        async with session.post(plain.url + "/report", data=drops(), headers=headers) as response:
            assert response.status == 413
        async with session.get(plain.url + "/report") as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert await plain.code("/report", b"contact=a", headers={"Content-Type": "text/plain"}) == "request.content_type"
    assert await plain.code("/report", {**PROBLEM, "contact": "\0 "}) == "request.nul"
    assert await plain.code("/report", {**PROBLEM, "serials": ["1"] * 101}) == "request.invalid"
    assert await rows(database) == []


async def test_what_cannot_be_read_is_a_problem_document(plain: Endpoint) -> None:
    """As on the private APIs."""
    status, headers, said = await plain.post("/report?" + "x" * 9000, PROBLEM)
    assert (status, headers["Content-Type"]) == (414, "application/problem+json")
    assert said["code"] == "request.uri_too_long"


async def test_a_key_of_monstrous_numbers_costs_nothing(intake: Endpoint) -> None:
    """What the library would calculate with for long is refused before it does, and the next report is served."""
    assert await intake.code("/report-key-compromise", {**COMPROMISE, "private_key": monster()}) == (
        "evidence.key_too_large"
    )
    honest = {**COMPROMISE, "private_key": pem(ec.generate_private_key(ec.SECP256R1()))}
    assert (await intake.post("/report-key-compromise", honest))[0] == 202


def monster() -> str:
    """A PEM of 12 KiB with RSA numbers nobody needs."""
    half = (1 << 8_000) - 1
    numbers = (0, half * half, 65537, half, half, half, half, half, half)
    octets = der.tlv(der.SEQUENCE, *(der.integer(n) for n in numbers))
    text = base64.encodebytes(octets).decode()
    return f"-----BEGIN RSA PRIVATE KEY-----\n{text}-----END RSA PRIVATE KEY-----\n"


async def ends(*connections: asyncio.StreamReader) -> list[bool]:
    """Which of them the server ended; it gets long, since only that it does so counts."""

    async def ended(reader: asyncio.StreamReader) -> bool:
        with suppress(ConnectionError):
            await reader.read()
        return True

    async with asyncio.timeout(60):
        return await asyncio.gather(*map(ended, connections))


HEAD = b"POST /report HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"\r\n{"], ids=["nothing", "header", "body"])
async def test_who_is_slow_is_cut_off(database: Any, clock: FakeClock, said: bytes) -> None:
    """Octet by octet or not at all, in the header or in the body: a connection lasts its time and no longer."""
    faults, cut_off = refused("internal"), refused("request.cut_off")
    async with endpoint(database, clock, Here(), connection_seconds=0.5) as intake:
        reader, writer = await asyncio.open_connection("127.0.0.1", intake.port)

        async def drip() -> None:
            writer.write(said)
            while not reader.at_eof():
                writer.write(b" ")
                with suppress(ConnectionError):
                    await writer.drain()
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip()) if said else None
        assert await ends(reader) == [True]
        if dripping is not None:
            dripping.cancel()
        writer.close()
        assert (await intake.post("/report", PROBLEM))[0] == 202
    assert refused("internal") == faults
    assert refused("request.cut_off") - cut_off == ("\r\n\r\n" in said.decode())


def refused(code: str) -> float:
    return REGISTRY.get_sample_value("quash_intake_refused_total", {"code": code}) or 0


async def test_a_handshake_has_its_time_too(database: Any, clock: FakeClock, tmp_path: Path) -> None:
    ca = TestCa("any")
    ca.issue(tmp_path, "intake", "server")
    config = {"certificate": tmp_path / "intake.pem", "key": tmp_path / "intake.key", "connection_seconds": 0.5}
    async with endpoint(database, clock, Here(), **config) as intake:
        reader, writer = await asyncio.open_connection("127.0.0.1", intake.port)
        assert await ends(reader) == [True]
        writer.close()


async def test_connections_are_few(database: Any, clock: FakeClock) -> None:
    """Of one source: a further one is ended at once, the others go on. Of all: the oldest one goes."""
    async with endpoint(database, clock, Here(), connections_per_source=3) as intake:
        held = [await asyncio.open_connection("127.0.0.1", intake.port) for _ in range(3)]
        further, _ = await asyncio.open_connection("127.0.0.1", intake.port)
        assert await ends(further) == [True]
        body = orjson.dumps(PROBLEM)
        length = f"Content-Length: {len(body)}\r\n\r\n".encode()
        held[0][1].write(HEAD.replace(b"Content-Length: 100\r\n", length) + body)
        assert (await held[0][0].read()).startswith(b"HTTP/1.1 202 ")  # and is closed: there is room again
        assert (await intake.post("/report", PROBLEM))[0] == 202
        for _, writer in held:
            writer.close()
    async with endpoint(database, clock, Here(), connections=3, behind_proxy=True) as intake:
        held = [await asyncio.open_connection("127.0.0.1", intake.port) for _ in range(3)]
        assert (await intake.post("/report", PROBLEM))[0] == 202
        assert await ends(held[0][0]) == [True]
        assert not any(reader.at_eof() for reader, _ in held[1:])
        for _, writer in held:
            writer.close()
    assert len(await rows(database)) == 3


async def test_quotas(database: Any, clock: FakeClock) -> None:
    """Of a source and of all; who is refused is told when to come back; a proxy's last address counts."""
    config = {"per_source_hour": 2, "per_minute": 5, "behind_proxy": True}
    async with endpoint(database, clock, Here(), **config) as intake:

        async def report(source: str) -> int:
            headers = {"X-Forwarded-For": f"6.6.6.6, {source}"}
            status, said, _ = await intake.post("/report", PROBLEM, headers=headers)
            assert (status == 429) == ("Retry-After" in said)
            return status

        assert [await report("192.0.2.1") for _ in range(3)] == [202, 202, 429]
        assert [await report(f"2001:db8:0:1::{n}") for n in range(3)] == [202, 202, 429]  # one /64
        assert [await report(f"192.0.2.{n}") for n in (2, 3)] == [202, 429]  # five a minute
        await clock.advance(1800)
        assert await report("192.0.2.1") == 202
    assert len(await rows(database)) == 6


def test_sources_do_not_fill_the_memory(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("issuer.intake.quota._MOST_SOURCES", 100)
    quota = Quota(clock, per_hour=2, per_minute=10**6)
    for n in range(1000):
        assert quota.take(f"10.0.{n // 256}.{n % 256}") == 0.0
        assert len(quota._sources) <= 100
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("2001:db8::1") == network_of("2001:db8::2") != network_of("2001:db8:0:1::1")
