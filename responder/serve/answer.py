"""Flow 5, answer: an HTTP request's octets in, an HTTP answer out. Pure: no I/O but one look-up, no clock, no loop.

  1. method and sizes                 4. a look-up in the cache (a miss is an answer, A9)
  2. path -> issuer, request octets   5. freshness and nextUpdate decide what may be said
  3. request -> one CertID of ours    6. template + record -> response, its headers, 304 if the asker has it

OCSP errors are HTTP 200, as relying parties expect (A38); HTTP errors are for what is no OCSP request at all.
"""

from __future__ import annotations

import hashlib
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from quash.cache.layout import MAX_SERIAL, decode_record, record_key
from quash.errors import Kind, QuashError
from quash.pki.certid import CertId, CertIdHash
from quash.pki.ocsp_request import parse_request
from quash.pki.ocsp_response import ERRORS, Status
from quash.pki.rules import answers_late_after
from responder.serve.freshness import Freshness
from responder.serve.httpdate import http_date, parse_http_date
from responder.serve.view import Directory, ServedIssuer, View

Headers = tuple[tuple[str, str], ...]

_OCSP = ("Content-Type", "application/ocsp-response")
_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_NO_STORE = ("Cache-Control", "no-store")  # A37: nothing that is not signed is kept by a cache
_ONE_ASKERS = ("Cache-Control", "max-age=0, private, must-revalidate")  # A37 forbids no-store on what is signed
_REASONS = {
    400: "Bad request: this is not HTTP.",
    404: "Nothing is served here: POST to / or to an issuer's path.",
    405: "OCSP is asked with GET or POST.",
    408: "The request did not arrive in time.",
    413: "The request is larger than any OCSP request that is served here.",
    414: "The URL is longer than any OCSP request that is served here: POST it.",
    415: "OCSP requests are taken as they are, in no content coding.",
    431: "The request's header is too large.",
}
_LATE_MAX_AGE = 60  # seconds, while a refresh is overdue
# Clients write base64 for URLs in more than one way (A33): `+` that became a space, and base64url.
_LENIENT = bytes.maketrans(b" -_", b"++/")


class Ask(NamedTuple):
    """What a live signer could sign for one asker: about these certificates of one issuer, with the nonce if any.

    `versions`: of their records in the cache, which it must not fall behind.
    """

    cert_ids: tuple[CertId, ...]
    versions: tuple[int, ...]
    nonce: bytes | None


class Answer(NamedTuple):
    """An HTTP response, and what it is for the metrics.

    For HEAD, `body` is what GET would carry: the skin sends its length alone. `outcome` is an OCSP status, or `http`.
    Of a signed answer, `until` is the Unix second from which it has other headers, all else being as it is, `tail`
    is the end of the body that it shares with other answers, and `version` and `this_update` are the record's; from
    `late_at` on a newer one should have replaced it (0: made for one asker). An unsigned one has a `cause`. With `ask`,
    it is what is said when no live signer does better.
    """

    status: int
    headers: Headers
    body: bytes
    outcome: str
    hash: str = ""
    close: bool = False
    until: int = 0
    tail: bytes = b""
    version: int = 0
    this_update: int = 0
    late_at: int = 0
    issuer: str = ""
    serial: bytes = b""
    cause: str = ""
    ask: Ask | None = None


class Request(NamedTuple):
    """What an answer depends on. `target`: the raw request target; `body`: all of it, or more than the limit."""

    method: str
    target: bytes
    body: bytes = b""
    if_none_match: str = ""
    if_modified_since: str = ""


class Limits(NamedTuple):
    """Octets of a request target and of a body; `refresh_every`: seconds after which a record is signed anew (A4).

    `certificates`: in one request.
    """

    target: int
    body: int
    refresh_every: int
    certificates: int = 1


