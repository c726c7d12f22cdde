"""Asking the presigner's socket for an answer of one asker's own: with a nonce (A27), about several certificates (A22).

What goes there are CertIDs and a nonce, never octets to sign nor a status. What the cache would have said is the
fallback, and the least that is accepted: a live signer that knows less than the cache has lost something.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import Counter

from quash.errors import Kind, QuashError
from quash.runtime import rpc
from quash.runtime.config import Live as LiveConfig
from responder.serve.answer import SIGNED, Answer, Ask, live_answer, too_busy

LIVE = Counter(
    "quash_ocsp_live_total", "Answers asked of the live signer, by how that ended: signed, or a code", ["end"]
)


class LiveClient:
    """One worker's way to the signer behind `path`, bounded in number and time."""

    def __init__(self, path: Path, limits: LiveConfig) -> None:
        self._path = path
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.in_flight)
        self._under_way = 0

    async def answer(self, otherwise: Answer) -> Answer:
        """The answer that `otherwise.ask` asks for, or `otherwise`: at the latest after `seconds`."""
        if otherwise.ask is None:
            return otherwise
        try:
            answer = await self._bounded(otherwise.ask, otherwise)
        except QuashError as error:
            LIVE.labels(error.code).inc()
            # Nobody there, or a certificate it does not answer for: that is no matter of moments.
            passes = error.kind is Kind.UNAVAILABLE and error.code != "rpc.unavailable"
            return too_busy(otherwise) if passes else otherwise
        LIVE.labels("signed").inc()
        return answer

    async def _bounded(self, ask: Ask, otherwise: Answer) -> Answer:
        if self._under_way >= self._limits.in_flight + self._limits.queue:
            raise QuashError("live.queue_full", "too many answers wait for the live signer", Kind.UNAVAILABLE)
        self._under_way += 1
        try:
            async with asyncio.timeout(self._limits.seconds), self._slots:
                return await self._ask(ask, otherwise)
        except TimeoutError:
            raise QuashError("live.late", "the live signer takes too long", Kind.UNAVAILABLE) from None
        finally:
            self._under_way -= 1

    async def _ask(self, ask: Ask, otherwise: Answer) -> Answer:
        cert_ids = [[id_.hash.value, id_.name_hash.hex(), id_.key_hash.hex(), id_.serial.hex()] for id_ in ask.cert_ids]
        request = {"cert_ids": cert_ids, "nonce": None if ask.nonce is None else ask.nonce.hex()}
        header, body = await rpc.call(self._path, request, timeout=2 * self._limits.seconds)
        try:
            said, this_update = header["said"], int(header["this_update"])
            behind = any(version < known for (version, _), known in zip(said, ask.versions, strict=True))
            revoked = any(reason is not None for _, reason in said)
        except (KeyError, TypeError, ValueError):
            raise QuashError("live.not_understood", "the live signer is of another release", Kind.INTERNAL) from None
        if behind:
            raise QuashError("live.behind", "the live signer does not know what the cache knows", Kind.INTERNAL)
        return live_answer(SIGNED[revoked] if len(said) == 1 else "several", body, otherwise, this_update)
