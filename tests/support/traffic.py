"""Issuing, revoking and asking, all at once and without pause, for as long as a test kills processes beside it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, Self

from loadtest.system import System
from quash.pki.certid import CertIdHash
from quash.pki.serials import format_serial
from tests.support.clients import Key, Operator, Stranger, Told, make_csr, new_key
from tests.support.faults import until

_OPERATORS = 3
_PAUSE = 0.02


class Traffic:
    """Runs from entering the context until `stop`, which raises the first thing that ever was as it must not be.

    Each operator orders a certificate or two for one key and revokes every other time, two certificates of one key for
    keyCompromise. A stranger looks on: what was handed out is always answered, and what was once seen revoked is never
    good again. Nobody answering, and tryLater, are no lies.
    """

    def __init__(self, system: System, seed: int = 0) -> None:
        self.told = Told()
        self._random = random.Random(seed)
        self._system = system
        self._stopping = False
        self._seen_revoked: set[Key] = set()
        self.answers = 0

    async def __aenter__(self) -> Self:
        work: list[Coroutine[Any, Any, None]] = [self._operate(number) for number in range(_OPERATORS)]
        self._tasks = [asyncio.create_task(each) for each in [*work, self._watch()]]
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._stopping = True
        if error[0] is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> Told:
        """Lets everybody finish what is under way."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        return self.told

    async def progress(self) -> None:
        """Waits until one more order and one more revocation were answered: the system works again."""
        issued, revoked = len(self.told.issued), len(self.told.revoked)

        async def look() -> bool:
            for task in self._tasks:
                if task.done():
                    await task
            return len(self.told.issued) > issued and len(self.told.revoked) > revoked

        await until("one more order and one more revocation", look)

    async def _operate(self, number: int) -> None:
        async with Operator(self._system, self.told) as operator:
            while not self._stopping:
                number += 1
                key = new_key()
                first = await operator.order("tls-dv", make_csr("tls-dv", key))
                if number % 4 == 0:
                    sibling = await operator.order("tls-ov", make_csr("tls-ov", key))
                    self.told.asked.add(sibling)
                    await operator.revoke(first, "keyCompromise")
                    self.told.revoked[sibling] = "keyCompromise"
                elif number % 2 == 0:
                    await operator.revoke(first, "superseded")
                await asyncio.sleep(_PAUSE)

    async def _watch(self) -> None:
        async with Stranger(self._system) as stranger:
            while not self._stopping:
                if self.told.issued:
                    await self._look(stranger, self._random.choice(list(self.told.issued)))
                await asyncio.sleep(_PAUSE)

    async def _look(self, stranger: Stranger, key: Key) -> None:
        said = await stranger.ask(key, self._random.choice(list(CertIdHash)))
        if said in ("silent", "try_later"):
            return
        self.answers += 1
        allowed = {"revoked"} if key in self._seen_revoked else {"good"}
        if key in self.told.asked:
            allowed.add("revoked")
        assert said in allowed, f"{key[0]} {format_serial(key[1])}: {said}, not {allowed}"
        if said == "revoked":
            self._seen_revoked.add(key)
