"""Typed requests between our own processes on Unix sockets.

One frame each way: a 12-octet prefix (length of a JSON header, length of a binary body), the header, the body. The
header of an answer holds the result, or `error`, `message` and `kind`, which the caller gets raised as it was raised.
One request may be under way per connection; a connection serves many. The socket's folder decides who may connect,
and the server compares the peer's user id as well: its own, root's, and those that it was told of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from quash.errors import Kind, QuashError
from quash.runtime.sockets import clear_socket

Header = dict[str, Any]
Handler = Callable[[Header, bytes], Awaitable[tuple[Header, bytes]]]

_PREFIX = struct.Struct(">IQ")
_MAX_HEADER = 64 * 1024
_MAX_REPLY = 1 << 30


async def call(path: Path, request: Header, body: bytes = b"", *, timeout: float) -> tuple[Header, bytes]:
    """Asks the process behind `path`; raises what it raised, or `rpc.unavailable` after `timeout` seconds."""
    with closing(Lines(path)) as lines:
        return await lines.call(request, body, timeout=timeout)


class Lines:
    """Connections to the process behind `path` that stay open between requests: as many as were under way at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, request: Header, body: bytes = b"", *, timeout: float) -> tuple[Header, bytes]:
        """As the function `call`. Nothing is asked twice, since the first may have been heard."""
        try:
            async with asyncio.timeout(timeout):
                reader, writer = self._take() or await asyncio.open_unix_connection(self._path)
                try:
                    await _write(writer, request, body)
                    header, reply = await _read(reader, _MAX_REPLY)
                except BaseException:  # who stops in the middle leaves the rest of an answer there
                    writer.close()
                    raise
                self._idle.append((reader, writer))
        except (OSError, EOFError, TimeoutError) as error:
            raise QuashError(
                "rpc.unavailable", f"{self._path.name} does not answer; is its process up?", Kind.UNAVAILABLE
            ) from error
        if "error" in header:
            raise QuashError(header["error"], header["message"], Kind(header["kind"]))
        return header, reply

    def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """One whose other end is there still, as far as we know."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return None

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def serve(
    path: Path, handler: Handler, *, max_body: int, users: Sequence[str | int] = ()
) -> asyncio.AbstractServer:
    """Serves `handler` on a socket that only this user may open, or with `users` the socket's group, and those alone.

    Users are names or ids. Raises `process.running`, and `rpc.no_user` for a name that this machine does not know.
    """
    admitted = {os.getuid(), 0, *map(_uid, users)}
    clear_socket(path)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            if _peer_uid(writer) in admitted:
                await _serve_connection(reader, writer, handler, max_body)
        writer.close()

    old = os.umask(0o117 if users else 0o177)
    try:
        return await asyncio.start_unix_server(connected, path)
    finally:
        os.umask(old)


async def _serve_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler, max_body: int
) -> None:
    while True:
        try:
            request, body = await _read(reader, max_body)
        except QuashError as error:  # the stream is out of step now: answer and close
            await _write(writer, _error(error), b"")
            return
        try:
            header, reply = await handler(request, body)
        except QuashError as error:
            header, reply = _error(error), b""
        except Exception as error:  # noqa: BLE001 - the caller must get an answer, whatever broke here
            header, reply = _error(QuashError("rpc.internal", type(error).__name__, Kind.INTERNAL)), b""
        await _write(writer, header, reply)


def _error(error: QuashError) -> Header:
    return {"error": error.code, "message": error.message, "kind": error.kind.value}


async def _write(writer: asyncio.StreamWriter, header: Header, body: bytes) -> None:
    head = orjson.dumps(header)
    writer.write(_PREFIX.pack(len(head), len(body)) + head)
    writer.write(body)
    await writer.drain()


async def _read(reader: asyncio.StreamReader, max_body: int) -> tuple[Header, bytes]:
    head_length, body_length = _PREFIX.unpack(await reader.readexactly(_PREFIX.size))
    if head_length > _MAX_HEADER or body_length > max_body:
        raise QuashError(
            "rpc.too_large", f"a request has at most {_MAX_HEADER} octets of header and {max_body} of body"
        )
    try:
        header = orjson.loads(await reader.readexactly(head_length))
    except orjson.JSONDecodeError:
        raise QuashError("rpc.malformed", "the header of a request is a JSON object") from None
    if not isinstance(header, dict):
        raise QuashError("rpc.malformed", "the header of a request is a JSON object")
    return header, await reader.readexactly(body_length)


def _uid(user: str | int) -> int:
    try:
        return user if isinstance(user, int) else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise QuashError("rpc.no_user", f"[sockets]: this machine has no user {user}", Kind.UNAVAILABLE) from None


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    sock = writer.get_extra_info("socket")
    _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
