"""What the fast path remembers, and for how long it may."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quash.cache import layout
from quash.cache.writer import Catalog
from quash.errors import Kind, QuashError
from quash.pki.certid import CertIdHash
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_request import build_request
from quash.pki.ocsp_response import ERRORS, Status
from responder.serve import fast
from responder.serve.httpdate import http_date
from responder.serve.metrics import ANSWERS
from responder.serve.plain import MAX_HEAD, MAX_LINE, NO_BODY, body_length, get_target, post_target
from tests.unit.serve.in_memory import CATALOG, DV, GOOD, NOW, OV, REVOKED, Pair, make_pair, own_loop
from tests.unit.serve.test_differential import get, post

KEY = layout.record_key(1, GOOD)
ASK = get(build_request(DV.cert_id(GOOD)))


@pytest.fixture
def own() -> Iterator[Pair]:
    """A pair that a test may change."""
    with own_loop() as loop:
        yield loop.run_until_complete(make_pair(loop))


def status(pair: Pair, request: bytes = ASK, *, fast_answers: int) -> Status | bytes:
    """What both paths say, and whether the fast one said it: a verified status, or an error's octets."""
    said = pair.agree([request])
    assert said.fast == fast_answers
    body = said.octets.partition(b"\r\n\r\n")[2]
    if body in ERRORS.values():
        return body
    parsed = verify_response(body, DV.row.certificate)
    assert parsed.status is not None
    return parsed.status


def put(pair: Pair, record: bytes | None) -> None:
    """Another record in both caches."""
    for site in (pair.fast, pair.full):
        if record is None:
            site.reader.records.pop(KEY)
        else:
            site.reader.records[KEY] = record


def test_a_revocation_is_answered_by_the_next_request(own: Pair) -> None:
    """The record is read for each request: what was remembered of another one counts for nothing."""
    assert status(own, fast_answers=1) == Status(None, 0)
    put(own, DV.record(GOOD, NOW, revoked=(1, NOW)))
    assert status(own, fast_answers=1) == Status(1, NOW)
    put(own, DV.record(GOOD, NOW, revoked=(1, NOW - 86_400), version=2))
    assert status(own, fast_answers=1) == Status(1, NOW - 86_400)
    put(own, None)
    assert status(own, fast_answers=0) == ERRORS["unauthorized"]


def test_a_refreshed_record_is_answered_by_the_next_request(own: Pair) -> None:
    """Same status, later thisUpdate: other octets, other headers."""
    before = own.agree([ASK])
    put(own, DV.record(GOOD, NOW))
    after = own.agree([ASK])
    assert (before.fast, after.fast) == (1, 1)
    assert f"Last-Modified: {http_date(NOW)}".encode() in after.octets
    assert f"Last-Modified: {http_date(NOW - 3600)}".encode() in before.octets


@pytest.mark.parametrize("set_back", [False, True])
def test_headers_follow_the_clock_on_both_paths(own: Pair, set_back: bool) -> None:
    """max-age second by second before the refresh and before nextUpdate, and nothing from nextUpdate on (A35, A36)."""
    signed, seen = NOW - 3600, []
    seconds = [0, *range(72_000 - 1803, 72_000 - 1797), 71_999, 72_000, *range(172_799 - 63, 172_799 + 2)]
    moments = [second + part for second in seconds for part in (0, 0.5)]
    for moment in moments:
        for site in (own.fast, own.full):
            site.clock.step(signed + moment - site.clock.now())
        seen.append(own.agree([ASK, ASK]).fast)
        if set_back:
            for site in (own.fast, own.full):
                site.clock.step(NOW - site.clock.now())
            assert own.agree([ASK]).fast == 1
    assert seen == [2 if moment < 172_799 else 0 for moment in moments]


def change(pair: Pair, *, heartbeat: int = NOW, catalog: Catalog = CATALOG) -> None:
    """Both workers take note of another state of the cache."""
    for site in (pair.fast, pair.full):
        site.reader.heartbeat = heartbeat
        site.reader.catalog_now = catalog
        site.reader.generation = (1, site.reader.generation[1] + 1)
        site.worker.refresh()


