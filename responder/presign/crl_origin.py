"""Published CRLs that this machine's folder does not hold, fetched from where relying parties fetch them.

A presigner on a machine of its own shares no folder with the CRL builder. Without this it would compare a restored
database with nothing, and sign `good` for what the world was told is revoked (C16).
"""

from __future__ import annotations

from typing import Final

import aiohttp

from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from responder.presign.metrics import alarm

_MAX_CRL: Final = 1 << 28  # octets: five times a million entries
_CONNECT, _READ, _LOOK = 5.0, 10.0, 120.0  # seconds: to be answered, for some octets, for all CRLs together
_ABSENT: Final = frozenset({403, 404, 410})  # a bucket that may not be listed says 403
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds: whoever is refused at the last CRL has fetched all others


class CrlOrigin:
    """The origin of all CRLs, or a cache in front of it; and in memory what it handed out that was believed.

    After a failure, or a refusal of what it handed out, nothing is asked for a while, which gets longer until all was
    believed. Meanwhile a CRL that was believed before stands in, with an alarm; where there is none, the error is
    raised again at once.
    """

    def __init__(self, base: str, clock: Clock) -> None:
        self._base = base
        self._clock = clock
        self._again_at = 0.0
        self._pause = _FIRST_PAUSE
        self._failure: QuashError | None = None
        self._kept: dict[str, bytes] = {}
        self._look_until = 0.0

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self._clock.now()

    def begin(self) -> None:
        """A look at all of them begins; who drips octets must not hold up a tenure for ever."""
        self._look_until = self._clock.monotonic() + _LOOK

    def url(self, path: str) -> str:
        """Where a scope's CRL is."""
        return f"{self._base}/{path}"

    async def get(self, path: str, *, known: bool) -> bytes | None:
        """A CRL's octets; None where there is none yet. `known`: the database says that one was published.

        Raises `presign.crls_unreachable`. Nothing is verified here.
        """
        if self._failure is None or self._clock.monotonic() >= self._again_at:
            try:
                return await self._fetch(self.url(path), known=known)
            except QuashError as error:
                self.refused(error)
                if path in self._kept:
                    alarm(error.code, f"{error.message}. Until then the one of before is compared with", path=path)
        assert self._failure is not None  # noqa: S101 (or the CRL would have been returned)
        if path not in self._kept or self._failure.kind is not Kind.UNAVAILABLE:
            raise self._failure
        return self._kept[path]

    def stand_in(self, path: str, body: bytes) -> None:
        """Until a newer one is fetched."""
        self._kept.setdefault(path, body)

    def keep(self, path: str, body: bytes, next_update: int) -> None:
        """It is this scope's; until the next one it may stand in."""
        self._kept[path] = body
        if next_update < self._clock.now():
            alarm("presign.crl_expired", f"{self.url(path)} hands out a CRL whose nextUpdate has passed")

    def refused(self, error: QuashError) -> None:
        """What it handed out cannot be believed, or the database cannot beside it."""
        if self._failure is not None and self._clock.monotonic() < self._again_at:
            return  # what stood in was refused
        self._failure, self._again_at = error, self._clock.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def believed(self) -> None:
        """All that it handed out agrees with the database."""
        self._failure, self._pause = None, _FIRST_PAUSE

    async def _fetch(self, url: str, *, known: bool) -> bytes | None:
        left = max(0.001, self._look_until - self._clock.monotonic())
        timeout = aiohttp.ClientTimeout(total=left, connect=_CONNECT, sock_read=_READ)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, allow_redirects=False, headers={"Cache-Control": "no-cache"}) as answer,
            ):
                if answer.status in _ABSENT and not known:
                    return None
                if answer.status != 200:
                    raise _unreachable(url, f"it answers HTTP {answer.status}")
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > _MAX_CRL:
                        raise _unreachable(url, f"it is larger than {_MAX_CRL} octets")
                return bytes(body)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise _unreachable(url, str(error) or type(error).__name__) from None


def _unreachable(url: str, why: str) -> QuashError:
    return QuashError(
        "presign.crls_unreachable",
        f"{url}: {why}. Nothing is signed before the database was held against the published CRLs: make it reachable,"
        " or copy them into the folder crl",
        Kind.UNAVAILABLE,
    )
