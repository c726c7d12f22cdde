"""Answers as octets of HTTP/1.1, in the order and spelling in which aiohttp writes them."""

from __future__ import annotations

from responder.serve.answer import Answer

SERVER = ("Server", "Quash")  # and no version of anything


def render_ok(answer: Answer) -> tuple[bytes, bytes]:
    """(what stands before the Date's value, what stands between it and the answer's tail) of a 200, keeping alive."""
    fields = "\r\n".join([f"{name}: {value}" for name, value in answer.headers])
    before = f"HTTP/1.1 200 OK\r\n{fields}\r\n{SERVER[0]}: {SERVER[1]}\r\nContent-Length: {len(answer.body)}\r\nDate: "
    return before.encode(), b"\r\n\r\n" + answer.body[: len(answer.body) - len(answer.tail)]
