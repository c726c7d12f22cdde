"""Which CRL a new certificate names: the one that would list it, byte for byte as in a shard's IDP (B15, B16)."""

from __future__ import annotations

from typing import Final

from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.store import crls
from quash.store.database import Connection
from quash.store.issuers import Issuer

_KEPT: Final = 10.0
"""Seconds for which a URL is not asked for again. One that moved meanwhile stays in the IDP (`crls.move`)."""


class CrlUrls:
    """The URLs of CRLs, each asked for once in a while: they change when an origin moves."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[tuple[int, int | None], tuple[str, float]] = {}

    async def of(self, conn: Connection, issuer: Issuer, shard: int | None) -> str:
        """The URL for certificates of a shard (None: those without one). Raises `issuer.no_crl`."""
        now = self._clock.monotonic()
        url, until = self._known.get((issuer.id, shard), ("", now))
        if now < until:
            return url
        scope = await crls.find_scope(conn, issuer.id, shard)
        if scope is None:
            raise QuashError(
                "issuer.no_crl", f"{issuer.name} has no CRL for shard {shard}: run init (B18)", Kind.UNAVAILABLE
            )
        self._known[issuer.id, shard] = scope.url, now + _KEPT
        return scope.url
