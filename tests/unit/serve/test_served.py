"""A served worker, asked over real sockets: by openssl, GnuTLS and curl, and by requests that none of them sends."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import gzip
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from quash.pki.certid import CertIdHash
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_request import build_request
from quash.pki.ocsp_response import ERRORS
from quash.runtime.config import Responder as ResponderConfig
from responder.serve.answer import Answer, Request, http_error
from responder.serve.http import HttpServer
from tests.support.ocsp_issuer import OcspIssuer
from tests.unit.serve.conftest import GOOD, MISSING, REVOKED, Served, read_all, start_worker


def files(served: Served, serial: bytes) -> tuple[Path, Path]:
    """PEM files: a leaf and its CA."""
    ca, leaf = served.state.root / "ca.pem", served.state.root / f"{serial.hex()}.pem"
    ca.write_bytes(served.issuer.certificate.public_bytes(Encoding.PEM))
    leaf.write_bytes(served.issuer.leaf(int.from_bytes(serial)).public_bytes(Encoding.PEM))
    return leaf, ca


def run(*command: str | Path) -> str:
    """What a program said on both streams."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


SAYS = {GOOD: ": good", REVOKED: ": revoked", MISSING: "unauthorized (6)"}


@pytest.mark.parametrize("nonce", ["-nonce", "-no_nonce"])
@pytest.mark.parametrize("path", ["/", "/tls-dv"])
@pytest.mark.parametrize("digest", ["-sha1", "-sha256"])
def test_openssl_believes_the_answer(asked: Served, digest: str, path: str, nonce: str) -> None:
    """openssl ocsp verifies good and revoked: both paths, both CertID hashes, with and without a nonce (A27)."""
    for serial, says in SAYS.items():
        leaf, ca = files(asked, serial)
        said = run(
            *("openssl", "ocsp", "-url", asked.url + path, "-CAfile", ca, "-issuer", ca),
            *(nonce, digest, "-cert", leaf),
        )
        assert says in said
        if serial != MISSING:
            assert "Response verify OK" in said
    assert "keyCompromise" in run(
        *("openssl", "ocsp", "-url", asked.url, "-CAfile", files(asked, REVOKED)[1], "-issuer"),
        *(files(asked, REVOKED)[1], digest, "-cert", files(asked, REVOKED)[0]),
    )


def test_ocsptool_believes_the_answer(asked: Served) -> None:
    """GnuTLS verifies good and revoked, and sees the error for a serial that was never issued."""
    for serial, says in {GOOD: "good", REVOKED: "revoked"}.items():
        leaf, ca = files(asked, serial)
        said = run("ocsptool", f"--ask={asked.url}/tls-dv", "--load-cert", leaf, "--load-issuer", ca)
        assert "Verifying OCSP Response: Success" in said
        assert f"Certificate Status: {says}" in said
    leaf, ca = files(asked, MISSING)
    said = run("ocsptool", f"--ask={asked.url}", "--load-cert", leaf, "--load-issuer", ca)
    assert "unauthorized" in said.lower()


def target(served: Served, serial: bytes, algorithm: CertIdHash = CertIdHash.SHA256, prefix: str = "/tls-dv") -> str:
    """The path of a GET (A31)."""
    request = build_request(served.issuer.cert_id(serial, algorithm))
    return f"{prefix}/{quote(base64.b64encode(request), safe='')}"


@pytest.mark.parametrize("algorithm", list(CertIdHash))
def test_curl_gets_an_answer_that_verifies(asked: Served, algorithm: CertIdHash) -> None:
    """GET: HTTP 200, the response for the CertID asked for, the headers of A35; HEAD has the same without the body."""
    for serial in (GOOD, REVOKED):
        url = asked.url + target(asked, serial, algorithm)
        assert len(url) <= 255
        head, body = curl("-i", url)
        parsed = verify_response(body, asked.issuer.row.certificate)
        assert parsed.cert_id == asked.issuer.cert_id(serial, algorithm)
        assert parsed.status == ((None, 0) if serial == GOOD else (1, asked.now - 3600))
        assert head["content-length"] == str(len(body))
        assert head["content-type"] == "application/ocsp-response"
        assert "max-age=1800, public" in head["cache-control"]
        only_head, nothing = curl("-I", url)
        assert nothing == b""
        assert without_date(only_head) == without_date(head)


def curl(*arguments: str) -> tuple[dict[str, str], bytes]:
    """Headers in lower case (the status line as `:status`), and the body."""
    done = subprocess.run(["curl", "-s", *arguments], capture_output=True, timeout=30, check=True)
    return parse(done.stdout)


