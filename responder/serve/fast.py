"""The fast path: a plain request whose record is in the cache, answered from its octets to octets, in one call.

`plain` says which requests these are; the words and headers of an answer are those of the full path, made by the same
`Responder.say`. Memos save doing the same again:

  * the answer to a request, by all its octets, *good only for the very record it was made from*: every request reads
    its record, so a revocation is seen at once, and only until its headers say something else (`Answer.until`) or it is
    of another age to the metrics;
  * what a request asks, by its line (and body) alone when its header fields are plain, which is remembered too. All
    octets are remembered only when the fields came before: CDNs number requests;
  * the answer about a certificate, for whoever asks: by the other method, with a nonce or other header fields.

All is forgotten when the view of the catalog or of the freshness is another one, when the clock was set back, and when
a memo is full.

Half of what a known request costs here is waiting for memory. So it touches few objects, all named by one tuple, and
shared where they can be; and nothing is joined, since the socket takes an answer in parts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple

from quash.cache.layout import record_key
from quash.errors import QuashError
from quash.pki.certid import CertId, CertIdHash
from quash.pki.ocsp_request import parse_plain_request
from responder.serve.access_log import AccessLog, described
from responder.serve.answer import SIGNED, Responder, request_of_path, route
from responder.serve.httpdate import http_date
from responder.serve.metrics import Tally, age_bucket, age_changes, is_late
from responder.serve.plain import NO_BODY, body_length, get_target, post_target
from responder.serve.view import ServedIssuer
from responder.serve.wire import START, render_ok

MEMO = 12_000  # request lines, and answers: some 25 MB when full, of the 80 MB that a worker may have
METHODS = ("GET", "POST")
HEADS = 1_024  # header fields: they hardly differ between the requests of one client

Parts = tuple[bytes, bytes, bytes]
"""Of an answer: up to the Date's value, what is its own, the end that it shares with others."""


class _Asked(NamedTuple):
    """What a request asks. `key`: the record's."""

    key: bytes
    cert_id: CertId
    issuer: ServedIssuer
    posted: bool
    nonce: bool


class _Made(NamedTuple):
    """An assembled answer: from which record, before which Unix second, its last two parts, and where it is counted.

    `tail` is one object for all answers of a signer: its certificate is the greater part of an answer.
    """

    record: bytes
    until: float
    own: bytes
    tail: bytes
    tally: int


_Known = tuple[bytes, bytes, float, bytes, bytes, int]
"""A request's key, and of its answer: record, until, own, tail, tally."""
_UNKNOWN: _Known = (b"", b"", -inf, b"", b"", 0)


class Counted(NamedTuple):
    """Answers since the last time."""

    tally: Tally
    answers: int


