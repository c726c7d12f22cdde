"""The fast path: a plain request whose record is in the cache, answered from its octets to octets, in one call.

`plain` says which requests these are; the words and headers of an answer are those of the full path, made by the same
`Responder.say`. Three memos save doing the same again:

  * request line (and body) -> what it asks, header fields -> what body they announce: functions of octets and view;
  * certificate and hash -> the assembled answer, *good only for the very record it was made from*: every request reads
    its record, so a revocation is seen at once, and only while its headers say the same (`Answer.until`; a clock that
    is set back makes it anew).

All are forgotten when the view of the catalog or of the freshness is another one, and when they are full.
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


@dataclass(slots=True)
class _Asked:
    """`key`: the record's. `name`: of the answer, in the memo. `tally`: where in the counts a `good` is counted."""

    key: bytes
    name: bytes
    tally: int
    cert_id: CertId
    issuer: ServedIssuer


@dataclass(slots=True)
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
    revoked: bool


class Counted(NamedTuple):
    """Answers since the last time; labels as in the metric."""

    method: str
    outcome: str
    hash: str
    answers: int


_TALLIES = [(method, outcome, h.value) for method in ("GET", "POST") for h in CertIdHash for outcome in SIGNED]
_TALLY = {(method, h): _TALLIES.index((method, SIGNED[0], h.value)) for method in ("GET", "POST") for h in CertIdHash}
_HASH_MARK = {h: bytes((number,)) for number, h in enumerate(CertIdHash)}


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
        line, _, rest = data.partition(b"\r")  # `rest` begins with the LF
        asked = self._lines.get(line)
        if asked is None or self._heads.get(rest) != NO_BODY:
            asked = self._read(line, rest)
            if asked is None:
                return None
        try:
            record = self._get(asked.key)
        except QuashError:
            return None
        second = int(self._now())
        made = self._made.get(asked.name)
        if made is None or made.record != record or not made.since <= second < made.until:
            made = self._make(asked, record, second)
            if made is None:
                return None
        if second != self._second:
            self._second, self._date = second, http_date(second).encode()
        self._counts[asked.tally + made.revoked] += 1
        return b"".join((made.before, self._date, made.after, made.tail))

    def take_counts(self) -> Iterator[Counted]:
        """What was answered since the last call."""
        for index, (method, outcome, hash_name) in enumerate(_TALLIES):
            count, self._counts[index] = self._counts[index], 0
            if count:
                yield Counted(method, outcome, hash_name, count)

    def _forget(self) -> None:
        self._view = self._responder.view
        self._lines: dict[bytes, _Asked] = {}
        self._heads: dict[bytes, int] = {}
        self._made: dict[bytes, _Made] = {}

    def _read(self, line: bytes, rest: bytes) -> _Asked | None:
        """What a request asks that is not in the memos, if it is a plain one."""
        if line.startswith(b"POST "):
            return self._read_post(line, rest)
        if self._length(rest) != NO_BODY:
            return None
        asked = self._lines.get(line)
        if asked is not None:
            return asked
        target = get_target(line)
        if target is None:
            return None
        path_issuer, text = route(target, self._view.directory)
        try:
            return self._ask("GET", line, path_issuer, request_of_path(text))
        except QuashError:
            return None

    def _read_post(self, line: bytes, rest: bytes) -> _Asked | None:
        end = rest.find(b"\r\n\r\n") + 4  # of nothing: 3, and no header of 3 octets is plain
        head, body = rest[:end], rest[end:]
        if not body or self._length(head) != len(body):
            return None
        text = b"%b\r%b" % (line, body)  # no request line has a CR within
        asked = self._lines.get(text)
        if asked is not None:
            return asked
        target = post_target(line)
        if target is None:
            return None
        path_issuer, left = route(target, self._view.directory)
        return None if left else self._ask("POST", text, path_issuer, body)

    def _length(self, head: bytes) -> int | None:
        """As `body_length`."""
        length = self._heads.get(head)
        if length is None:
            length = body_length(head)
            if length is not None:
                if len(self._heads) >= HEADS:
                    self._heads.clear()
                self._heads[head] = length
        return length

    def _ask(self, method: str, text: bytes, path_issuer: int | None, der: bytes) -> _Asked | None:
        """What a request asks, if it is a plain one about an issuer of ours."""
        request = parse_plain_request(der)
        if request is None:
            return None
        cert_id = request.cert_ids[0]
        assert cert_id is not None  # noqa: S101 (a plain request has a hash that we serve)
        issuer = self._view.directory.issuers.get(cert_id.name_hash + cert_id.key_hash)
        if issuer is None or path_issuer not in (None, issuer.issuer_id):
            return None
        key = record_key(issuer.issuer_id, cert_id.serial)
        asked = _Asked(key, _HASH_MARK[cert_id.hash] + key, _TALLY[method, cert_id.hash], cert_id, issuer)
        if request.nonce is None:  # with one it hardly comes again
            if len(self._lines) >= MEMO:
                self._lines.clear()
            self._lines[text] = asked
        return asked

    def _make(self, asked: _Asked, record: bytes | None, now: int) -> _Made | None:
        """The answer from a record that was just read, unless it is an error, which the full path words."""
        if record is None:
            return None
        try:
            answer = self._responder.say(asked.cert_id, asked.issuer, record, now)
        except QuashError:
            return None
        if answer.outcome not in SIGNED:
            return None
        before, after = render_ok(answer)
        made = _Made(record, now, answer.until, before, after, answer.tail, answer.outcome == SIGNED[1])
        if len(self._made) >= MEMO:
            self._made.clear()
        self._made[asked.name] = made
        return made
