"""A PostgreSQL that fails at a chosen moment: a proxy that counts what clients ask, and spoils one question.

A question is one round of the protocol: a simple query (begin, commit) or an extended one up to its Sync. Dropped
`unsent`, the server never sees it, and rolls back what was open. Dropped `unheard`, the server has done it, and nobody
hears so: the caller of a commit cannot know whether it stands. `restart` drops it unsent and all connections with it,
those that hold leases and listen too. `disk_full`, `read_only` (a failover made this server a standby) and `conflict`
(a serialization failure) are errors of the server, which rolls back what was open; the connection stays.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

Loss = Literal["unsent", "unheard", "restart", "disk_full", "read_only", "conflict"]
_ERRORS = {"disk_full": "53100", "read_only": "25006", "conflict": "40001"}  # SQLSTATE
_COMMIT, _ROLLBACK = (b"Q" + (len(sql) + 5).to_bytes(4, "big") + sql + b"\0" for sql in (b"COMMIT;", b"ROLLBACK;"))
_SOCKET = ".s.PGSQL.5432"
_PARTS = frozenset({b"P", b"B", b"D", b"E", b"C"})  # of a question that goes on: parse, bind, describe, execute, close
_DONE = frozenset({b"Z", b"G"})  # answered; or ready for the rows of a COPY, which who hears nothing never sends


class Wire:
    """Between pools and the server at `server`; clients name `folder` as their host."""

    def __init__(self, server: Path, folder: Path) -> None:
        self.folder = folder
        self._server = server
        self._left: int | None = None
        self._loss: Loss = "unsent"
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def arm(self, question: int, loss: Loss) -> None:
        """This question from now on, counted from 1, is spoiled."""
        self._left, self._loss = question, loss

    def disarm(self) -> bool:
        """Whether what was armed has happened."""
        happened, self._left = self._left == 0, None
        return happened

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
        self._writers |= {writer, outer}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, outer):
            each.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks -= tasks
        self._writers -= {writer, outer}

    async def _ask(self, reader: asyncio.StreamReader, outer: asyncio.StreamWriter, answers: _Answers) -> None:
        size = await reader.readexactly(4)  # the first message has no type
        outer.write(size + await reader.readexactly(int.from_bytes(size, "big") - 4))
        question = b""
        while True:
            head = await reader.readexactly(5)
            question += head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            if head[:1] in (b"Q", b"S") and self._is_the_one():
                if self._loss in _ERRORS:
                    await _fail(question, outer, answers, _ERRORS[self._loss])
                    question = b""
                    continue
                if self._loss == "unheard":
                    await answers.withheld(question, outer)
                if self._loss == "restart":
                    for each in self._writers:
                        each.close()
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


async def _fail(question: bytes, outer: asyncio.StreamWriter, answers: _Answers, code: str) -> None:
    """Has the server raise this error in place of the answer. A commit that fails leaves no transaction behind."""
    if question == _COMMIT:
        await answers.withheld(_ROLLBACK, outer)
    sql = f"do $$begin raise exception 'made to fail' using errcode = '{code}'; end$$\0".encode()
    outer.write(b"Q" + (len(sql) + 4).to_bytes(4, "big") + sql)
    await outer.drain()


class _Answers:
    """What the server says, passed on unless it is withheld."""

    def __init__(self, inner: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._inner, self._writer = inner, writer
        self._withheld = False
        self._complete = asyncio.Event()

    async def withheld(self, question: bytes, outer: asyncio.StreamWriter) -> None:
        """Asks it, and keeps the answer to itself."""
        self._withheld = True
        self._complete.clear()  # a connection outlives an error, and may have another one
        outer.write(question)
        await self._complete.wait()
        self._withheld = False

    async def run(self) -> None:
        while True:
            head = await self._inner.readexactly(5)
            message = head + await self._inner.readexactly(int.from_bytes(head[1:], "big") - 4)
            if not self._withheld:
                self._writer.write(message)
                await self._writer.drain()
            elif head[:1] in _DONE:
                self._complete.set()