def test_a_cache_that_is_too_old_serves_no_remembered_good(own: Pair) -> None:
    """Freshness decides for the fast path too: `good` becomes tryLater, `revoked` stays."""
    revoked = get(build_request(DV.cert_id(REVOKED)))
    assert own.agree([ASK, revoked]).fast == 2
    change(own, heartbeat=NOW - 90_000)
    assert status(own, fast_answers=0) == ERRORS["try_later"]
    assert status(own, revoked, fast_answers=1) == Status(1, NOW - 7200)
    change(own)
    assert status(own, fast_answers=1) == Status(None, 0)


def test_a_changed_catalog_is_followed(own: Pair) -> None:
    """Another max-age, an issuer that has gone, a signer that has come: nothing remembered outlives the view."""
    assert b"max-age=1800," in own.agree([ASK]).octets
    rows = {1: replace(DV.row, max_age=60), 2: OV.row}
    change(own, catalog=Catalog(rows, CATALOG.templates))
    assert b"max-age=60," in own.agree([ASK]).octets
    change(own, catalog=Catalog({2: OV.row}, CATALOG.templates))
    assert status(own, fast_answers=0) == ERRORS["malformed_request"]  # /tls-dv is no path of anybody now
    change(own, catalog=Catalog(CATALOG.issuers, {2: OV.template_row}))
    assert status(own, fast_answers=0) == ERRORS["try_later"]
    change(own)
    assert status(own, fast_answers=1) == Status(None, 0)


def test_a_view_that_does_not_change_is_kept(own: Pair) -> None:
    """A new heartbeat each second does not cost the memos."""
    view = own.fast.worker.responder.view
    own.fast.clock.step(1)
    own.fast.reader.heartbeat += 1
    own.fast.worker.refresh()
    assert own.fast.worker.responder.view is view


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.INTERNAL])
def test_a_cache_that_cannot_be_read_is_left_to_the_full_path(own: Pair, kind: Kind) -> None:
    """tryLater or internalError, as the full path words it."""

    def fail(_: bytes) -> bytes | None:
        raise QuashError("cache.unreadable", "damaged", kind)

    own.agree([ASK])
    for site in (own.fast, own.full):
        site.reader.fail = fail
    expected = ERRORS["try_later" if kind is Kind.UNAVAILABLE else "internal_error"]
    assert status(own, fast_answers=0) == expected


@pytest.mark.parametrize("record", [b"", b"\x01short", b"\x09" * 145])
def test_a_record_that_is_none_is_left_to_the_full_path(own: Pair, record: bytes) -> None:
    """Octets in the cache that we did not write are never served."""
    put(own, record)
    assert status(own, fast_answers=0) == ERRORS["internal_error"]


def sign(pair: Pair, ago: int, reason: int | None) -> None:
    """Another record, as if signed a while ago."""
    at = int(pair.fast.clock.now()) - ago
    revoked = None if reason is None else (reason, at - 100)
    put(pair, DV.record(GOOD, at, revoked=revoked, version=0 if reason is None else 1))


def wait(pair: Pair, seconds: float) -> None:
    """Both clocks move, or are set back."""
    for site in (pair.fast, pair.full):
        site.clock.step(seconds)


def hear(pair: Pair, ago: int, max_age: int) -> None:
    """Another freshness, another catalog."""
    catalog = Catalog({1: replace(DV.row, max_age=max_age), 2: OV.row}, CATALOG.templates)
    change(pair, heartbeat=int(pair.fast.clock.now()) - ago, catalog=catalog)


def ask(pair: Pair, request: bytes) -> None:
    pair.agree([request, request])


REQUESTS = [  # all of one certificate, so that what is remembered meets what has changed
    method(build_request(DV.cert_id(GOOD, h), nonce))
    for method in (get, post)
    for h in CertIdHash
    for nonce in (None, b"n" * 16)
]
STEPS: list[Callable[[Pair], None]] = [
    *(partial(sign, ago=ago, reason=reason) for ago in (0, 59, 72_000 - 1805, 172_790) for reason in (None, 0, 1)),
    partial(put, record=b"\x09" * 145),
    *(partial(wait, seconds=seconds) for seconds in (0.4, 1, 2, 60, 1800, -0.4, -1, -1800)),
    *(partial(hear, ago=ago, max_age=max_age) for ago in (0, 61, 90_000) for max_age in (60, 1800)),
    *(partial(ask, request=request) for request in REQUESTS * 3),
]


