"""One answer of the CRL origin, pure: a file's meta data, the request's conditions and the time in, headers out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus

from crlgen.origin.files import Meta

_ALLOW = "GET, HEAD"
_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
MAX_AGE = 1800
"""Seconds that a cache may keep a file: longer would break the promise of G1."""


def refuse_method() -> tuple[HTTPStatus, dict[str, str]]:
    return HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": _ALLOW, "Content-Length": "0"}


def not_found() -> tuple[HTTPStatus, dict[str, str]]:
    """Kept by nobody: the file may be published in the next second."""
    return HTTPStatus.NOT_FOUND, {"Cache-Control": "no-store", "Content-Length": "0"}


def found(meta: Meta, conditions: Mapping[str, str], now: float) -> tuple[HTTPStatus, dict[str, str]]:
    """Status and headers for a file: 200, 206 or 416, or 304 when the asker has this state already (RFC 9110 13.2.2).

    A 206 says in `Content-Range` which octets to send.
    """
    headers = {
        "ETag": meta.etag,
        "Last-Modified": format_datetime(datetime.fromtimestamp(meta.last_modified, UTC), usegmt=True),
        "Cache-Control": _cache_control(meta, now),
    }
    if _unchanged(meta, conditions):
        return HTTPStatus.NOT_MODIFIED, headers
    whole = {
        **headers,
        "Accept-Ranges": "bytes",
        "Content-Type": meta.content_type,
        "Content-Length": str(meta.size),
        "X-Content-Type-Options": "nosniff",
    }
    wanted = _range(meta, conditions)
    if wanted is None:
        return HTTPStatus.OK, whole
    start, end = wanted
    if start >= end:
        refusal = {**not_found()[1], "Content-Range": f"bytes */{meta.size}"}
        return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, refusal
    part = {"Content-Range": f"bytes {start}-{end - 1}/{meta.size}", "Content-Length": str(end - start)}
    return HTTPStatus.PARTIAL_CONTENT, whole | part


def _range(meta: Meta, conditions: Mapping[str, str]) -> tuple[int, int] | None:
    """(start, end) of the one range asked for, empty when no octet is in it; None: send everything.

    Several ranges, other units and what is no range are passed over, as RFC 9110 14.2 allows; so is a range of another
    state of the file (If-Range), since parts of two CRLs make none.
    """
    match = _ONE_RANGE.fullmatch(conditions.get("Range", ""))
    if match is None or conditions.get("If-Range", meta.etag) != meta.etag:
        return None
    first, last = match.groups()
    if not first:
        return (max(0, meta.size - int(last)), meta.size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(meta.size, int(last) + 1 if last else meta.size)


def _cache_control(meta: Meta, now: float) -> str:
    """A cache may answer on its own for half an hour and, while we are down, until nextUpdate, never beyond it."""
    if meta.next_update is None:
        return f"public, max-age={MAX_AGE}"
    left = max(0, meta.next_update - int(now))
    fresh = min(MAX_AGE, left)
    return f"public, max-age={fresh}, stale-if-error={left - fresh}"


def _unchanged(meta: Meta, conditions: Mapping[str, str]) -> bool:
    """If-None-Match decides alone when it is there; If-Modified-Since counts whole seconds."""
    wanted = conditions.get("If-None-Match")
    if wanted is not None:
        tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
        return meta.etag in tags or "*" in tags
    since = _http_date(conditions.get("If-Modified-Since"))
    return since is not None and meta.last_modified <= since


def _http_date(text: str | None) -> float | None:
    """Unix seconds of an HTTP date; None for what is none, which the condition then ignores."""
    try:
        moment = parsedate_to_datetime(text or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
