"""A publisher whose files are also kept in the state's folder."""

from __future__ import annotations

from crlgen.publish.folder import Publisher


class WithCopy:
    """A publisher whose files are also kept beside, for our own processes that look at what is published.

    The first is the truth and is written first; the copy follows, whatever state it was in.
    """

    def __init__(self, truth: Publisher, copy: Publisher) -> None:
        self.truth = truth
        self.copy = copy

    async def head(self, name: str) -> str | None:
        return await self.truth.head(name)

    async def get(self, name: str) -> tuple[bytes, str] | None:
        return await self.truth.get(name)

    async def put(self, name: str, body: bytes, replaces: str | None) -> str:
        tag = await self.truth.put(name, body, replaces)
        await self.copy.put(name, body, await self.copy.head(name))
        return tag