def parse(octets: bytes) -> tuple[dict[str, str], bytes]:
    """One HTTP response."""
    head, _, body = octets.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return {":status": lines[0].split(" ")[1], **fields}, body


def without_date(fields: dict[str, str]) -> dict[str, str]:
    """Headers that do not change from second to second."""
    return {name: value for name, value in fields.items() if name not in ("date", "cache-control")}


def test_a_conditional_get_is_304(asked: Served) -> None:
    """A38: whoever has the response gets its headers and no body."""
    url = asked.url + target(asked, GOOD)
    etag = curl("-i", url)[0]["etag"]
    head, body = curl("-i", "-H", f"If-None-Match: {etag}", url)
    assert (head[":status"], body) == ("304", b"")
    assert head["etag"] == etag
    assert {"date", "expires", "cache-control"} <= head.keys()
    assert "content-type" not in head
    assert curl("-i", "-H", 'If-None-Match: "a"', "-H", f"if-none-match: {etag}", url)[0][":status"] == "304"


def test_a_new_record_is_answered_from_at_once(alone: Served) -> None:
    """The look-up sees the newest commit: no worker holds an old state."""
    url = alone.url + target(alone, GOOD)
    before = verify_response(curl("-i", url)[1], alone.issuer.row.certificate)
    alone.publish(GOOD, (4, alone.now))
    after = verify_response(curl("-i", url)[1], alone.issuer.row.certificate)
    assert (before.status, after.status) == ((None, 0), (4, alone.now))


def test_a_new_signer_is_answered_with_at_once(alone: Served) -> None:
    """A record of a signer that came after the worker's last look is served, not refused."""
    alone.issuer.signer_id = 2
    alone.apply(templates=[alone.issuer.template_row])
    alone.publish(MISSING)
    body = curl("-i", alone.url + target(alone, MISSING))[1]
    assert verify_response(body, alone.issuer.row.certificate).status == (None, 0)


def test_a_new_issuer_is_answered_for_at_once(alone: Served) -> None:
    """Under its own path, too: nobody is told 404 or unauthorized because a worker looks at issuers once a second."""
    new = OcspIssuer(issuer_id=2, name="new-ca", signer_id=3, starts=alone.now - 86_400)
    alone.apply(issuers=[new.row], templates=[new.template_row], records=[(2, GOOD, new.record(GOOD, alone.now))])
    body = build_request(new.cert_id(GOOD))
    answer = alone.exchange(posting(alone, body=body, path=f"/{new.row.ocsp_path}"))
    assert verify_response(answer.partition(b"\r\n\r\n")[2], new.row.certificate).status == (None, 0)


