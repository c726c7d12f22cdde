"""The fast path answers as the full path does, to the octet: generated requests, mutated, split, joined."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quash.pki.certid import CertIdHash
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_request import build_request
from tests.support.ocsp_issuer import OcspIssuer
from tests.unit.serve.in_memory import (
    DV,
    ELSEWHERE,
    EXPIRED,
    GOOD,
    LONG,
    MISSING,
    OV,
    REVOKED,
    STRAY,
    Pair,
    answers,
)

STRANGER = OcspIssuer(7, "stranger", 7)


def get(der: bytes, prefix: str = "/tls-dv", headers: str = "Host: x\r\n") -> bytes:
    """A plain GET."""
    return f"GET {prefix}/{quote(base64.b64encode(der), safe='')} HTTP/1.1\r\n{headers}\r\n".encode()


def post(der: bytes, prefix: str = "/tls-dv", headers: str = "Host: x\r\n") -> bytes:
    """A plain POST."""
    return f"POST {prefix} HTTP/1.1\r\n{headers}Content-Length: {len(der)}\r\n\r\n".encode() + der


def ask(serial: bytes = GOOD, algorithm: CertIdHash = CertIdHash.SHA256, nonce: bytes | None = None) -> bytes:
    return build_request(DV.cert_id(serial, algorithm), nonce)


PLAIN_HEADERS = [
    "Host: x\r\n",
    "host: ocsp.example.org:8080\r\nACCEPT: */*\r\nUser-Agent: a (b; c) d/1\r\n",
    "Connection: Keep-Alive\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nVia: 1.1 cdn\r\n",
]
PLAIN = {
    f"{method.__name__} {serial.hex()} {algorithm.value} {len(nonce or b'')} {number}": method(
        ask(serial, algorithm, nonce), headers=headers
    )
    for method in (get, post)
    for serial in (GOOD, REVOKED, LONG)
    for algorithm in CertIdHash
    for nonce in (None, b"n" * 16)
    for number, headers in enumerate(PLAIN_HEADERS)
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_request_takes_the_fast_path(pair: Pair, name: str) -> None:
    """Whole, from memory the second time, and several on one connection: answered fast, and as by the full path."""
    request = PLAIN[name]
    assert pair.agree([request]).fast == 1
    said = pair.agree([request] * 3)
    assert said.fast == 3
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers(said.octets)]
    assert len(bodies) == 3
    serial = bytes.fromhex(name.split()[1])
    assert verify_response(bodies[2], DV.row.certificate).cert_id == DV.cert_id(serial, CertIdHash(name.split()[2]))


@pytest.mark.parametrize("request_", [get(ask()), post(ask(REVOKED))], ids=["get", "post"])
def test_a_request_split_anywhere_is_answered_the_same(pair: Pair, request_: bytes) -> None:
    """In two segments at every octet, and octet by octet: no fast path, the same answer."""
    whole = pair.agree([request_]).octets
    for at in range(1, len(request_)):
        said = pair.agree([request_[:at], request_[at:]], turns=1)
        assert (said.octets, said.fast) == (whole, 0)
    said = pair.agree([request_[i : i + 1] for i in range(len(request_))], turns=1)
    assert (said.octets, said.fast) == (whole, 0)


@pytest.mark.parametrize("trailing", [b"\0", b"\r\n", b"G", b"GET / HTTP/1.1\r\n", get(ask(REVOKED)), post(ask())])
@pytest.mark.parametrize("request_", [get(ask()), post(ask())], ids=["get", "post"])
def test_what_follows_in_the_same_segment_takes_the_full_path(pair: Pair, request_: bytes, trailing: bytes) -> None:
    """Pipelined requests and stray octets are aiohttp's, and so is the connection from then on."""
    said = pair.agree([request_ + trailing])
    assert said.fast == 0
    assert pair.agree([request_, request_ + trailing, request_]).fast == 1


