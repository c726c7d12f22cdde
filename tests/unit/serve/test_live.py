"""The responder's side of live signing: bounded, never worse than the cache, and never another status than it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.certid import CertId, CertIdHash, encode_certid
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_request import build_request
from quash.pki.ocsp_response import ERRORS, Status
from quash.pki.ocsp_response import GOOD as SAYS_GOOD
from quash.runtime import rpc
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.process import Health
from responder.serve.http import HttpServer
from responder.serve.live import LiveClient
from responder.serve.worker import Worker
from tests.unit.serve.in_memory import (
    DV,
    ELSEWHERE,
    EXPIRED,
    GOOD,
    LONG,
    MISSING,
    NOW,
    OV,
    RECORDS,
    REVOKED,
    DictReader,
)
from tests.unit.serve.test_differential import get, post

NONCE = bytes(range(16))
Handler = Callable[[dict[str, Any], bytes], Awaitable[tuple[dict[str, Any], bytes]]]
ES256 = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"]


def several(*cert_ids: CertId, nonce: bytes | None = None) -> bytes:
    """A request about several certificates; the nonce as in a request about one."""
    one = build_request(cert_ids[0], nonce)
    start, _ = der.expect(one, der.only(one, der.SEQUENCE)[0], der.SEQUENCE)
    _, end = der.expect(one, start, der.SEQUENCE)
    listed = der.tlv(der.SEQUENCE, *(der.tlv(der.SEQUENCE, encode_certid(each)) for each in cert_ids))
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, listed, one[end:]))


class Signer:
    """A live signer with the key of the issuer, on a real socket. `delay`: seconds; `error`: raised instead; `gate`: it
    waits until that is open."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.delay = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: QuashError | None = None
        self.version = 0
        self.most = 0
        self._now = 0

    async def __call__(self, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        assert body == b""
        self.asked.append(header)
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(self.delay)
        await self.gate.wait()
        self._now -= 1
        if self.error:
            raise self.error
        singles = [(CertIdHash(name), bytes.fromhex(serial), SAYS_GOOD) for name, _, _, serial in header["cert_ids"]]
        nonce = None if header["nonce"] is None else bytes.fromhex(header["nonce"])
        tbs = DV.template.tbs_of_many(singles, NOW, NOW + 86_400, nonce)
        raw_signature = ES256.decode(DV.signer_key.sign(tbs, ec.ECDSA(hashes.SHA256())))
        return {"said": [[self.version, None]] * len(singles), "this_update": NOW}, DV.template.enclose(
            tbs, raw_signature
        )


class Asker:
    """A server over the records in memory, with a way to a live signer, and a client of its."""

    def __init__(self, port: int, worker: Worker) -> None:
        self._port = port
        self.worker = worker

    async def post(self, request: bytes, path: str = "/") -> tuple[dict[str, str], bytes]:
        """Headers and body of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(request)}\r\n\r\n"
        writer.write(head.encode() + request)
        octets, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        status, *lines = octets.decode().split("\r\n")
        assert status == "HTTP/1.1 200 OK"
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


@asynccontextmanager
async def asking(folder: Path, signer: Handler | None, nonce: str = "sign", **limits: Any) -> AsyncIterator[Asker]:
    """`signer`: behind the socket; None: nobody is. `limits`: keys of `responder.live`."""
    path = folder / "presigner.sock"
    signing = await rpc.serve(path, signer, max_body=0) if signer else None
    config = Config.model_validate({"responder": {"live": limits, "nonce": {"tls-dv": nonce}}})
    live = LiveClient(path, config.responder.live)
    worker = Worker(DictReader(dict(RECORDS)), FakeClock(NOW), config, Health(), structlog.get_logger(), live=live)
    worker.refresh()
    server = HttpServer(worker.answer, config.responder, now=lambda: NOW, fast=worker.fast, live=worker.answer_live)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield Asker(listener.sockets[0].getsockname()[1], worker)
    finally:
        listener.close()
        await server.shutdown(1)
        if signing:
            signing.close()


async def test_a_nonce_is_signed_for_who_asks_it_of_that_issuer(tmp_path: Path) -> None:
    """A27: with the nonce back, kept by no cache (A37); without a nonce, or of another issuer, the cache answers."""
    signer = Signer()
    async with asking(tmp_path, signer) as asker:
        head, body = await asker.post(build_request(DV.cert_id(GOOD), NONCE))
        assert NONCE in body
        assert verify_response(body, DV.row.certificate).this_update == NOW
        assert head["cache-control"] == "max-age=0, private, must-revalidate"
        assert not {"etag", "expires", "last-modified"} & head.keys()
        for request, issuer in (
            (build_request(DV.cert_id(GOOD)), DV),
            (build_request(OV.cert_id(ELSEWHERE), NONCE), OV),
        ):
            head, body = await asker.post(request)
            assert verify_response(body, issuer.row.certificate).this_update == NOW - 3600
            assert "etag" in head
    assert len(signer.asked) == 1


@pytest.mark.parametrize("method", [get, post])
async def test_the_fast_path_leaves_it_nonces_that_are_signed(tmp_path: Path, method: Callable[..., bytes]) -> None:
    """A27: it has no signer. Without a nonce, or of an issuer that ignores them, it answers."""
    async with asking(tmp_path, Signer()) as asker:
        fast = asker.worker.fast
        assert fast.answer(method(build_request(DV.cert_id(GOOD)))) is not None
        for size in (8, 16, 20, 32):
            assert fast.answer(method(build_request(DV.cert_id(GOOD), bytes(size)))) is None
            assert fast.answer(method(build_request(OV.cert_id(ELSEWHERE), bytes(size)), "/demo/ca1")) is not None


async def test_nonces_are_ignored_unless_configured(tmp_path: Path) -> None:
    """The default: a nonce changes nothing, and the signer hears of nothing."""
    signer = Signer()
    async with asking(tmp_path, signer, "ignore") as asker:
        _, body = await asker.post(build_request(DV.cert_id(GOOD), NONCE))
        assert verify_response(body, DV.row.certificate).this_update == NOW - 3600
        _, body = await asker.post(several(DV.cert_id(GOOD), DV.cert_id(LONG), nonce=NONCE))
        assert NONCE not in body
    assert [header["nonce"] for header in signer.asked] == [None]


@pytest.mark.parametrize("size", [0, 129])
async def test_a_nonce_of_no_or_too_many_octets_is_malformed(tmp_path: Path, size: int) -> None:
    """A27, whatever the issuer does with nonces, about one certificate and about several."""
    signer = Signer()
    async with asking(tmp_path, signer) as asker:
        for request in (
            build_request(DV.cert_id(GOOD), bytes(size)),
            several(DV.cert_id(GOOD), DV.cert_id(LONG), nonce=bytes(size)),
        ):
            assert (await asker.post(request))[1] == ERRORS["malformed_request"]
    assert signer.asked == []


async def test_several_certificates_are_answered_in_one_response(tmp_path: Path) -> None:
    """A22: each CertID goes to the signer once, with the nonce; its response goes out as it is."""
    signer = Signer()
    good, long = DV.cert_id(GOOD), DV.cert_id(LONG, CertIdHash.SHA1)
    async with asking(tmp_path, signer) as asker:
        head, body = await asker.post(several(good, long, good, nonce=NONCE), "/tls-dv")
    assert [fields[3] for fields in signer.asked[0]["cert_ids"]] == [GOOD.hex(), LONG.hex()]
    assert NONCE in body
    assert body[6:7] == b"\0"  # OCSPResponseStatus successful
    assert "private" in head["cache-control"]


async def test_one_certificate_asked_about_twice_is_one(tmp_path: Path) -> None:
    """A22: the response that was signed ahead covers each certificate of such a request."""
    signer = Signer()
    async with asking(tmp_path, signer) as asker:
        _, body = await asker.post(several(DV.cert_id(GOOD), DV.cert_id(GOOD)))
        assert verify_response(body, DV.row.certificate).cert_id == DV.cert_id(GOOD)
    assert signer.asked == []


NEVER_ASKED = {
    "one is missing": ((DV.cert_id(GOOD), DV.cert_id(MISSING)), "/", "unauthorized"),
    "one is expired": ((DV.cert_id(GOOD), DV.cert_id(EXPIRED)), "/", "try_later"),
    "of two issuers": ((DV.cert_id(GOOD), OV.cert_id(ELSEWHERE)), "/", "unauthorized"),
    "at another issuer's path": ((DV.cert_id(GOOD), DV.cert_id(LONG)), "/demo/ca1", "unauthorized"),
    "too many": ((DV.cert_id(GOOD), DV.cert_id(LONG), DV.cert_id(REVOKED)), "/", "unauthorized"),
}


@pytest.mark.parametrize("name", NEVER_ASKED)
async def test_the_signer_is_not_asked_in_vain(tmp_path: Path, name: str) -> None:
    """What the cache has no answer for, or one response cannot hold, costs the signer nothing (A9, A13, G45)."""
    cert_ids, path, error = NEVER_ASKED[name]
    signer = Signer()
    async with asking(tmp_path, signer, certificates=2) as asker:
        assert (await asker.post(several(*cert_ids, nonce=NONCE), path))[1] == ERRORS[error]
    assert signer.asked == []


FAILURES = {
    "away": (None, 0.0, "unauthorized"),
    "busy": (QuashError("live.busy", "", Kind.UNAVAILABLE), 0.0, "try_later"),
    "without a database": (QuashError("store.unavailable", "", Kind.UNAVAILABLE), 0.0, "try_later"),
    "of another opinion": (QuashError("live.not_vouched_for", "", Kind.REFUSED), 0.0, "unauthorized"),
    "late": (None, 0.6, "try_later"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_without_the_signer(tmp_path: Path, name: str) -> None:
    """A nonce is then ignored: the cached answer. Several certificates: an error that says whether to come again."""
    error, delay, outcome = FAILURES[name]
    signer = Signer()
    signer.error, signer.delay = error, delay
    async with asking(tmp_path, None if name == "away" else signer, seconds=0.3) as asker:
        head, body = await asker.post(build_request(DV.cert_id(GOOD), NONCE))
        assert verify_response(body, DV.row.certificate).this_update == NOW - 3600
        assert "etag" in head
        head, body = await asker.post(several(DV.cert_id(GOOD), DV.cert_id(LONG)))
        assert body == ERRORS[outcome]
        assert head["cache-control"] == "no-store"


async def test_a_signer_that_is_behind_the_cache_is_not_believed(tmp_path: Path) -> None:
    """A revocation in the cache is not undone by a signer that does not know it."""
    signer = Signer()
    async with asking(tmp_path, signer) as asker:
        _, body = await asker.post(build_request(DV.cert_id(REVOKED), NONCE))
        assert verify_response(body, DV.row.certificate).status == Status(1, NOW - 7200)
        _, body = await asker.post(several(DV.cert_id(GOOD), DV.cert_id(REVOKED)))
        assert body == ERRORS["unauthorized"]
    assert len(signer.asked) == 2


@pytest.mark.parametrize(
    "header", [{}, {"said": [], "this_update": NOW}, {"said": [[0, None]]}, {"said": 1, "this_update": 1}]
)
async def test_a_signer_of_another_release_is_not_believed(tmp_path: Path, header: dict[str, Any]) -> None:
    """What cannot be understood is no answer: the cache's goes out."""

    async def strange(_: dict[str, Any], __: bytes) -> tuple[dict[str, Any], bytes]:
        return header, b"what is this"

    async with asking(tmp_path, strange) as asker:
        _, body = await asker.post(build_request(DV.cert_id(GOOD), NONCE))
        assert verify_response(body, DV.row.certificate).this_update == NOW - 3600


async def test_askers_are_bounded_in_flight_and_in_queue(tmp_path: Path) -> None:
    """Two at a time, three wait; the others have the cached answer meanwhile. Then there is room again."""
    signer = Signer()
    signer.gate.clear()
    nonces = [bytes([number]) * 16 for number in range(1, 13)]
    async with asking(tmp_path, signer, in_flight=2, queue=3, seconds=10) as asker:
        waiting = {asyncio.create_task(asker.post(build_request(DV.cert_id(GOOD), nonce))) for nonce in nonces}
        refused = set[asyncio.Task[tuple[dict[str, str], bytes]]]()
        while len(refused) < 7:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            refused |= done
        signer.gate.set()
        signed = [body for _, body in await asyncio.gather(*waiting)]
        for body in (*signed, *(task.result()[1] for task in refused)):
            verify_response(body, DV.row.certificate)
        assert sum(nonce in body for nonce in nonces for body in signed) == len(signer.asked) == 5
        assert signer.most == 2
        again = bytes(range(100, 116))
        assert again in (await asker.post(build_request(DV.cert_id(GOOD), again)))[1]


def test_the_defaults() -> None:
    """What docs/operations.md says of them."""
    live = Config().responder.live
    assert (live.in_flight, live.queue, live.seconds, live.certificates) == (8, 64, 2, 32)
    assert Config().presign.live_queue == 256
    assert Config().responder.nonce == {}
