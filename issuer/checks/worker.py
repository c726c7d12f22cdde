"""A worker process: reads one task after the other from its parent, answers each, and ends with its parent.

It sees hostile bytes first (keys and names of strangers) and has nothing worth taking: no key, no database, no socket.
A frame is a 12-octet prefix (length of a JSON header, length of octets), the header, the octets.
"""

from __future__ import annotations

import importlib
import os
import signal
import struct
import sys
from typing import Any, BinaryIO, Final

import orjson

from quash.errors import QuashError
from quash.runtime.memory import collect_rarely
from quash.runtime.process import die_with

PREFIX: Final = struct.Struct(">IQ")


def encode(header: dict[str, Any], octets: bytes = b"") -> bytes:
    """One frame."""
    text = orjson.dumps(header)
    return PREFIX.pack(len(text), len(octets)) + text + octets


def main() -> None:
    """`python -m issuer.checks.worker [MODULE-WITH-TASKS] PARENT-PID`"""
    die_with(int(sys.argv[-1]), signal.SIGKILL)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    # Two seconds of imports: after the parent's death is watched.
    tasks: Any = importlib.import_module(sys.argv[1] if len(sys.argv) > 2 else "issuer.checks.tasks")

    tasks.warm()
    collect_rarely()  # of what a task makes little is cyclic: looking for it cost a twentieth of linting
    _send(out, {"ready": True})
    while frame := _receive(sys.stdin.buffer):
        header, octets = frame
        try:
            reply: dict[str, Any] = {"result": tasks.TASKS[header["task"]](header["argument"], octets)}
        except QuashError as error:
            reply = {"error": error.code, "message": error.message, "kind": error.kind.value}
        except Exception as error:  # noqa: BLE001 - a check that fails on this input would fail on it again: refuse
            said = f"{header['task']} failed on it: {type(error).__name__}: {error}"
            reply = {"error": "checks.failed", "message": said[:500], "kind": "refused"}
        _send(out, reply)


def _send(out: BinaryIO, reply: dict[str, Any]) -> None:
    out.write(encode(reply))
    out.flush()


def _receive(source: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    prefix = source.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    text, octets = PREFIX.unpack(prefix)
    return orjson.loads(source.read(text)), source.read(octets)


if __name__ == "__main__":
    main()
