"""The signing desk: every key of this process, opened, used and closed by one thread of its own.

The thread keeps the event loop free while a token signs, and keeps the contract of KeyHandle (one thread). A key that
failed is forgotten and opened anew for the next batch. While the thread has nothing to do, the event loop itself signs
a few records with an open key that is quick: asking a thread costs as much as a signature.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

from quash.keys import KeyHandle
from quash.store.ocsp_signers import OcspSigner
from quash.store.statuses import CertificateStatus
from responder.presign.signing import Asked, Batch, ForOne, RecordSigner

P = ParamSpec("P")
T = TypeVar("T")
_FEW = 4
"""Records that the event loop may sign: with their self-check a millisecond or two."""
OpenKey = Callable[[str], KeyHandle]
"""Opens the key of a reference; raises `KeyUnavailable`."""


class Desk(Protocol):
    """Where batches are signed. Raises what `RecordSigner` raises; what failed may be asked for again.

    `at_once`: how many batches are worth handing in together. Nothing is promised of the order in which they come back.
    """

    @property
    def at_once(self) -> int: ...

    async def sign(
        self,
        signer: OcspSigner,
        issuer_certificate: bytes,
        statuses: Sequence[CertificateStatus],
        as_of: int,
        validity: int,
    ) -> Batch:
        """Records of one issuer's statuses; see `RecordSigner.sign`."""

    async def close(self) -> None:
        """Closes every key; they are opened anew if something is signed after all."""


class Keys:
    """The keys of one thread, by signer, each opened when it is first used."""

    def __init__(self, open_key: OpenKey) -> None:
        self._open_key = open_key
        self._open: dict[int, RecordSigner] = {}

    def sign(
        self,
        signer: OcspSigner,
        issuer_certificate: bytes,
        statuses: Sequence[CertificateStatus],
        as_of: int,
        validity: int,
    ) -> Batch:
        return self.use(signer, issuer_certificate, lambda records: records.sign(statuses, as_of, validity))

    def quick(self, signer: OcspSigner) -> bool:
        """Whether the signer's key is open, and quick."""
        records = self._open.get(signer.id)
        return records is not None and records.quick

    def use(self, signer: OcspSigner, issuer_certificate: bytes, work: Callable[[RecordSigner], T]) -> T:
        """What `work` returns; whatever it raises, the key is opened anew for the next."""
        try:
            if signer.id not in self._open:
                self._open[signer.id] = RecordSigner(signer, issuer_certificate, self._open_key(signer.key_ref))
            return work(self._open[signer.id])
        except Exception:  # raised again: whatever it was, a token's session may be spent
            if spent := self._open.pop(signer.id, None):
                spent.close()
            raise

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


class SigningDesk:
    """A `Desk` in this process: one batch after the other."""

    at_once = 1

    def __init__(self, open_key: OpenKey) -> None:
        self._keys = Keys(open_key)
        self._thread = _thread()
        self._asked: list[Future[Any]] = []

    async def sign(
        self,
        signer: OcspSigner,
        issuer_certificate: bytes,
        statuses: Sequence[CertificateStatus],
        as_of: int,
        validity: int,
    ) -> Batch:
        """Records of one issuer's statuses; see `RecordSigner.sign`."""
        if len(statuses) <= _FEW and self._keys.quick(signer) and self._idle():
            return self._keys.sign(signer, issuer_certificate, statuses, as_of, validity)
        return await self._ask(self._keys.sign, signer, issuer_certificate, statuses, as_of, validity)

    async def sign_response(
        self, signer: OcspSigner, issuer_certificate: bytes, asked: Sequence[Asked], as_of: int, response: ForOne
    ) -> bytes:
        """A response for one asker; see `RecordSigner.sign_response`."""
        return await self._ask(
            self._keys.use,
            signer,
            issuer_certificate,
            lambda records: records.sign_response(asked, as_of, response),
        )

    async def look(self, signer: OcspSigner, issuer_certificate: bytes) -> None:
        """Uses the signer's key once; raises `KeyUnavailable`, `presign.key_mismatch`, `presign.self_check_failed`."""
        await self._ask(self._keys.use, signer, issuer_certificate, RecordSigner.try_key)

    async def _ask(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked = self._thread.submit(work, *args, **kwargs)
        self._asked = [*(each for each in self._asked if not each.done()), asked]
        return await asyncio.wrap_future(asked)

    def _idle(self) -> bool:
        """Whether the thread has nothing to do; it goes on with what nobody waits for any more."""
        return all(each.done() for each in self._asked)

    async def close(self) -> None:
        """Closes every key; they are opened anew if something is signed after all."""
        thread, self._thread = self._thread, _thread()
        await asyncio.get_running_loop().run_in_executor(thread, self._keys.close)
        thread.shutdown()


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="presign")  # starts its thread when it is used
