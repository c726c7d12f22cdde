"""Whether relying parties get an answer: asked over HTTP as any of them would, and believed only when it verifies."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import quote

import aiohttp

from quash.errors import QuashError
from quash.pki.certid import CertId, CertIdHash, issuer_hashes
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_request import build_request
from quash.pki.ocsp_response import GOOD, Status
from quash.runtime.clock import Clock

MAX_RESPONSE: Final = 64 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)  # A40: ten seconds are the most a responder may take


class Named(Protocol):
    """What a relying party knows of an issuer: DER Name and SubjectPublicKeyInfo, and its path on the responder."""

    @property
    def subject(self) -> bytes: ...
    @property
    def spki(self) -> bytes: ...
    @property
    def ocsp_path(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Heard:
    """What one responder says to a CertID of one hash: a verified and fresh status, or None and `why` there is none.

    `answered`: whether anything came that a responder says, an OCSP error included. `body`: the response, with a
    status; `this_update` is its own.
    """

    url: str
    algorithm: CertIdHash
    status: Status | None
    why: str = ""
    answered: bool = True
    body: bytes = b""
    this_update: int = 0


class PublicAnswers:
    """Asks the responders of `issuance.visible_at` for a certificate's status. Use as an async context manager.

    `urls` carry no issuer's path. It shares nothing with the responder: no cache, no database, no key.
    """

    def __init__(self, urls: Sequence[str], clock: Clock) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._clock = clock

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def good(self, issuer: Named, issuer_certificate: bytes, serial: bytes) -> bool:
        """Whether each responder answers `good`, verified and fresh, for both CertID hashes (A20)."""
        return await self.say(issuer, issuer_certificate, serial, GOOD)

    async def say(self, issuer: Named, issuer_certificate: bytes, serial: bytes, status: Status) -> bool:
        """Whether each responder answers exactly this, verified and fresh, for both CertID hashes (A20).

        Where one hash gets another answer, nobody is asked for the other: both come out together.
        """
        for algorithm in CertIdHash:
            heard = await self._hear(issuer, issuer_certificate, serial, [algorithm])
            if any(each.status != status for each in heard):
                return False
        return True

    async def ask(self, issuer: Named, issuer_certificate: bytes, serial: bytes) -> list[Heard]:
        """What each responder answers, for both CertID hashes."""
        return await self._hear(issuer, issuer_certificate, serial, list(CertIdHash))

    async def _hear(
        self, issuer: Named, issuer_certificate: bytes, serial: bytes, algorithms: Sequence[CertIdHash]
    ) -> list[Heard]:
        asked = [
            self._ask(url, issuer, issuer_certificate, serial, algorithm)
            for url, algorithm in itertools.product(self._urls, algorithms)
        ]
        return await asyncio.gather(*asked)

    async def _ask(
        self, url: str, issuer: Named, issuer_certificate: bytes, serial: bytes, algorithm: CertIdHash
    ) -> Heard:
        cert_id = CertId(algorithm, *issuer_hashes(issuer.subject, issuer.spki, algorithm), serial)
        encoded = quote(base64.b64encode(build_request(cert_id)), safe="")  # A31
        try:
            body = await self._get(f"{url}/{issuer.ocsp_path}/{encoded}")
        except (aiohttp.ClientError, TimeoutError, QuashError) as error:
            return Heard(url, algorithm, None, f"no answer: {error or type(error).__name__}", answered=False)
        try:
            answer = verify_response(body, issuer_certificate)
        except QuashError as error:
            return Heard(url, algorithm, None, error.message)
        if answer.cert_id != cert_id or answer.this_update is None or answer.next_update is None:
            return Heard(url, algorithm, None, "an answer to another question")
        if not answer.this_update <= self._clock.now() <= answer.next_update:
            return Heard(url, algorithm, None, "an answer of another time")
        return Heard(url, algorithm, answer.status, body=body, this_update=answer.this_update)

    async def _get(self, url: str) -> bytes:
        async with self._session.get(url, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_RESPONSE:
                    break
            if response.status != 200 or len(body) > MAX_RESPONSE:
                raise QuashError("ocsp.no_answer", f"{url} answers HTTP {response.status}, {len(body)} octets")
            return bytes(body)
