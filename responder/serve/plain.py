"""Which octets are the plain requests that the fast path takes: an allow list, with nothing to interpret. Pure.

Everything here may be refused for no reason, since the full path answers whatever the fast path does not. So nothing is
accepted that could mean something: no header that changes how a message is cut or what is answered to it, none twice,
none folded, no octet but printable ASCII, no request target that two parsers might read in two ways.
"""

from __future__ import annotations

import re

NO_BODY = -1
MAX_LINE = 512  # octets; A31 has GETs end at 255
MAX_HEAD = 1024

# Without `//` in front and without any escape but those of base64's own three characters (A33).
_GET = re.compile(rb"GET (/(?!/)(?:[A-Za-z0-9+/=-]++|%(?:2[BbFf]|3[Dd]))++) HTTP/1\.1")
_POST = re.compile(rb"POST (/(?!/)[A-Za-z0-9/-]*) HTTP/1\.1")
_VALUE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_LENGTH = re.compile(rb"[1-9][0-9]{0,3}")

# What clients, proxies and CDNs send along, and what changes neither framing nor answer. No header that begins with
# `x-` does either.
_PASSED_OVER = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control cdn-loop cf-connecting-ip cf-ipcountry"
    b" cf-ray cf-visitor content-type date dnt fastly-client-ip forwarded from host origin pragma priority referer"
    b" save-data sec-fetch-dest sec-fetch-mode sec-fetch-site sec-gpc traceparent tracestate true-client-ip"
    b" user-agent via".split()
)
_FREE = b"x-"


def get_target(line: bytes) -> bytes | None:
    """The target of the request line `line`, which has no line end, when that is a plain GET's."""
    return _target(_GET, line)


def post_target(line: bytes) -> bytes | None:
    """The same of a POST."""
    return _target(_POST, line)


def _target(method: re.Pattern[bytes], line: bytes) -> bytes | None:
    matched = method.fullmatch(line) if len(line) <= MAX_LINE else None
    return matched[1] if matched else None


def body_length(head: bytes) -> int | None:
    """Octets of the body that header fields announce, NO_BODY when none; None when they are not plain.

    `head`: what follows the request line's CR, from its LF to the empty line.
    """
    if len(head) > MAX_HEAD or not head.startswith(b"\n") or not head.endswith(b"\r\n\r\n"):
        return None
    length = NO_BODY
    names = set()
    for line in head[1:-4].split(b"\r\n"):
        name, _, value = line.partition(b": ")
        name = name.lower()
        if name in names or not _VALUE.fullmatch(value):
            return None
        names.add(name)
        if name == b"content-length":
            if not _LENGTH.fullmatch(value):
                return None
            length = int(value)
        elif name == b"connection":
            if value.lower() != b"keep-alive":
                return None
        elif name not in _PASSED_OVER and not _is_free(name):
            return None
    return length if b"host" in names else None


def _is_free(name: bytes) -> bool:
    return name.startswith(_FREE) and name[2:].replace(b"-", b"").isalnum()
