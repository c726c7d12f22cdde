"""`python -m loadtest.constant PORT FILE`: an event loop that writes the same octets to whatever arrives."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop


class Constant(asyncio.Protocol):
    """Writes one answer for every segment that arrives."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]

    def data_received(self, _: bytes) -> None:
        self.write(self.answer)


async def serve_constant(port: int, answer: bytes) -> None:
    Constant.answer = answer
    await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve_constant(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
