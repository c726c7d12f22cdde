"""The index.txt of `openssl ca`: one certificate a line, six fields between tabs.

    V|R|E  <notAfter>  [<revocationDate>[,<reason>[,<extra>]]]  <serial>  <file>  <subject>

A revoked line whose serial can be read is never lost: what is unreadable in it is replaced by what revokes the most,
and said in a warning. See openssl-ca(1) and `unpack_revinfo` of OpenSSL for the reasons it writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from quash.errors import QuashError
from quash.pki.reasons import ALLOWED_REASONS, Reason
from quash.pki.serials import format_serial, parse_serial

_FIELDS = 6
_FLAGS = frozenset("VRE")
# OpenSSL's names. A compromise stays one, a CA's included; what B11 bars loses its reason, never its revocation.
_REASONS = {
    **{reason.name.lower(): reason for reason in ALLOWED_REASONS},
    "cacompromise": Reason.keyCompromise,
    "keytime": Reason.keyCompromise,
    "cakeytime": Reason.keyCompromise,
}
_TIME = re.compile(r"(?:\d{12}|\d{14})Z")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One certificate of the index; times are Unix seconds.

    `not_after` None: unreadable on a revoked line. `revoked_at` None: not revoked, or, with a reason, unreadable.
    """

    line: int
    serial: bytes
    not_after: int | None
    reason: Reason | None
    revoked_at: int | None

    @property
    def revoked(self) -> bool:
        return self.reason is not None


@dataclass(frozen=True, slots=True)
class Remark:
    """What is odd about a line."""

    line: int
    text: str


@dataclass(slots=True)
class Index:
    """The readable entries, one a serial; `bad` lines are not among them, or are there only as revoked."""

    entries: list[IndexEntry] = field(default_factory=list)
    bad: list[Remark] = field(default_factory=list)
    warnings: list[Remark] = field(default_factory=list)


def published_reason(name: str) -> Reason:
    """What a reason of OpenSSL, or of an old CRL, becomes when it is published by us (B11)."""
    return _REASONS.get(name.lower(), Reason.unspecified)


def read_index(data: bytes) -> Index:
    """Reads a whole index.txt; never raises, since what cannot be read is part of the answer."""
    index = Index()
    by_serial: dict[bytes, IndexEntry] = {}
    for number, line, complete in _lines(data):
        entry = _read_line(number, line, complete, index)
        if entry is None:
            continue
        earlier = by_serial.get(entry.serial)
        if earlier is not None:
            text = f"serial {format_serial(entry.serial)} stands on line {earlier.line} already"
            index.bad.append(Remark(number, text))
            entry = max(earlier, entry, key=_weight)
        by_serial[entry.serial] = entry
    index.entries = list(by_serial.values())
    return index


def _weight(entry: IndexEntry) -> tuple[bool, bool]:
    """Of two lines of one serial the graver counts: revoked, and for keyCompromise, which also drags siblings along."""
    return entry.revoked, entry.reason is Reason.keyCompromise


def _lines(data: bytes) -> Iterator[tuple[int, str, bool]]:
    """Number, text, and whether the line was ended: the last one is not when the file was cut off."""
    lines = data.split(b"\n")
    for number, raw in enumerate(lines, 1):
        if raw.strip() and not raw.startswith(b"#"):
            yield number, raw.rstrip(b"\r").decode("utf-8", "replace"), number < len(lines)


def _read_line(number: int, line: str, complete: bool, index: Index) -> IndexEntry | None:
    fields = line.split("\t")
    problems = [] if complete else ["the file ends within this line: it was cut off"]
    if len(fields) != _FIELDS:
        problems.append(f"has {len(fields)} fields between tabs, not {_FIELDS}")
    flag, expiry, revocation, serial_text, *rest = [*fields, "", "", "", ""]
    serial = _serial(serial_text) if rest and len(fields) > 4 else None  # a serial at the very end may be cut off
    if serial is None:
        problems.append("no readable serial")
    if flag not in _FLAGS:
        problems.append(f"flag {flag[:8]!r} is none of V, R, E")
    not_after = _time(expiry)
    if not_after is None:
        problems.append(f"notAfter {expiry[:20]!r} is not a time")
    reason, revoked_at = None, None
    if flag == "R":
        reason, revoked_at = _revocation(number, revocation, problems, index.warnings)
    elif revocation:
        problems.append("has a revocation date but is not marked R")
    index.bad += [Remark(number, problem) for problem in problems]
    if serial is None or (problems and flag != "R"):
        return None
    return IndexEntry(number, serial, not_after, reason, revoked_at)


def _revocation(number: int, text: str, problems: list[str], warnings: list[Remark]) -> tuple[Reason, int | None]:
    date, *details = text.split(",")
    revoked_at = _time(date)
    if revoked_at is None:
        problems.append(f"revocation date {date[:20]!r} is not a time")
    if not details:
        return Reason.unspecified, revoked_at
    name = details[0]
    reason = published_reason(name)
    if name.lower() != reason.name.lower():
        warnings.append(Remark(number, f"reason {name[:40]!r} becomes {reason.name} (B11)"))
    return reason, revoked_at


def _serial(text: str) -> bytes | None:
    try:
        return parse_serial(text)
    except QuashError:
        return None


def _time(text: str) -> int | None:
    """UTCTime (two-digit year, 1950 to 2049) or GeneralizedTime."""
    if not _TIME.fullmatch(text):
        return None
    if len(text) == len("YYMMDDHHMMSSZ"):
        text = ("19" if text[:2] >= "50" else "20") + text
    try:
        return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None
