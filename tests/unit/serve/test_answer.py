"""The answer as a pure function: every odd request, every state of the cache."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quash.cache import layout
from quash.cache.writer import Catalog
from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.certid import CertIdHash, encode_certid
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_request import build_request
from quash.pki.ocsp_response import ERRORS
from responder.serve.answer import Answer, Limits, Request, Responder, route
from responder.serve.freshness import Freshness
from responder.serve.httpdate import http_date
from responder.serve.view import Directory, View, directory_of
from tests.support.ocsp_issuer import OcspIssuer

NOW = 1_800_000_000
DV = OcspIssuer(1, "tls-dv", 1)
OV = OcspIssuer(2, "demo/ca1", 2)
DIRECTORY = directory_of(Catalog({1: DV.row, 2: OV.row}, {1: DV.template_row, 2: OV.template_row}))
GOOD, REVOKED, EXPIRED, ELSEWHERE, STRAY, MISSING = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06"
RECORDS = {
    layout.record_key(1, GOOD): DV.record(GOOD, NOW - 3600),
    layout.record_key(1, REVOKED): DV.record(REVOKED, NOW - 3600, revoked=(1, NOW - 7200)),
    layout.record_key(1, EXPIRED): DV.record(EXPIRED, NOW - 172_799),
    layout.record_key(2, ELSEWHERE): OV.record(ELSEWHERE, NOW - 3600),
    layout.record_key(1, STRAY): OcspIssuer(1, "tls-dv", 9).record(STRAY, NOW - 3600),
}
LIMITS = Limits(target=4096, body=16_384, refresh_every=72_000)


def responder(freshness: Freshness = Freshness.FRESH, get: Callable[[bytes], bytes | None] = RECORDS.get) -> Responder:
    """A responder for both issuers."""
    made = Responder(get, LIMITS)
    made.view = View(DIRECTORY, freshness)
    return made


def asking(serial: bytes, issuer: OcspIssuer = DV, algorithm: CertIdHash = CertIdHash.SHA256) -> bytes:
    """The DER of a request."""
    return build_request(issuer.cert_id(serial, algorithm))


def path_of(request: bytes, prefix: str = "") -> bytes:
    """The target of a GET, as RFC 9919 writes it."""
    return f"{prefix}/{quote(base64.b64encode(request), safe='')}".encode()


def post(body: bytes, target: bytes = b"/", now: float = NOW, freshness: Freshness = Freshness.FRESH) -> Answer:
    """The answer to a POST."""
    return responder(freshness).answer(Request("POST", target, body), now)


def get(target: bytes, now: float = NOW, method: str = "GET", **conditions: str) -> Answer:
    """The answer to a GET."""
    return responder().answer(Request(method, target, **conditions), now)


@pytest.mark.parametrize("algorithm", list(CertIdHash))
@pytest.mark.parametrize(("serial", "outcome"), [(GOOD, "good"), (REVOKED, "revoked")])
def test_get_and_post_give_the_same_signed_answer(serial: bytes, outcome: str, algorithm: CertIdHash) -> None:
    """Both methods, both CertID hashes (A20): a response that verifies, for the CertID asked for."""
    posted = post(asking(serial, DV, algorithm))
    got = get(path_of(asking(serial, DV, algorithm)))
    assert posted == got
    assert (posted.status, posted.outcome, posted.hash) == (200, outcome, algorithm.value)
    parsed = verify_response(posted.body, DV.row.certificate)
    assert parsed.cert_id == DV.cert_id(serial, algorithm)
    assert (parsed.this_update, parsed.next_update) == (NOW - 3600, NOW - 3600 + 172_799)
    assert parsed.status == ((None, 0) if outcome == "good" else (1, NOW - 7200))


def test_headers_of_a_cacheable_answer() -> None:
    """A35: type, strong ETag of the response, the response's own dates, max-age; A37: nothing that forbids caching."""
    answer = post(asking(GOOD))
    assert dict(answer.headers) == {
        "Content-Type": "application/ocsp-response",
        "ETag": f'"{hashlib.sha256(answer.body).hexdigest()}"',
        "Last-Modified": http_date(NOW - 3600),
        "Expires": http_date(NOW - 3600 + 172_799),
        "Cache-Control": "max-age=1800, public, no-transform, must-revalidate",
    }


SIGNED_AT = NOW - 3600
DUE, END = SIGNED_AT + 72_000, SIGNED_AT + 172_799