@given(st.lists(st.sampled_from(STEPS), min_size=20, max_size=60))
@settings(max_examples=120, deadline=None)
def test_whatever_happens_between_requests_both_paths_say_the_same(steps: list[Callable[[Pair], None]]) -> None:
    """Records signed and replaced, clocks that move and are set back, caches that age: nothing outlives its truth."""
    with own_loop() as loop:
        pair = loop.run_until_complete(make_pair(loop))
        for step in steps:
            step(pair)


def test_an_issuers_path_answers_for_that_issuer_alone(own: Pair) -> None:
    """G45: neither with another issuer's CertID before nor after."""
    elsewhere = get(build_request(DV.cert_id(GOOD)), prefix="/demo/ca1")
    assert own.agree([ASK]).fast == 1
    assert status(own, elsewhere, fast_answers=0) == ERRORS["unauthorized"]
    assert status(own, get(build_request(DV.cert_id(GOOD)), prefix=""), fast_answers=1) == Status(None, 0)


def test_the_memos_are_bounded(own: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many certificates and kinds of header are asked with, and the answers stay right."""
    monkeypatch.setattr(fast, "MEMO", 3)
    monkeypatch.setattr(fast, "HEADS", 2)
    path = own.fast.worker.fast
    for number in range(1, 40):
        serial = bytes((number % 13 + 1,))
        record = DV.record(serial, NOW)
        for site in (own.fast, own.full):
            site.reader.records[layout.record_key(1, serial)] = record
        der = build_request(DV.cert_id(serial, list(CertIdHash)[number % 2]))
        for request in (get(der, headers=f"Host: {number}\r\n"), post(der)):
            said = own.agree([request])
            assert said.fast == 1
            assert len(path._known) <= 3
            assert len(path._lines) <= 3
            assert len(path._made) <= 3
            assert len(path._heads) <= 2


def test_nonces_are_not_remembered(own: Pair) -> None:
    """Each is another text, so a memo of them would push out what comes again; A27: the answer carries none."""
    for number in range(5):
        assert own.agree([post(build_request(DV.cert_id(GOOD), b"%016d" % number))]).fast == 1
    assert own.fast.worker.fast._lines == own.fast.worker.fast._known == {}
    assert len(own.fast.worker.fast._made) == 1


def test_the_date_is_the_clocks(own: Pair) -> None:
    """It changes with the second, and the answer around it does not."""
    site = own.fast

    async def ask() -> bytes:
        connection, wire = site.connect()
        connection.data_received(ASK)
        wire.close()
        await asyncio.sleep(0)
        return wire.written

    for now in (NOW, NOW + 0.9, NOW + 1, NOW + 86_400):
        site.clock.step(now - site.clock.now())
        assert f"\r\nDate: {http_date(int(now))}\r\n".encode() in own.loop.run_until_complete(ask())


def test_answers_are_counted_once(own: Pair) -> None:
    """By path, method, outcome and hash (A20), when the worker hands them over."""

    def counted(source: str, method: str, outcome: str, h: str) -> float:
        return ANSWERS.labels(source, method, 200, outcome, h, "tls-dv")._value.get()  # type: ignore[no-any-return]

    labels = [("fast", m, o, h) for m in ("GET", "POST") for o in ("good", "revoked") for h in ("sha1", "sha256")]
    before = [counted(*label) for label in labels]
    requests = [
        method(build_request(DV.cert_id(serial, h)))
        for method in (get, post)
        for serial in (GOOD, REVOKED)
        for h in CertIdHash
    ]

    async def ask() -> None:
        connection, wire = own.fast.connect()
        for count, request in enumerate(requests, 1):
            for _ in range(count):
                connection.data_received(request)
        wire.close()
        await asyncio.sleep(0)

    own.loop.run_until_complete(ask())
    own.fast.worker.count()
    own.fast.worker.count()
    assert [counted(*label) - b for label, b in zip(labels, before, strict=True)] == list(range(1, 9))


HEAD = b"Host: x\r\nAccept: */*\r\n"


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (HEAD + b"\r\n", NO_BODY),
        (b"HOST: x\r\n\r\n", NO_BODY),
        (HEAD + b"Content-Length: 76\r\n\r\n", 76),
        (HEAD + b"X-Any-Thing-9: a, b; c\r\nconnection: KEEP-ALIVE\r\n\r\n", NO_BODY),
        (b"Accept: */*\r\n\r\n", None),  # no Host
        (HEAD, None),
        (HEAD + b"\r\n\r\n", None),
        (HEAD + b"host: y\r\n\r\n", None),
        (HEAD + b"accept: */*\r\n\r\n", None),
        (HEAD + b"Content-Length: 0\r\n\r\n", None),
        (HEAD + b"Content-Length: 076\r\n\r\n", None),
        (HEAD + b"Content-Length: 76, 76\r\n\r\n", None),
        (HEAD + b"Content-Length: 99999\r\n\r\n", None),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", None),
        (HEAD + b"Connection: close\r\n\r\n", None),
        (HEAD + b"If-None-Match: *\r\n\r\n", None),
        (HEAD + b"Expect: 100-continue\r\n\r\n", None),
        (HEAD + b"Upgrade: h2c\r\n\r\n", None),
        (HEAD + b"Unheard-Of: a\r\n\r\n", None),
        (HEAD + b"X-: a\r\n\r\n", None),
        (HEAD + b"X-A_B: a\r\n\r\n", None),
        (HEAD + b"X-A : a\r\n\r\n", None),
        (HEAD + b"X-A:a\r\n\r\n", None),
        (HEAD + b"X-A: \r\n\r\n", None),
        (HEAD + b"X-A: a \r\n\r\n", None),
        (HEAD + b"X-A:  a\r\n\r\n", None),
        (HEAD + b"X-A: a\r\n b\r\n\r\n", None),
        (HEAD + b"X-A: a\nX-B: b\r\n\r\n", None),
        (HEAD + b"X-A: \xe9\r\n\r\n", None),
        (HEAD + b"X-A: a\0\r\n\r\n", None),
        (HEAD + b"X-A: a\tb\r\n\r\n", None),
        (HEAD + b"X-A: " + b"a" * MAX_HEAD + b"\r\n\r\n", None),
    ],
)
def test_which_headers_are_plain(head: bytes, length: int | None) -> None:
    """Known, harmless fields, each once, in the usual spelling."""
    assert body_length(b"\n" + head) == length
    assert body_length(head) is None


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (b"GET /tls-dv/MFE+/= HTTP/1.1", b"/tls-dv/MFE+/="),
        (b"GET /MFE%2B%2f%3d HTTP/1.1", b"/MFE%2B%2f%3d"),
        (b"GET //MFE HTTP/1.1", None),
        (b"GET / HTTP/1.1", None),
        (b"GET MFE HTTP/1.1", None),
        (b"GET /MFE%4d HTTP/1.1", None),
        (b"GET /MFE%2 HTTP/1.1", None),
        (b"GET /MFE? HTTP/1.1", None),
        (b"GET /MFE# HTTP/1.1", None),
        (b"GET /../MFE HTTP/1.1", None),
        (b"GET  /MFE HTTP/1.1", None),
        (b"GET /MFE  HTTP/1.1", None),
        (b"GET /M FE HTTP/1.1", None),
        (b"GET /MFE HTTP/1.1 ", None),
        (b"GET /MFE HTTP/1.1\n", None),
        (b"GET /MFE HTTP/1.0", None),
        (b"GET /MFE HTTP/1.11", None),
        (b"get /MFE HTTP/1.1", None),
        (b"HEAD /MFE HTTP/1.1", None),
        (b"GET /" + b"M" * MAX_LINE + b" HTTP/1.1", None),
    ],
)
def test_which_lines_are_plain(line: bytes, target: bytes | None) -> None:
    """Exact method and version, single spaces, nothing in the target that could be read in two ways."""
    assert get_target(line) == target
    assert post_target(line) is None


def test_a_long_line_of_escapes_costs_no_time() -> None:
    """The expression has one way to match: a refused line of 512 octets is no exponential search."""
    for filler in (b"M", b"%2F", b"%2FM"):
        assert get_target(b"GET /" + (filler * MAX_LINE)[: MAX_LINE - 20] + b"! HTTP/1.1") is None


@given(st.binary(min_size=1, max_size=90))
def test_every_request_that_openssl_might_send_is_plain(der: bytes) -> None:
    """Base64 of anything, escaped as clients escape it."""
    target = "/tls-dv/" + quote(base64.b64encode(der).decode(), safe="")
    assert get_target(f"GET {target} HTTP/1.1".encode()) == target.encode()