PLAIN_FIELDS = [
    *("Accept: */*", "accept-language: ar, fr;q=0.5", "User-Agent: u/1 (x; y)", "Connection: keep-alive"),
    *("connection: Keep-Alive", "Cache-Control: no-cache", "Pragma: no-cache", "X-Request-Id: 00-ab", "x-f: a  b"),
    *("Via: 1.1 a", "Date: today", "Content-Type: application/ocsp-request", "CONTENT-TYPE: text/html"),
]
ODD_FIELDS = [
    *("Connection: close", "Connection: TE, close", "TE: trailers", "Connection: upgrade", "Keep-Alive: timeout=5"),
    *("If-None-Match: *", 'If-None-Match: "a"', "If-Modified-Since: Fri, 15 Jan 2100 08:00:00 GMT", "Range: bytes=0-1"),
    *("Content-Length: 0", "Content-Length: 5", "content-length: 76", "Content-Length: +3", "Content-Length: 3, 3"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked", "Host: again"),
    *("Expect: 100-continue", "Expect: 200-ok", "Upgrade: h2c", "Upgrade: websocket", "Proxy-Connection: close"),
    *("Accept-Encoding: gzip", "Content-Encoding: gzip", "X-Empty:", "X-Tight:v", "X-Space : v", " folded: v"),
    *("X-Tab:\tv", "X-High: \u00e9", "X-Nul: a\0b", "X-Cr: a\rb", "X-Lf: a\nb", "No colon", ": no name", "X-\u00e9: v"),
    *("Sec-WebSocket-Key1: a", "X-Long: " + "v" * 1500, "X-Longer: " + "v" * 9000, "accept: a", "Accept: b", ""),
]
ODD_VERSIONS = ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/01.1", " HTTP/1.1", "HTTP/1.1\0", ""]
ODD_METHODS = ["HEAD", "PUT", "OPTIONS", "get", "CONNECT", "M-SEARCH", " GET", "GET ", ""]
PREFIXES = ["", "/tls-dv", "/tls-dv", "/demo/ca1"]
ODD_PREFIXES = ["/", "/tls-dv/", "/nowhere", "http://h", "/tls-dv/..", "/.", "/tls-dv?", "/tls-dv#", "/%74ls-dv", "*"]
ODD_KINDS = ("method", "prefix", "version", "field", "field", "spelling", "body", "length", "line end", "DER")


@st.composite
def requests(draw: Any) -> bytes:
    """A plain request, or one that is odd in one or two ways."""
    odd = draw(st.lists(st.sampled_from(ODD_KINDS), max_size=2))
    issuer = draw(st.sampled_from([DV, DV, DV, OV, STRANGER]))
    serial = draw(st.sampled_from([GOOD, REVOKED, LONG, LONG, ELSEWHERE, EXPIRED, STRAY, MISSING, b"\0\xff", b"\xff"]))
    nonce = draw(st.sampled_from([None, None, b"n" * 16, b"n" * 32, b"", b"n" * 129]))
    der = build_request(issuer.cert_id(serial, draw(st.sampled_from(CertIdHash))), nonce)
    if "DER" in odd:
        at = draw(st.integers(0, len(der) - 1))
        der = der[:at] + draw(st.binary(max_size=2)) + der[at + 1 :]
    posted = draw(st.booleans())
    method = draw(st.sampled_from(ODD_METHODS)) if "method" in odd else ("GET", "POST")[posted]
    prefix = draw(st.sampled_from(ODD_PREFIXES if "prefix" in odd else PREFIXES))
    text = base64.b64encode(der).decode()
    spelled = quote(text, safe=draw(st.sampled_from(["", "/", "/+="])))
    if "spelling" in odd:
        odd_spellings = [
            text.rstrip("="),
            spelled.lower(),
            spelled + "?x",
            spelled + "#x",
            text.replace("/", "_"),
            text[1:],
        ]
        spelled = draw(st.sampled_from(odd_spellings))
    body = der if posted != ("body" in odd) else b""
    target = (prefix or "/") if posted else f"{prefix}/{spelled}"
    fields = [*draw(st.lists(st.sampled_from(PLAIN_FIELDS), max_size=3, unique_by=lambda f: f[:6].lower())), "Host: x"]
    fields += [draw(st.sampled_from(ODD_FIELDS)) for kind in odd if kind == "field"]
    if posted:
        fields.append(f"Content-Length: {len(body) + draw(st.sampled_from([-1, 1])) * ('length' in odd)}")
    fields = draw(st.permutations(fields))
    end = "\n" if "line end" in odd else "\r\n"
    line = f"{method} {target} {draw(st.sampled_from(ODD_VERSIONS)) if 'version' in odd else 'HTTP/1.1'}"
    return (end.join([line, *fields]) + end + end).encode() + body


@st.composite
def mutated(draw: Any) -> bytes:
    """A request with an octet replaced, inserted or left out."""
    octets = draw(requests())
    at = draw(st.integers(0, len(octets) - 1))
    octet = draw(
        st.sampled_from([b"", b" ", b"\0", b"\r", b"\n", b"\t", b"%", b"/", b":", b"\xff"]) | st.binary(max_size=2)
    )
    return octets[:at] + octet + octets[at + draw(st.integers(0, 1)) :]


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_both_paths_say_the_same(pair: Pair, data: Any) -> None:
    """Generated and mutated requests: whole, octet by octet, cut anywhere, with trailing octets, two at once."""
    octets = data.draw(st.one_of(requests(), mutated()))
    other = data.draw(requests())
    at = data.draw(st.integers(0, len(octets)))
    trailing = data.draw(st.binary(min_size=1, max_size=3))
    for segments in (
        [octets],
        [octets[:at], octets[at:]] if 0 < at < len(octets) else [octets, octets],
        [octets + trailing],
        [octets + other],
        [octets, other, octets],
        [other, octets + trailing],
    ):
        pair.agree(segments)
    pair.agree([octets[i : i + 1] for i in range(len(octets))], turns=0)