@pytest.mark.parametrize(
    ("now", "age"),
    [
        *((SIGNED_AT, 1800), (DUE - 1801, 1800), (DUE - 1800, 1800), (DUE - 1799, 1799), (DUE - 1, 1)),
        *((DUE, 60), (DUE + 50_000, 60), (END - 61, 60), (END - 60, 59), (END - 2, 1), (END - 1, 0)),
    ],
)
def test_max_age_ends_before_the_next_refresh_and_next_update(now: int, age: int) -> None:
    """A35, A36: now + max-age is past neither; while a refresh is overdue, caches still keep an answer for a minute."""
    for at in (now, now + 0.999):
        answer = post(asking(GOOD), now=at)
        assert f"max-age={age}," in dict(answer.headers)["Cache-Control"]
        assert at < answer.until <= END
        assert post(asking(GOOD), now=answer.until - 1).headers == answer.headers
        if answer.until < END:
            assert post(asking(GOOD), now=answer.until).headers != answer.headers


@pytest.mark.parametrize("serial", [GOOD, REVOKED])
def test_nothing_is_served_past_next_update(serial: bytes) -> None:
    """From nextUpdate on the answer is tryLater, good or revoked."""
    end = NOW - 3600 + 172_799
    assert post(asking(serial), now=end - 0.001).outcome in ("good", "revoked")
    for now in (end, end + 1, end + 86_400):
        answer = post(asking(serial), now=now)
        assert (answer.outcome, answer.body) == ("try_later", ERRORS["try_later"])


FRESHNESS = {
    Freshness.FRESH: ("good", "revoked", "unauthorized"),
    Freshness.STALE: ("good", "revoked", "try_later"),
    Freshness.UNREADY: ("good", "revoked", "try_later"),
    Freshness.TOO_OLD: ("try_later", "revoked", "try_later"),
    Freshness.FILLING: ("try_later", "revoked", "try_later"),
}


@pytest.mark.parametrize("freshness", list(Freshness))
def test_what_is_said_in_each_state(freshness: Freshness) -> None:
    """Good, revoked and a miss in every state of the cache."""
    said = tuple(post(asking(serial), freshness=freshness).outcome for serial in (GOOD, REVOKED, MISSING))
    assert said == FRESHNESS[freshness]


def two_requests() -> bytes:
    """A request for two certificates."""
    both = b"".join(der.tlv(der.SEQUENCE, encode_certid(DV.cert_id(serial))) for serial in (GOOD, REVOKED))
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, both)))


SHA384_CERTID = bytes.fromhex("300d06096086480165030402020500")


def other_hash() -> bytes:
    """A request whose CertID uses SHA-384."""
    certid = der.tlv(
        der.SEQUENCE,
        SHA384_CERTID,
        der.tlv(der.OCTET_STRING, b"n" * 48),
        der.tlv(der.OCTET_STRING, b"k" * 48),
        der.tlv(der.INTEGER, GOOD),
    )
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, certid))))


def wrong_key() -> bytes:
    """A request with our name hash and another key hash."""
    return build_request(DV.cert_id(GOOD)._replace(key_hash=OV.cert_id(GOOD).key_hash))


ODD_BODIES = {
    "empty": (b"", "malformed_request"),
    "garbage": (b"garbage", "malformed_request"),
    "cut short": (asking(GOOD)[:-1], "malformed_request"),
    "trailing octet": (asking(GOOD) + b"\0", "malformed_request"),
    "zero certificates": (bytes.fromhex("300430023000"), "malformed_request"),
    "nonce of 16": (build_request(DV.cert_id(GOOD), b"n" * 16), "good"),
    "nonce of 1": (build_request(DV.cert_id(GOOD), b"n"), "good"),
    "nonce of 128": (build_request(DV.cert_id(GOOD), b"n" * 128), "good"),
    "nonce of 0": (build_request(DV.cert_id(GOOD), b""), "malformed_request"),
    "nonce of 129": (build_request(DV.cert_id(GOOD), b"n" * 129), "malformed_request"),
    "two certificates": (two_requests(), "unauthorized"),
    "hash not served": (other_hash(), "unauthorized"),
    "unknown serial": (asking(MISSING), "unauthorized"),
    "serial of 65 octets": (asking(b"\x01" * 65), "unauthorized"),
    "serial of 5000 octets": (asking(b"\x01" * 5000), "unauthorized"),
    "unknown issuer": (asking(GOOD, OcspIssuer(7, "stranger", 7)), "unauthorized"),
    "wrong issuer key hash": (wrong_key(), "unauthorized"),
    "expired record": (asking(EXPIRED), "try_later"),
    "unknown signer": (asking(STRAY), "unknown_signer"),
    "as large as allowed": (asking(GOOD).ljust(16_384, b"\0"), "malformed_request"),
}