class FastPath:
    """Answers for `responder`; `get` finds an encoded record by key and may raise QuashError, `now` is Unix time."""

    def __init__(
        self,
        responder: Responder,
        get: Callable[[bytes], bytes | None],
        now: Callable[[], float],
        access_log: AccessLog | None = None,
    ) -> None:
        self.entry = self._answer_and_log if access_log is not None and access_log.every else self.answer
        """What to call: `answer`, which then also writes the access log if there is one."""
        self._access_log = access_log
        self._responder = responder
        self._get = get
        self._now = now
        self._tallies: dict[Tally, int] = {}
        self._counts: list[int] = []
        self._second = self._next_second = -inf
        self._start = b""
        self._forget()

    def answer(self, data: bytes) -> Parts | None:
        """The whole answer to `data`, all that has arrived; None: not one that is answered here.

        What it answers is one complete request, with nothing after it.
        """
        if self._view is not self._responder.view:
            self._forget()
        get, clock = self._get, self._now  # an attribute's value is called faster from a local name
        now = clock()
        if not self._second <= now < self._next_second:
            self._turn(now)
        key, record, until, own, tail, tally = self._known.get(data, _UNKNOWN)  # waits for all of them at once
        try:
            if now >= until or get(key) != record:
                known = self._learn(data, now)
                if known is None:
                    return None
                _, _, _, own, tail, tally = known
        except QuashError:  # which the full path words
            return None
        self._counts[tally] += 1
        return self._start, own, tail

    def _answer_and_log(self, data: bytes) -> Parts | None:
        answer = self.answer(data)
        if answer is not None and self._access_log is not None and self._access_log.wants("fast"):
            with suppress(QuashError):  # the answer is made, whatever the cache says to another look
                self._log(self._access_log, data)
        return answer

    def _log(self, access_log: AccessLog, data: bytes) -> None:
        asked, _ = self._read(data)
        record = self._get(asked.key) if asked is not None else None
        if asked is not None and record is not None:
            now = self._now()
            said = self._responder.say(asked.cert_id, asked.issuer, record, now)
            access_log.write(**described("fast", METHODS[asked.posted], said, now))

    def take_counts(self) -> Iterator[Counted]:
        """What was answered since the last call."""
        for tally, index in self._tallies.items():
            count, self._counts[index] = self._counts[index], 0
            if count:
                yield Counted(tally, count)

    def _forget(self) -> None:
        self._view = self._responder.view
        self._known: dict[bytes, _Known] = {}
        self._lines: dict[bytes, _Asked] = {}
        self._heads: dict[bytes, int] = {}
        self._made: dict[tuple[bytes, CertIdHash], _Made] = {}

    def _turn(self, now: float) -> None:
        """Another second, another Date. Before an earlier one, nothing is right that was made for a later one."""
        if now < self._second:
            self._forget()
        second = int(now)
        self._second, self._next_second = float(second), second + 1.0
        self._start = b"%b%b" % (START, http_date(second).encode())

    def _learn(self, data: bytes, now: float) -> _Known | None:
        """How a request is answered now, if it is a plain one and its answer no error; may raise QuashError."""
        asked, comes_again = self._read(data)
        record = self._get(asked.key) if asked is not None else None
        if asked is None or record is None:
            return None
        made = self._made.get((asked.key, asked.cert_id.hash))
        if made is None or made.record != record or now >= made.until:
            made = self._make(asked, record, int(now))
            if made is None:
                return None
        known = (asked.key, made.record, made.until, made.own, made.tail, made.tally + asked.posted)
        if comes_again:
            self._known[data] = known
        return known

    def _read(self, data: bytes) -> tuple[_Asked | None, bool]:
        """What a request asks, if it is a plain one, and whether its octets may be expected to come again."""
        line, _, rest = data.partition(b"\r")  # `rest` begins with the LF
        end = rest.find(b"\r\n\r\n") + 4  # of nothing: 3, and no header of 3 octets is plain
        head, body = rest[:end], rest[end:]
        length = self._heads.get(head)
        known = length is not None
        if length is None:
            length = body_length(head)
        if length != (len(body) or NO_BODY):
            return None, False
        text = b"%b\r%b" % (line, body)  # no request line has a CR within
        asked = self._lines.get(text) or (self._posted(line, body) if body else self._got(line))
        if asked is None:
            return None, False
        if len(self._lines) >= MEMO or len(self._known) >= MEMO:
            self._forget()
        if len(self._heads) >= HEADS:
            self._heads.clear()
        self._heads[head] = length
        if not asked.nonce:  # with one it hardly comes again
            self._lines[text] = asked
        return asked, known and not asked.nonce

    def _got(self, line: bytes) -> _Asked | None:
        target = get_target(line)
        if target is None:
            return None
        path_issuer, text = route(target, self._view.directory)
        return self._asked(path_issuer, request_of_path(text), posted=False)

    def _posted(self, line: bytes, body: bytes) -> _Asked | None:
        target = post_target(line)
        if target is None:
            return None
        path_issuer, left = route(target, self._view.directory)
        return None if left else self._asked(path_issuer, body, posted=True)

    def _asked(self, path_issuer: int | None, der: bytes, *, posted: bool) -> _Asked | None:
        """What a request asks, if it is a plain one about an issuer of ours."""
        request = parse_plain_request(der)
        if request is None:
            return None
        cert_id = request.cert_ids[0]
        assert cert_id is not None  # noqa: S101 (a plain request has a hash that we serve)
        issuer = self._view.directory.issuers.get(cert_id.name_hash + cert_id.key_hash)
        if issuer is None or path_issuer not in (None, issuer.issuer_id):
            return None
        if request.nonce is not None and issuer.signs_nonces:
            return None
        return _Asked(record_key(issuer.issuer_id, cert_id.serial), cert_id, issuer, posted, request.nonce is not None)

    def _make(self, asked: _Asked, record: bytes, second: int) -> _Made | None:
        """The answer from a record that was just read, unless it is an error."""
        answer = self._responder.say(asked.cert_id, asked.issuer, record, second)
        if answer.outcome not in SIGNED:
            return None
        age = age_bucket(second - answer.this_update)
        late = is_late(answer, second)
        until = min(answer.until, age_changes(answer.this_update, age), sys.maxsize if late else answer.late_at)
        tally = self._tally(answer.outcome, asked.cert_id.hash.value, asked.issuer.name, age, late)
        made = _Made(record, _shared(until), render_ok(answer), answer.tail, tally)
        if len(self._made) >= MEMO:
            self._forget()
        self._made[asked.key, asked.cert_id.hash] = made
        return made

    def _tally(self, *kind: Any) -> int:
        """Where answers of that kind to a GET are counted; those to a POST are counted next to it."""
        if Tally(METHODS[0], *kind) not in self._tallies:
            for method in METHODS:
                self._tallies[Tally(method, *kind)] = len(self._counts)
                self._counts.append(0)
        return self._tallies[Tally(METHODS[0], *kind)]


@lru_cache(maxsize=4096)  # records are signed in batches
def _shared(second: int) -> float:
    """One object for all answers that hold as long: it need not be waited for when each request looks at it."""
    return float(second)