def http_error(status: int, *headers: tuple[str, str]) -> Answer:
    """An answer to what is no OCSP request; the connection does not survive it, except after 404 and 405."""
    body = (_REASONS.get(status, _REASONS[400]) + "\n").encode()
    return Answer(
        status, (_TEXT, _NO_STORE, *headers), body, "http", close=status not in (404, 405), cause=f"http_{status}"
    )


def _ocsp_error(name: str, cause: str, cert_id: CertId | None = None, issuer: ServedIssuer | None = None) -> Answer:
    return Answer(
        200,
        (_OCSP, _NO_STORE),
        ERRORS[name],
        name,
        cert_id.hash.value if cert_id else "",
        issuer=issuer.name if issuer else "",
        serial=cert_id.serial if cert_id else b"",
        cause=cause,
    )


METHOD_NOT_ALLOWED = http_error(405, ("Allow", "GET, HEAD, POST"))
ENCODED = http_error(415, ("Accept-Encoding", "identity"))  # RFC 9110 15.5.16
INTERNAL_ERROR = _ocsp_error("internal_error", "unforeseen")._replace(status=500, close=True)  # for what nobody foresaw
SIGNED = ("good", "revoked")  # the outcomes with a signature, which HTTP caches may keep
UNKNOWN_SIGNER = "unknown_signer"  # of a record whose signer is not in the view of the catalog