@pytest.mark.parametrize("name", ODD_BODIES)
def test_odd_requests_by_post(name: str) -> None:
    """Each odd body has its OCSP status, in HTTP 200; errors are unsigned (A11) and not to be kept (A37)."""
    body, outcome = ODD_BODIES[name]
    answer = post(body)
    assert (answer.status, answer.outcome) == (200, outcome)
    if outcome != "good":
        assert answer.body == ERRORS["try_later" if outcome == "unknown_signer" else outcome]
        assert dict(answer.headers) == {"Content-Type": "application/ocsp-response", "Cache-Control": "no-store"}


@pytest.mark.parametrize("name", ODD_BODIES)
def test_odd_requests_by_get(name: str) -> None:
    """The same by GET, but for what is too long for a URL."""
    body, outcome = ODD_BODIES[name]
    target = path_of(body)
    answer = get(target)
    assert (answer.status, answer.outcome) == ((414, "http") if len(target) > LIMITS.target else (200, outcome))


B64 = base64.b64encode(asking(GOOD)).decode()
# A request whose base64 holds `+` and `/`, so that the odd spellings differ.
SPECIAL = next(
    text
    for number in range(1, 5000)
    if {"+", "/"}
    <= set(text := base64.b64encode(build_request(OV.cert_id(number.to_bytes(3, "big").lstrip(b"\0")))).decode())
    and number < 0x7F0000
)
SPELLINGS = {
    "as it is": SPECIAL,
    "escaped": quote(SPECIAL, safe=""),
    "escaped in lower case": SPECIAL.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d"),
    "slashes left": quote(SPECIAL, safe="/"),
    "everything escaped but the first": SPECIAL[0] + "".join(f"%{ord(c):02X}" for c in SPECIAL[1:]),
    "plus as an escaped space": SPECIAL.replace("+", "%20"),
    "plus as a space": SPECIAL.replace("+", " "),
    "base64url": SPECIAL.replace("+", "-").replace("/", "_"),
    "without padding": SPECIAL.rstrip("="),
    "with a query": SPECIAL + "?x=1",
}


@pytest.mark.parametrize(
    "prefix", ["/", "//", "///", "/demo/ca1/", "//demo/ca1/", "/demo/ca1//", "http://host/", "http://h:8080/demo/ca1/"]
)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_a_get(spelling: str, prefix: str) -> None:
    """A33: each way in which clients and proxies write the same request reaches the same (here: missing) record."""
    assert get((prefix + SPELLINGS[spelling]).encode()).outcome == "unauthorized"


BAD_PATHS = [
    *("", "*", "?", "/", "//", "/tls-dv", "/tls-dv/", "/%", "/%zz", "/M", "/%4D%46", "/favicon.ico"),
    *("/" + B64[:-5] + "%", "/*" + B64, "/" + B64[:5] + "\n" + B64[5:], "/" + B64 + "====x", "/unknown/" + B64),
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_is_no_request_is_malformed(path: str) -> None:
    """Bad base64, bad escapes, bad DER, nothing at all: malformedRequest, never an exception."""
    answer = get(path.encode())
    assert (answer.status, answer.body) == (200, ERRORS["malformed_request"])


@pytest.mark.parametrize(
    ("target", "serial", "issuer", "outcome"),
    [
        ("/tls-dv", GOOD, DV, "good"),
        ("/tls-dv/", GOOD, DV, "good"),
        ("//tls-dv", GOOD, DV, "good"),
        ("/", GOOD, DV, "good"),
        ("/", ELSEWHERE, OV, "good"),
        ("/demo/ca1", ELSEWHERE, OV, "good"),
        ("/tls-dv", ELSEWHERE, OV, "unauthorized"),
        ("/demo/ca1", GOOD, DV, "unauthorized"),
        ("/demo/ca1?x", GOOD, DV, "unauthorized"),
        ("http://host", GOOD, DV, "good"),
    ],
)
def test_an_issuers_path_answers_for_that_issuer_alone(
    target: str, serial: bytes, issuer: OcspIssuer, outcome: str
) -> None:
    """G45: `/` answers for all, an issuer's path for its own certificates; both by POST and by GET."""
    assert post(asking(serial, issuer), target.encode()).outcome == outcome
    if "?" not in target:
        assert get(path_of(asking(serial, issuer), target.rstrip("/"))).outcome == outcome


@pytest.mark.parametrize("target", ["/nowhere", "/tls-dv/more", "/demo", "/tls-dvx", "/demo/ca1x"])
def test_a_post_elsewhere_is_not_found(target: str) -> None:
    """A path that is not one of ours is 404, and only whole segments match."""
    answer = post(asking(GOOD), target.encode())
    assert (answer.status, answer.outcome) == (404, "http")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_not_denied_by_a_cache_that_may_lack_it(method: str) -> None:
    """While a cache is being filled or stale, an issuer's path may just not have come yet."""
    for freshness in set(Freshness) - {Freshness.FRESH}:
        request = Request(method, b"/new-issuer" + path_of(asking(GOOD)) * (method == "GET"), asking(GOOD))
        assert responder(freshness).answer(request, NOW).outcome == "try_later"


def test_the_longest_path_wins() -> None:
    """Of `a`, `a/b` and `a/b/c`, the longest that is a whole prefix is taken, whatever follows."""
    directory = Directory(paths={b"a": 1, b"a/b": 2, b"a/b/c": 3}, depth=3)
    assert route(b"/a/b/c/MFE/x", directory) == (3, b"MFE/x")
    assert route(b"/a/b/MFE//x", directory) == (2, b"MFE//x")
    assert route(b"/a/c/b", directory) == (1, b"c/b")
    assert route(b"/b/a/MFE", directory) == (None, b"b/a/MFE")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "get", "FOO", ""])
