"""Answers as octets of HTTP/1.1, in the order and spelling in which aiohttp writes them."""

from __future__ import annotations

from http import HTTPStatus

from responder.serve.answer import Answer

SERVER = ("Server", "Quash")  # and no version of anything


def render(answer: Answer) -> tuple[bytes, bytes]:
    """(what stands before the Date's value, what stands after it); the connection stays open."""
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        *(f"{name}: {value}" for name, value in (*answer.headers, SERVER)),
        f"Content-Length: {len(answer.body)}",
        "Date: ",
    ]
    return "\r\n".join(lines).encode(), b"\r\n\r\n" + answer.body