class Responder:
    """Answers requests from what `get` finds (an encoded record by key) and from `view`, which its owner replaces."""

    def __init__(self, get: Callable[[bytes], bytes | None], limits: Limits) -> None:
        self.view = View(Directory(), Freshness.FILLING)
        self._get = get
        self._limits = limits

    def answer(self, request: Request, now: float) -> Answer:
        """Answers one request at Unix time `now`.

        Never raises QuashError: a cache that cannot be read is tryLater, what nobody of us wrote in it internalError.
        """
        refused = _refusal(request, self._limits)
        if refused is not None:
            return refused
        posted = request.method == "POST"  # A34: its body is the request; some clients name no media type, or another
        issuer_id, rest = route(request.target, self.view.directory)
        lost = self._lost(rest, posted)
        if lost is not None:
            return lost
        try:
            cert_ids, nonce = parse_request(request.body if posted else request_of_path(rest))
            distinct = tuple(dict.fromkeys(cert_ids))
            if len(distinct) == 1:
                return self._answer_one(distinct[0], issuer_id, nonce, request, now)
            return self._answer_many(distinct, issuer_id, nonce, now)
        except QuashError as error:
            if error.code == "ocsp.malformed_request":
                return _ocsp_error("malformed_request", "malformed")
            return _ocsp_error("try_later" if error.kind is Kind.UNAVAILABLE else "internal_error", error.code)

    def _lost(self, rest: bytes, posted: bool) -> Answer | None:
        """What is said to a path that is neither an issuer's nor a request."""
        if not rest or (rest[:1] == b"M" and not posted):
            return None
        if not self.view.freshness.knows_misses:
            return _ocsp_error(
                "try_later", "cache_incomplete"
            )  # perhaps the path of an issuer that the cache does not hold yet
        return http_error(404) if posted else None

    def _answer_one(
        self, cert_id: CertId | None, path_issuer: int | None, nonce: bytes | None, request: Request, now: float
    ) -> Answer:
        answer, issuer = self._look_up(cert_id, path_issuer, now)
        if cert_id is None or issuer is None or answer.outcome not in SIGNED:
            return answer
        if nonce is not None and issuer.signs_nonces:
            return answer._replace(ask=Ask((cert_id,), (answer.version,), nonce))
        if request.method != "POST" and _has_it(request, answer.headers):
            return answer._replace(status=304, headers=answer.headers[1:], body=b"")
        return answer

    def _answer_many(
        self, cert_ids: tuple[CertId | None, ...], path_issuer: int | None, nonce: bytes | None, now: float
    ) -> Answer:
        """A22: a response about all of them is signed for this asker. It has one signer, so they have one issuer.

        The cache has the say here too: nothing is signed about what it holds no answer for.
        """
        if len(cert_ids) > self._limits.certificates:
            return _ocsp_error("unauthorized", "too_many_certificates")
        issuers, asked, versions = set(), [], []
        for cert_id in cert_ids:
            answer, issuer = self._look_up(cert_id, path_issuer, now)
            if cert_id is None or issuer is None or answer.outcome not in SIGNED:
                return answer
            issuers.add(issuer)
            asked.append(cert_id)
            versions.append(answer.version)
        if len(issuers) > 1:
            return _ocsp_error("unauthorized", "several_issuers")
        issuer = issuers.pop()
        said = nonce if issuer.signs_nonces else None
        return _ocsp_error("unauthorized", "no_live_signer", asked[0], issuer)._replace(
            ask=Ask(tuple(asked), tuple(versions), said)
        )

    def _look_up(
        self, cert_id: CertId | None, path_issuer: int | None, now: float
    ) -> tuple[Answer, ServedIssuer | None]:
        """The answer about one certificate, and its issuer if it is ours; None: its hash is one that names nobody."""
        if cert_id is None:
            return _ocsp_error("unauthorized", "unknown_hash"), None
        _, name_hash, key_hash, serial = cert_id
        issuer = self.view.directory.issuers.get(name_hash + key_hash)
        if issuer is not None and path_issuer is not None and path_issuer != issuer.issuer_id:
            return _ocsp_error("unauthorized", "other_issuers_path", cert_id, issuer), issuer
        data = None
        if issuer is not None and len(serial) <= MAX_SERIAL:
            data = self._get(record_key(issuer.issuer_id, serial))
        if issuer is None or data is None:
            # A9, A12: never `good` for what nobody vouched for, nor `revoked` (A10); no `unauthorized` from a cache
            # that may lack it.
            if not self.view.freshness.knows_misses:
                return _ocsp_error("try_later", "cache_incomplete", cert_id, issuer), issuer
            return _ocsp_error(
                "unauthorized", "unknown_serial" if issuer else "unknown_issuer", cert_id, issuer
            ), issuer
        return self.say(cert_id, issuer, data, now), issuer

    def say(self, cert_id: CertId, issuer: ServedIssuer, data: bytes, now: float) -> Answer:
        """What the encoded record `data` of that certificate has to say at `now`, whoever asks.

        Raises `cache.bad_layout` and `ocsp.reason_not_allowed` for what nobody of us wrote.
        """
        algorithm, _, _, serial = cert_id
        record = decode_record(data)
        if now >= record.next_update:
            return _ocsp_error("try_later", "past_next_update", cert_id, issuer)
        if record.reason is None and not self.view.freshness.serves_good:
            return _ocsp_error("try_later", "cache_too_old_for_good", cert_id, issuer)
        template = self.view.directory.templates.get(record.signer_id)
        if template is None:
            return _ocsp_error("try_later", UNKNOWN_SIGNER, cert_id, issuer)._replace(outcome=UNKNOWN_SIGNER)
        body = template.response(
            algorithm,
            serial,
            Status(record.reason, record.revoked_at),
            record.this_update,
            record.next_update,
            record.signatures[algorithm is CertIdHash.SHA256],
        )
        age, until = self._max_age(record.this_update, record.next_update, issuer.max_age, int(now))
        headers = _headers(body, record.this_update, record.next_update, age)
        outcome = SIGNED[record.reason is not None]
        return Answer(
            200,
            headers,
            body,
            outcome,
            algorithm.value,
            until=until,
            tail=template.tail,
            version=record.version,
            this_update=record.this_update,
            late_at=record.this_update + answers_late_after(record.next_update - record.this_update),
            issuer=issuer.name,
            serial=serial,
        )

    def _max_age(self, this_update: int, next_update: int, max_age: int, now: int) -> tuple[int, int]:
        """(what HTTP caches are told to keep an answer, seconds; the Unix second from which they are told otherwise).

        A35, A36: never past the next refresh nor to nextUpdate. A refresh that is late may come any moment; caches go
        on relieving us a little meanwhile.
        """
        due = this_update + self._limits.refresh_every
        wanted, end = (max_age, due) if now < due else (min(max_age, _LATE_MAX_AGE), next_update)
        end = min(end, next_update - 1)
        return (wanted, end - wanted + 1) if now + wanted <= end else (max(0, end - now), now + 1)