def http(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """A request's octets; the connection ends after the answer."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def posting(served: Served, *headers: str, body: bytes | None = None, path: str = "/") -> bytes:
    """A POST about the good certificate, or of `body`."""
    if body is None:
        body = build_request(served.issuer.cert_id(GOOD))
    return http("POST", path, f"Content-Length: {len(body)}", *headers, body=body)


@pytest.mark.parametrize("headers", [(), ("Content-Type: text/html",), ("Content-Type: application/ocsp-request",)])
def test_a_post_is_answered_whatever_its_type(asked: Served, headers: tuple[str, ...]) -> None:
    """Clients without or with an odd Content-Type are answered, as by the peers."""
    head, body = parse(asked.exchange(posting(asked, *headers)))
    assert head[":status"] == "200"
    assert verify_response(body, asked.issuer.row.certificate).status == (None, 0)


def chunked(body: bytes) -> bytes:
    """A POST in chunks."""
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (body[i : i + 1000] for i in range(0, len(body), 1000))
    )
    return http("POST", "/", "Transfer-Encoding: chunked", body=chunks + b"0\r\n\r\n")


def test_a_chunked_post_is_answered(asked: Served) -> None:
    """HTTP/1.1 clients may send a body without saying its length first."""
    head, body = parse(asked.exchange(chunked(build_request(asked.issuer.cert_id(GOOD)))))
    assert head[":status"] == "200"
    assert verify_response(body, asked.issuer.row.certificate).status == (None, 0)


def test_a_client_may_ask_whether_to_send(asked: Served) -> None:
    """Expect: 100-continue is answered before the body comes, and a body that is too large is refused unsent."""
    body = build_request(asked.issuer.cert_id(GOOD))
    with asked.connect() as connection:
        connection.sendall(http("POST", "/", "Expect: 100-continue", f"Content-Length: {len(body)}"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert parse(read_all(connection))[0][":status"] == "200"
    with asked.connect() as connection:
        connection.sendall(http("POST", "/", "Expect: 100-continue", "Content-Length: 5000000"))
        assert connection.recv(15) == b"HTTP/1.1 413 Re"
    old = posting(asked, "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    assert parse(asked.exchange(old))[0][":status"] == "200"  # RFC 9110 10.1.1: HTTP/1.0 knows no 100


ODD = {
    "malformed base64": (lambda s: http("GET", "/tls-dv/M%%%"), 200, "malformed_request"),
    "malformed DER": (lambda s: http("GET", "/MAAA"), 200, "malformed_request"),
    "nothing asked": (lambda s: http("GET", "/"), 200, "malformed_request"),
    "leading //": (lambda s: http("GET", "/" + target(s, GOOD, prefix="")), 200, None),
    "doubled slash after the path": (lambda s: http("GET", target(s, GOOD, prefix="/tls-dv/")), 200, None),
    "slashes unescaped": (lambda s: http("GET", target(s, GOOD).replace("%2F", "/")), 200, None),
    "escapes in lower case": (lambda s: http("GET", target(s, GOOD).replace("%2F", "%2f")), 200, None),
    "absolute form": (lambda s: http("GET", s.url + target(s, GOOD)), 200, None),
    "a serial never issued": (lambda s: http("GET", target(s, MISSING)), 200, "unauthorized"),
    "a serial longer than any key of the cache": (
        lambda s: posting(s, body=build_request(s.issuer.cert_id(b"\x41" * 600))),
        200,
        "unauthorized",
    ),
    "empty POST": (lambda s: posting(s, body=b""), 200, "malformed_request"),
    "POST without a length": (lambda s: http("POST", "/"), 200, "malformed_request"),
    "garbage": (lambda s: posting(s, body=b"garbage"), 200, "malformed_request"),
    "compressed": (
        lambda s: posting(s, "Content-Encoding: gzip", body=gzip.compress(b"0" * 10_000_000)),
        415,
        None,
    ),
    "in the coding that is none": (lambda s: posting(s, "Content-Encoding: Identity"), 200, None),
    "POST elsewhere": (lambda s: posting(s, path="/elsewhere"), 404, None),
    "PUT": (lambda s: http("PUT", "/", "Content-Length: 3", body=b"abc"), 405, None),
    "DELETE": (lambda s: http("DELETE", "/"), 405, None),
    "a method that nobody knows": (lambda s: http("FOO", target(s, GOOD)), 405, None),
    "a method in lower case": (lambda s: http("get", target(s, GOOD)), 405, None),
    "half a request line": (lambda s: b"FOO /M\r\n\r\n", 400, None),
    "OPTIONS *": (lambda s: http("OPTIONS", "*"), 405, None),
    "oversized": (lambda s: posting(s, body=b"0" * 16_385), 413, None),
    "oversized in chunks": (lambda s: chunked(b"0" * 20_000), 413, None),
    "multi-megabyte": (lambda s: posting(s, body=b"0" * 5_000_000), 413, None),
    "multi-megabyte in chunks": (lambda s: chunked(b"0" * 5_000_000), 413, None),
    "a length beyond all": (lambda s: http("POST", "/", "Content-Length: 99999999999999"), 413, None),
    "long URL": (lambda s: http("GET", "/M" + "A" * 9_000), 414, None),
    "very long URL": (lambda s: http("GET", "/M" + "A" * 90_000), 414, None),
    "long header": (lambda s: http("GET", "/", "X-Long: " + "a" * 9_000), 431, None),
    "no HTTP": (lambda s: b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, None),
    "both lengths": (lambda s: posting(s, "Transfer-Encoding: chunked"), 400, None),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_requests_are_answered(asked: Served, name: str) -> None:
    """Each odd request has its HTTP status, and its OCSP status or a verified answer; the worker goes on."""
    request, status, error = ODD[name]
    head, body = parse(asked.exchange(request(asked)))
    assert int(head[":status"]) == status
    if error:
        assert body == ERRORS[error]
        assert head["cache-control"] == "no-store"
    elif status == 200:
        assert verify_response(body, asked.issuer.row.certificate).status == (None, 0)
    if status == 405:
        assert head["allow"] == "GET, HEAD, POST"
    if status == 415:
        assert head["accept-encoding"] == "identity"
    assert curl("-i", asked.url + target(asked, GOOD))[0][":status"] == "200"


def test_clients_that_say_nothing_or_half_do_no_harm(asked: Served) -> None:
    """Connections that close at once, in a header or in a body leave the worker answering."""
    for part in (b"", b"GET /M", b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc"):
        with asked.connect() as connection:
            connection.sendall(part)
    assert curl("-i", asked.url + target(asked, GOOD))[0][":status"] == "200"
    assert "Traceback" not in (asked.state.root / "responder-1.log").read_text()


def test_a_client_that_sends_no_more_is_answered(asked: Served) -> None:
    """RFC 9112 9.6: it has closed its side right after the request; on either path the answer comes, and the end."""
    for headers in ("", "If-None-Match: x\r\n"):
        with asked.connect() as connection:
            connection.sendall(f"GET {target(asked, GOOD)} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
            connection.shutdown(socket.SHUT_WR)
            assert verify_response(parse(read_all(connection))[1], asked.issuer.row.certificate).status == (None, 0)


def test_a_connection_carries_many_requests(asked: Served) -> None:
    """Keep-alive, and requests sent before the answers came."""
    request = f"GET {target(asked, GOOD)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with asked.connect() as connection:
        connection.sendall(request * 20 + http("GET", target(asked, GOOD)))
        assert read_all(connection).count(b"HTTP/1.1 200 OK") == 21


def test_a_client_that_reads_late_gets_every_answer_whole_and_in_order(alone: Served) -> None:
    """Where the kernel takes the beginning of an answer alone, the rest follows: from both paths, and between them."""
    serials = [(GOOD, REVOKED)[number % 3 == 0] for number in range(12)]
    alone.listen.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as little as it takes
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.settimeout(15)
        connection.connect(("127.0.0.1", alone.port))
        for serial in serials:
            waiting = unread(connection)
            connection.sendall(f"GET {target(alone, serial)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            for _ in range(20):  # so that the worker reads it apart, as long as it answers at all
                if unread(connection) > waiting:
                    break
                time.sleep(0.001)
        connection.sendall(http("GET", target(alone, GOOD)))
        octets = read_all(connection)
    for serial in (*serials, GOOD):
        head, _, octets = octets.partition(b"\r\n\r\n")
        size = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
        cert_id = verify_response(octets[:size], alone.issuer.row.certificate).cert_id
        assert cert_id is not None
        assert cert_id.serial == serial
        octets = octets[size:]
    assert octets == b""


def unread(connection: socket.socket) -> int:
    """Octets that have arrived."""
    return int.from_bytes(fcntl.ioctl(connection, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_worker_is_ready_only_with_a_fresh_cache(alone: Served) -> None:
    """Health depends on the cache alone; a rebuilt, empty one is not ready, and a miss is tryLater meanwhile."""
    assert alone.readiness() == {"ready": True, "checks": {"cache": {"ok": True, "detail": "fresh"}}}
    alone.writer.rebuild()
    alone.wait_ready(False)
    assert alone.readiness()["checks"]["cache"]["detail"] == "filling"
    assert curl("-i", alone.url + target(alone, GOOD))[1] == ERRORS["try_later"]
    alone.apply(issuers=[alone.issuer.row], templates=[alone.issuer.template_row])
    alone.publish(GOOD)
    alone.wait_ready()
    assert verify_response(curl("-i", alone.url + target(alone, GOOD))[1], alone.issuer.row.certificate)


def test_a_leaving_worker_finishes_its_connections(alone: Served) -> None:
    """On SIGTERM: the next answer of an open connection says close, the process ends, and another worker goes on."""
    request = f"GET {target(alone, GOOD)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with alone.connect() as used, alone.connect() as idle:
        used.sendall(request)
        assert b"connection: close" not in used.recv(65_536).lower()
        idle.sendall(request)
        idle.recv(65_536)
        second = start_worker(alone.state, alone.listen, "responder-2")
        try:
            alone.wait_ready(name="responder-2")
            os.kill(alone.worker.pid, signal.SIGTERM)
            answer = b""
            while b"connection: close" not in answer:  # or the socket's own time-out fails this
                used.sendall(request)
                answer = used.recv(65_536).lower()
                assert answer.startswith(b"http/1.1 200 ")
            assert curl("-i", alone.url + target(alone, GOOD))[0][":status"] == "200"
            assert used.recv(10) == b""
            assert alone.worker.wait(10) == 0
            assert idle.recv(10) == b""
        finally:
            second.kill()
            second.wait(10)


async def test_a_body_must_come_in_time() -> None:
    """A client that stops in the middle of a body gets 408 and is let go."""
    asked: list[Request] = []

    def answers(request: Request) -> Answer:
        asked.append(request)
        return http_error(404)

    http_server = HttpServer(answers, ResponderConfig(max_body=1024, body_seconds=0.2), now=time.time)
    listener = await asyncio.get_running_loop().create_server(http_server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    head, _ = parse(await reader.read())
    assert (head[":status"], asked) == ("408", [])
    writer.close()
    listener.close()
    await http_server.shutdown(1)
