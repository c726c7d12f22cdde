"""Answers as aiohttp's responses, and as octets of HTTP/1.1 in the order and spelling in which aiohttp writes those.

The Date comes first (RFC 9110 6.6.1 lets it stand anywhere), so that what changes with each second is the same for all.
"""

from __future__ import annotations

from aiohttp import web

from responder.serve.answer import Answer
from responder.serve.httpdate import http_date

START = b"HTTP/1.1 200 OK\r\nDate: "
_SERVER = ("Server", "Quash")  # and no version of anything


def response(answer: Answer, now: float) -> web.Response:
    """For aiohttp to write at Unix time `now`."""
    fields = (("Date", http_date(int(now))), *answer.headers, _SERVER)
    return web.Response(status=answer.status, headers=fields, body=answer.body)


def render_ok(answer: Answer) -> bytes:
    """What stands between the Date's value, behind `START`, and the answer's tail: of a 200, keeping alive."""
    fields = "".join(f"\r\n{name}: {value}" for name, value in (*answer.headers, _SERVER))
    head = f"{fields}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
    return head.encode() + answer.body[: len(answer.body) - len(answer.tail)]