def live_answer(outcome: str, body: bytes, otherwise: Answer, this_update: int) -> Answer:
    """A response that was signed for one asker, in place of another one."""
    return otherwise._replace(
        headers=(_OCSP, _ONE_ASKERS),
        body=body,
        outcome=outcome,
        this_update=this_update,
        late_at=0,
        cause="",
        until=0,
        tail=b"",
    )


def too_busy(otherwise: Answer) -> Answer:
    """What is said in place of an error when a live signer might do better in a moment."""
    if otherwise.outcome in SIGNED:
        return otherwise
    return otherwise._replace(body=ERRORS["try_later"], outcome="try_later", cause="live_signer_busy")


def _refusal(request: Request, limits: Limits) -> Answer | None:
    """What is no OCSP request by its method or size."""
    if request.method not in ("GET", "HEAD", "POST"):
        return METHOD_NOT_ALLOWED
    if len(request.target) > limits.target:
        return http_error(414)
    return http_error(413) if len(request.body) > limits.body else None


def route(target: bytes, directory: Directory) -> tuple[int | None, bytes]:
    """(issuer whose path is the longest whole prefix of the target, or None; what follows it, without leading slashes).

    Works on raw octets, since the base64 of a GET holds slashes of its own (A33). It begins with `M`, and no path does.
    """
    if target[:1] != b"/" and b"://" in target:  # absolute-form (RFC 9112 3.2.2)
        target = target[target.index(b"://") + 3 :].partition(b"/")[2]
    rest = target.partition(b"?")[0].lstrip(b"/")
    if rest[:1] == b"M" or not rest:
        return None, rest
    segments = rest.split(b"/", directory.depth)
    for count in range(min(directory.depth, len(segments)), 0, -1):
        issuer_id = directory.paths.get(b"/".join(segments[:count]))
        if issuer_id is not None:
            return issuer_id, b"/".join(segments[count:]).lstrip(b"/")
    return None, rest


def request_of_path(text: bytes) -> bytes:
    """The DER of a GET's path (A31): base64, url-escaped or not, also base64url and without padding (A33).

    Raises `ocsp.malformed_request`.
    """
    if b"%" in text:
        text = unquote_to_bytes(text)
    text = text.translate(_LENIENT).rstrip(b"=")
    try:
        return a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    except Base64Error:
        raise QuashError("ocsp.malformed_request", "the path is not the base64 of an OCSP request") from None


def _headers(body: bytes, this_update: int, next_update: int, age: int) -> Headers:
    """A35: the dates of the response itself, a strong ETag. Without Content-Location no cache keeps a POST's (A39)."""
    return (
        _OCSP,
        ("ETag", f'"{hashlib.sha256(body).hexdigest()}"'),
        ("Last-Modified", http_date(this_update)),
        ("Expires", http_date(next_update)),
        ("Cache-Control", f"max-age={age}, public, no-transform, must-revalidate"),
    )


def _has_it(request: Request, headers: Headers) -> bool:
    """Whether the asker's copy is this response (A38): If-None-Match decides where it is given (RFC 9110 13.2.2)."""
    (_, etag), (_, last_modified) = headers[1:3]
    if request.if_none_match:
        given = [tag.strip().removeprefix("W/") for tag in request.if_none_match.split(",")]
        return etag in given or given == ["*"]
    if not request.if_modified_since:
        return False
    if request.if_modified_since == last_modified:
        return True
    since, modified = parse_http_date(request.if_modified_since), parse_http_date(last_modified)
    return since is not None and modified is not None and modified <= since
