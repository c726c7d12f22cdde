"""The fast path: a plain request whose record is in the cache, answered from its octets to octets, in one call.

`plain` says which requests these are; the words and headers of an answer are those of the full path, made by the same
`Responder.say`. Memos save doing the same again:

  * what a request asks, by all its octets, or by its line (and body) alone when its header fields are plain, which is
    remembered too: functions of octets and view. All octets only when the fields came before: CDNs number requests;
  * the assembled answer, *good only for the very record it was made from*: every request reads its record, so a
    revocation is seen at once, and only while its headers say the same (`Answer.until`; a clock that is set back makes
    it anew).

All is forgotten when the view of the catalog or of the freshness is another one, and when a memo is full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from quash.cache.layout import record_key
from quash.errors import QuashError
from quash.pki.certid import CertId, CertIdHash
from quash.pki.ocsp_request import parse_plain_request
from responder.serve.answer import SIGNED, Responder, request_of_path, route
from responder.serve.httpdate import http_date
from responder.serve.plain import NO_BODY, body_length, get_target, post_target
from responder.serve.view import ServedIssuer
from responder.serve.wire import render_ok

MEMO = 20_000  # request lines, and answers: some 40 MB when full
HEADS = 1_024  # header fields: they hardly differ between the requests of one client


@dataclass(slots=True, eq=False)
class _Made:
    """An assembled answer: from which record, for which Unix seconds, and the octets around the Date.

    `tail` is one object for all answers of a signer: its certificate is the greater part of an answer.
    """

    record: bytes
    since: int
    until: int
    before: bytes
    after: bytes
    tail: bytes
    outcome: str


_NEVER = _Made(b"", 0, 0, b"", b"", b"", "")


@dataclass(slots=True, eq=False)
class _Asked:
    """What a request asks, and what it was answered last. `key`: the record's. `tally`: where the answer is counted."""

    key: bytes
    cert_id: CertId
    issuer: ServedIssuer
    method: str
    nonce: bool
    made: _Made = _NEVER
    tally: int = 0


class Counted(NamedTuple):
    """Answers since the last time; labels as in the metric."""

    method: str
    outcome: str
    hash: str
    answers: int


_TALLIES = [(method, outcome, h.value) for method in ("GET", "POST") for outcome in SIGNED for h in CertIdHash]
_TALLY = {tally: index for index, tally in enumerate(_TALLIES)}


class FastPath:
    """Answers for `responder`; `get` finds an encoded record by key and may raise QuashError, `now` is Unix time."""

    def __init__(self, responder: Responder, get: Callable[[bytes], bytes | None], now: Callable[[], float]) -> None:
        self._responder = responder
        self._get = get
        self._now = now
        self._counts = [0] * len(_TALLIES)
        self._second = 0
        self._date = b""
        self._forget()

    def answer(self, data: bytes) -> bytes | None:
        """The whole answer to `data`, all that has arrived; None: not one that is answered here.

        What it answers is one complete request, with nothing after it.
        """
        if self._view is not self._responder.view:
            self._forget()
        asked = self._whole.get(data)
        if asked is None:
            asked = self._read(data)
            if asked is None:
                return None
        try:
            record = self._get(asked.key)
        except QuashError:
            return None
        second = int(self._now())
        made = asked.made
        if made.record != record or not made.since <= second < made.until:
            renewed = self._renew(asked, record, second)
            if renewed is None:
                return None
            made = renewed
        if second != self._second:
            self._second, self._date = second, http_date(second).encode()
        self._counts[asked.tally] += 1
        return b"".join((made.before, self._date, made.after, made.tail))

    def take_counts(self) -> Iterator[Counted]:
        """What was answered since the last call."""
        for index, (method, outcome, hash_name) in enumerate(_TALLIES):
            count, self._counts[index] = self._counts[index], 0
            if count:
                yield Counted(method, outcome, hash_name, count)

    def _forget(self) -> None:
        self._view = self._responder.view
        self._whole: dict[bytes, _Asked] = {}
        self._lines: dict[bytes, _Asked] = {}
        self._heads: dict[bytes, int] = {}
        self._made: dict[tuple[bytes, CertIdHash], _Made] = {}

    def _read(self, data: bytes) -> _Asked | None:
        """What a request asks that is not remembered as a whole, if it is a plain one."""
        line, _, rest = data.partition(b"\r")  # `rest` begins with the LF
        end = rest.find(b"\r\n\r\n") + 4  # of nothing: 3, and no header of 3 octets is plain
        head, body = rest[:end], rest[end:]
        length = self._heads.get(head)
        known = length is not None
        if length is None:
            length = body_length(head)
        if length != (len(body) or NO_BODY):
            return None
        text = b"%b\r%b" % (line, body)  # no request line has a CR within
        asked = self._lines.get(text) or (self._posted(line, body) if body else self._got(line))
        if asked is None:
            return None
        if len(self._lines) >= MEMO or len(self._whole) >= MEMO:
            self._forget()
        if len(self._heads) >= HEADS:
            self._heads.clear()
        self._heads[head] = length
        if not asked.nonce:  # with one it hardly comes again
            self._lines[text] = asked
            if known:
                self._whole[data] = asked
        return asked

    def _got(self, line: bytes) -> _Asked | None:
        target = get_target(line)
        if target is None:
            return None
        path_issuer, text = route(target, self._view.directory)
        try:
            return self._asked("GET", path_issuer, request_of_path(text))
        except QuashError:
            return None

    def _posted(self, line: bytes, body: bytes) -> _Asked | None:
        target = post_target(line)
        if target is None:
            return None
        path_issuer, left = route(target, self._view.directory)
        return None if left else self._asked("POST", path_issuer, body)

    def _asked(self, method: str, path_issuer: int | None, der: bytes) -> _Asked | None:
        """What a request asks, if it is a plain one about an issuer of ours."""
        request = parse_plain_request(der)
        if request is None:
            return None
        cert_id = request.cert_ids[0]
        assert cert_id is not None  # noqa: S101 (a plain request has a hash that we serve)
        issuer = self._view.directory.issuers.get(cert_id.name_hash + cert_id.key_hash)
        if issuer is None or path_issuer not in (None, issuer.issuer_id):
            return None
        return _Asked(record_key(issuer.issuer_id, cert_id.serial), cert_id, issuer, method, request.nonce is not None)

    def _renew(self, asked: _Asked, record: bytes | None, second: int) -> _Made | None:
        """The answer from a record that was just read, unless it is an error, which the full path words."""
        if record is None:
            return None
        name = (asked.key, asked.cert_id.hash)
        made = self._made.get(name, _NEVER)  # as another request had it, by the other method or with a nonce
        if made.record != record or not made.since <= second < made.until:
            try:
                answer = self._responder.say(asked.cert_id, asked.issuer, record, second)
            except QuashError:
                return None
            if answer.outcome not in SIGNED:
                return None
            made = _Made(record, second, answer.until, *render_ok(answer), answer.tail, answer.outcome)
            if len(self._made) >= MEMO:
                self._forget()
            self._made[name] = made
        asked.made = made
        asked.tally = _TALLY[asked.method, made.outcome, asked.cert_id.hash.value]
        return made