def test_other_methods_are_not_allowed(method: str) -> None:
    """A38: 405 with Allow."""
    answer = responder().answer(Request(method, path_of(asking(GOOD))), NOW)
    assert answer.status == 405
    assert dict(answer.headers)["Allow"] == "GET, HEAD, POST"


def test_sizes_have_limits() -> None:
    """413 and 414, and the connection ends."""
    posted = post(b"0" * 16_385)
    assert (posted.status, posted.close) == (413, True)
    got = get(b"/" + b"M" * 4096)
    assert (got.status, got.close) == (414, True)


ETAG = dict(get(path_of(asking(GOOD))).headers)["ETag"]
CONDITIONS = [
    ({"if_none_match": ETAG}, 304),
    ({"if_none_match": f'"a", W/{ETAG} , "b"'}, 304),
    ({"if_none_match": "*"}, 304),
    ({"if_none_match": '"a"'}, 200),
    ({"if_none_match": '"a"', "if_modified_since": http_date(NOW)}, 200),
    ({"if_none_match": ETAG, "if_modified_since": http_date(0)}, 304),
    ({"if_modified_since": http_date(NOW - 3600)}, 304),
    ({"if_modified_since": http_date(NOW)}, 304),
    ({"if_modified_since": http_date(NOW - 3601)}, 200),
    ({"if_modified_since": "yesterday"}, 200),
    ({"if_modified_since": "Fri, 99 Foo 2027 99:99:99 GMT"}, 200),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("conditions", "status"), CONDITIONS)
def test_conditional_requests(conditions: dict[str, str], status: int, method: str) -> None:
    """A38: 304 with ETag, dates and Cache-Control to whoever has this very response; ETags outrank dates."""
    answer = get(path_of(asking(GOOD)), method=method, **conditions)
    assert answer.status == status
    if status == 304:
        assert answer.body == b""
        assert dict(answer.headers).keys() == {"ETag", "Last-Modified", "Expires", "Cache-Control"}


def test_a_post_is_never_conditional() -> None:
    """Clients that POST expect the response itself."""
    answer = responder().answer(Request("POST", b"/", asking(GOOD), ETAG), NOW)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (QuashError("cache.unreadable", "damaged", Kind.UNAVAILABLE), "try_later"),
        (QuashError("cache.missing", "none", Kind.UNAVAILABLE), "try_later"),
        (QuashError("cache.bad_layout", "foreign", Kind.INTERNAL), "internal_error"),
    ],
)
def test_a_cache_that_cannot_be_read_is_an_ocsp_error(error: QuashError, outcome: str) -> None:
    """The asker gets an OCSP status, never a broken connection."""

    def fail(_: bytes) -> bytes | None:
        raise error

    assert responder(get=fail).answer(Request("POST", b"/", asking(GOOD)), NOW).outcome == outcome


HOLD = layout.encode_record(layout.Record(1, 6, NOW, NOW, NOW + 9, 1, (b"s" * 64, b"s" * 64)))


@pytest.mark.parametrize("record", [b"", b"\x01short", b"\x09" * 145, HOLD], ids=["empty", "short", "format", "hold"])
def test_a_record_that_is_none_is_an_internal_error(record: bytes) -> None:
    """Octets in the cache that we did not write, and reasons outside B11, are never served."""
    broken = responder(get=lambda _: record)
    assert broken.answer(Request("POST", b"/", asking(GOOD)), NOW).outcome == "internal_error"


@given(st.sampled_from(["GET", "POST", "HEAD", "PUT"]), st.binary(max_size=300), st.binary(max_size=300))
def test_no_request_raises(method: str, target: bytes, body: bytes) -> None:
    """Whatever arrives has an answer."""
    answer = responder().answer(Request(method, target, body), NOW)
    assert answer.status in (200, 404, 405)
