"""Requests on which two HTTP parsers may disagree: never a wrong answer, never a connection out of step."""

from __future__ import annotations

import re

import pytest

from quash.pki.certid import CertIdHash
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_request import build_request
from quash.pki.ocsp_response import ERRORS
from tests.unit.serve.in_memory import DV, GOOD, REVOKED, Pair, Said
from tests.unit.serve.test_differential import get, post

BODY = build_request(DV.cert_id(GOOD, CertIdHash.SHA256))
N = len(BODY)
NEXT = get(build_request(DV.cert_id(REVOKED)))  # what an attacker would like to have answered in somebody's place
PLAIN = get(BODY)
TARGET = PLAIN.split(b" ")[1]


def posting(*fields: bytes, body: bytes = BODY) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: x", *fields]) + b"\r\n\r\n" + body


def getting(*fields: bytes, line: bytes = b"GET " + TARGET + b" HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    return end.join([line, b"Host: x", *fields]) + end + end


def length(value: bytes | int) -> bytes:
    return b"Content-Length: %b" % value if isinstance(value, bytes) else b"Content-Length: %d" % value


CHUNKED = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"


def chunk(body: bytes, size: bytes = b"%x\r\n") -> bytes:
    return size % len(body) + body + b"\r\n"


# What a framing that is not beyond doubt gets: 400, and nothing after it is read.
REFUSED = {
    "both lengths": posting(length(N), CHUNKED),
    "both lengths, a request in the body": posting(length(4), CHUNKED, body=LAST + NEXT),
    "unknown transfer coding": posting(b"Transfer-Encoding: xchunked", body=LAST + NEXT),
    "identity": posting(b"Transfer-Encoding: identity", body=NEXT),
    "chunked not last": posting(b"Transfer-Encoding: chunked, identity", body=LAST + NEXT),
    "chunked twice": posting(CHUNKED, CHUNKED, body=chunk(BODY) + LAST),
    "two lengths, the same": posting(length(N), length(N)),
    "two lengths": posting(length(N), length(0)),
    "list of lengths": posting(length(b"%d, %d" % (N, N))),
    "length with plus": posting(length(b"+%d" % N)),
    "length with minus": posting(length(b"-%d" % N)),
    "hexadecimal length": posting(length(b"0x%x" % N)),
    "two numbers": posting(length(b"%d 0" % N)),
    "length of 65 bits": posting(length(2**64 + 1)),
    "vertical tab before the length": posting(length(b"\x0b%d" % N)),
    "space before a length's colon": posting(b"Content-Length : %d" % N),
    "bare LF throughout": getting(end=b"\n"),
    "bare LF between fields": getting(b"X: a\nY: b"),
    "bare LF at the end": PLAIN[:-4] + b"\n\n",
    "bare CR": getting(b"X: a\rY: b"),
    "obs-fold": getting(b"X: a\r\n  b"),
    "obs-fold after the request line": PLAIN.replace(b"\r\nHost", b"\r\n Host"),
    "NUL in a value": getting(b"X: a\0b"),
    "NUL in the target": PLAIN.replace(b"tls", b"t\0s"),
    "space before a colon": getting(b"X : a"),
    "no colon": getting(b"X"),
    "no name": getting(b": a"),
    "no Host": PLAIN.replace(b"Host: x\r\n", b""),
    "two Hosts": getting(b"Host: y"),
    "authority-form": getting(line=b"GET x:80 HTTP/1.1"),
    "tabs in the request line": getting(line=b"GET\t" + TARGET + b" HTTP/1.1"),
    "chunk size with 0x": posting(CHUNKED, body=chunk(BODY, b"0x%x\r\n") + LAST),
    "chunk size with bare LF": posting(CHUNKED, body=chunk(BODY, b"%x\n") + LAST),
    "chunk size with space": posting(CHUNKED, body=chunk(BODY, b"%x \r\n") + LAST),
    "chunk longer than said": posting(CHUNKED, body=b"%x\r\n" % (N - 1) + BODY + b"\r\n" + LAST),
    "length in a trailer": posting(CHUNKED, body=chunk(BODY) + b"0\r\nContent-Length: 5\r\n\r\n"),
    "more after Connection: close": getting(b"Connection: close") + NEXT,
    "more after HTTP/1.0": PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0") + NEXT,
}

G, R, M = "good", "revoked", "malformed"
# Segments, and what is answered to them in order; the connection goes on after each.
IN_STEP: dict[str, tuple[list[bytes], list[str]]] = {
    "absolute-form": ([getting(line=b"GET http://elsewhere" + TARGET + b" HTTP/1.1")], [G]),
    "leading //": ([getting(line=b"GET /" + TARGET + b" HTTP/1.1")], [G]),
    "empty line first": ([b"\r\n" + PLAIN], [G]),
    "tab before the length": ([posting(b"Content-Length:\t%d" % N)], [G]),
    "body shaped as a request": ([post(NEXT)], [M]),
    "body shaped as a request, apart": ([posting(length(len(NEXT)), body=b""), NEXT], [M]),
    "half of such a body": ([posting(length(len(NEXT) + N)), NEXT], [M]),
    "GET with such a body": ([getting(length(len(NEXT))) + NEXT], [G]),
    "GET with such a body, apart": ([getting(length(len(NEXT))), NEXT], [G]),
    "GET with an empty body": ([getting(length(0))], [G]),
    "GET with an empty chunked body": ([getting(CHUNKED) + LAST], [G]),
    "GET with such a body in a chunk": ([getting(CHUNKED) + chunk(NEXT) + LAST], [G]),
    "such a body in a chunk": ([posting(CHUNKED, body=chunk(NEXT) + LAST)], [M]),
    "such a chunk, apart": ([posting(CHUNKED, body=b"%x\r\n" % len(NEXT)), NEXT, b"\r\n" + LAST], [M]),
    "chunk extension": ([posting(CHUNKED, body=chunk(BODY, b"%x;a=b\r\n") + LAST)], [G]),
    "such a body after 100 Continue": (
        [posting(b"Expect: 100-continue", length(len(NEXT)), body=b""), NEXT],
        ["continue", M],
    ),
    "upgrade, and a request": ([getting(b"Connection: upgrade", b"Upgrade: h2c") + NEXT], [G]),
    "upgrade to WebSocket, and a request": (
        [getting(b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13") + NEXT],
        [G, R],
    ),
    "CONNECT, and a request": ([getting(line=b"CONNECT x:80 HTTP/1.1") + NEXT], ["405", R]),
    "pipelined": ([PLAIN + NEXT + post(BODY)], [G, R, G]),
    "one and a half": ([PLAIN + NEXT[:40], NEXT[40:]], [G, R]),
    "fast, then pipelined": ([PLAIN, NEXT + PLAIN, NEXT], [G, R, G, R]),
}


def said(octets: bytes) -> list[str]:
    """What the answers in a server's octets say; reads each to its Content-Length and no further."""
    found = []
    while octets:
        head, _, octets = octets.partition(b"\r\n\r\n")
        status = head[9:12].decode()
        size = re.search(rb"\r\nContent-Length: (\d+)", head)
        body, octets = octets[: int(size[1]) if size else 0], octets[int(size[1]) if size else 0 :]
        if status == "100":
            found.append("continue")
        elif status != "200":
            found.append(status)
        elif body == ERRORS["malformed_request"]:
            found.append(M)
        else:
            parsed = verify_response(body, DV.row.certificate)
            assert parsed.cert_id is not None
            assert parsed.status is not None
            assert (parsed.cert_id.serial, parsed.status.reason) in ((GOOD, None), (REVOKED, 1))
            found.append(G if parsed.status.reason is None else R)
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_doubtful_framing_is_refused(pair: Pair, name: str) -> None:
    """400, once, and the connection ends, whatever is sent after it."""
    answer: Said = pair.agree([REFUSED[name], PLAIN])
    assert (said(answer.octets), answer.closed, answer.fast) == (["400"], True, 0)


@pytest.mark.parametrize("name", IN_STEP)
def test_the_connection_stays_in_step(pair: Pair, name: str) -> None:
    """Each request has its own answer, in order, and so has the plain one that is sent next."""
    segments, says = IN_STEP[name]
    answer = pair.agree([*segments, PLAIN])
    assert (said(answer.octets), answer.closed) == ([*says, G], False)


@pytest.mark.parametrize("name", IN_STEP)
def test_nothing_changes_after_a_fast_answer(pair: Pair, name: str) -> None:
    """The same on a connection whose first request took the fast path; what aiohttp got stays with it."""
    segments, says = IN_STEP[name]
    answer = pair.agree([NEXT, *segments, PLAIN])
    assert (said(answer.octets), answer.closed) == ([R, *says, G], False)
    assert 1 <= answer.fast <= 2
