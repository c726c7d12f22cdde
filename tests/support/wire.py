"""A PostgreSQL that is lost at a chosen moment: a proxy that counts what clients ask, and drops a connection there.

A question is one round of the protocol: a simple query (begin, commit) or an extended one up to its Sync. Dropped
`unsent`, the server never sees it, and rolls back what was open. Dropped `unheard`, the server has done it, and nobody
hears so: the caller of a commit cannot know whether it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

Loss = Literal["unsent", "unheard"]
_SOCKET = ".s.PGSQL.5432"
_PARTS = frozenset({b"P", b"B", b"D", b"E", b"C"})  # of a question that goes on: parse, bind, describe, execute, close


class Wire:
    """Between pools and the server at `server`; clients name `folder` as their host."""

    def __init__(self, server: Path, folder: Path) -> None:
        self.folder = folder
        self._server = server
        self._left: int | None = None
        self._loss: Loss = "unsent"
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def lost(self) -> bool:
        """Whether what was armed has happened."""
        return self._left == 0

    def arm(self, question: int, loss: Loss) -> None:
        """The connection of this question from now on, counted from 1, is dropped."""
        self._left, self._loss = question, loss

    def disarm(self) -> None:
        self._left = None

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._connected, self.folder / _SOCKET)
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(self._server / _SOCKET)
        answers = _Answers(inner, writer)
        tasks = {asyncio.ensure_future(self._ask(reader, outer, answers)), asyncio.ensure_future(answers.run())}
        self._tasks |= tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, outer):
            each.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks -= tasks

    async def _ask(self, reader: asyncio.StreamReader, outer: asyncio.StreamWriter, answers: _Answers) -> None:
        size = await reader.readexactly(4)  # the first message has no type
        outer.write(size + await reader.readexactly(int.from_bytes(size, "big") - 4))
        question = b""
        while True:
            head = await reader.readexactly(5)
            question += head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            if head[:1] in (b"Q", b"S") and self._is_the_one():
                if self._loss == "unheard":
                    answers.withhold()
                    outer.write(question)
                    await answers.complete.wait()
                return
            if head[:1] not in _PARTS:
                outer.write(question)
                await outer.drain()
                question = b""

    def _is_the_one(self) -> bool:
        if not self._left:
            return False
        self._left -= 1
        return self._left == 0


class _Answers:
    """What the server says, passed on until it is withheld; `complete` once it is ready for another question."""

    def __init__(self, inner: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._inner, self._writer = inner, writer
        self._withheld = False
        self.complete = asyncio.Event()

    def withhold(self) -> None:
        self._withheld = True

    async def run(self) -> None:
        while True:
            head = await self._inner.readexactly(5)
            message = head + await self._inner.readexactly(int.from_bytes(head[1:], "big") - 4)
            if not self._withheld:
                self._writer.write(message)
                await self._writer.drain()
            elif head[:1] == b"Z":
                self.complete.set()
