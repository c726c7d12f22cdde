"""The CA keys of this process: opened when first used, each used by one request at a time in a thread of its own.

An open key that is quick is used by the event loop: asking a thread costs as much as the signature.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from quash.errors import Kind, QuashError
from quash.keys import KeyHandle, KeyUnavailable
from quash.pki.algorithms import verify
from quash.store.issuers import Issuer

T = TypeVar("T")
_SHORT = 65536  # octets: more, as of a CRL, take longer to hash than a thread takes to be asked


class CaKey:
    """The key of one issuer. Not used directly: `KeyRing.hold` hands it to one request at a time."""

    def __init__(self, issuer_id: int, opener: Callable[[Issuer], KeyHandle]) -> None:
        self.lock = asyncio.Lock()
        self.holders = 0
        self.used = False
        self._opener = opener
        self._handle: KeyHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ca-key-{issuer_id}")

    async def run(self, work: Callable[[], T]) -> T:
        """Does something heavy in the key's thread, so that the event loop goes on."""
        self.used = True
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _use(self, work: Callable[[], T], octets: int = 0) -> T:
        if self._handle is not None and self._handle.quick and octets <= _SHORT:
            return work()
        return await self.run(work)

    async def open(self, issuer: Issuer) -> None:
        """Opens the key, or sees whether the open one is still there. Raises `KeyUnavailable`, `key.mismatch`."""
        await self._use(lambda: self._look(issuer))

    async def sign(self, issuer: Issuer, tbs: bytes) -> bytes:
        """The raw signature of `tbs`, verified: a faulty one is not handed out, since it may tell the key.

        Raises `KeyUnavailable`; the next call opens the key anew.
        """
        return await self._use(lambda: self._sign(issuer, tbs), len(tbs))

    async def close(self) -> None:
        await self.run(self._close)
        self._thread.shutdown()

    def _open(self, issuer: Issuer) -> KeyHandle:
        if self._handle is not None:
            return self._handle
        handle = self._opener(issuer)
        if handle.spki != issuer.spki or handle.algorithm.name != issuer.signature_algorithm:
            handle.close()
            raise QuashError(
                "key.mismatch",
                f"the key found for {issuer.name} is another one; check its key_ref",
                Kind.INTERNAL,
            )
        self._handle = handle
        return handle

    def _look(self, issuer: Issuer) -> None:
        try:
            self._open(issuer).check()
        except KeyUnavailable:
            self._close()
            raise

    def _sign(self, issuer: Issuer, tbs: bytes) -> bytes:
        handle = self._open(issuer)
        try:
            raw = handle.sign(tbs)
        except KeyUnavailable:
            self._close()
            raise
        verify(handle.spki, handle.algorithm, raw, tbs)
        return raw

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


class KeyRing:
    """Every CA key that this process has used, by issuer."""

    def __init__(self, opener: Callable[[Issuer], KeyHandle]) -> None:
        """`opener` opens an issuer's key, or raises (`issuer.signer.key_files`)."""
        self._opener = opener
        self._keys: dict[int, CaKey] = {}

    @asynccontextmanager
    async def hold(self, issuer_id: int) -> AsyncIterator[CaKey]:
        """The issuer's key, for one request at a time; the others wait.

        Whether there is such an issuer is found out while holding: of one that there is not, nothing stays.
        """
        key = self._keys.get(issuer_id)
        if key is None:
            key = self._keys[issuer_id] = CaKey(issuer_id, self._opener)
        key.holders += 1
        try:
            async with key.lock:
                yield key
        finally:
            key.holders -= 1
            if not key.holders and not key.used:
                self._keys.pop(issuer_id, None)

    async def close(self) -> None:
        for key in self._keys.values():
            await key.close()
        self._keys.clear()
