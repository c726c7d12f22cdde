"""OCSP answers that a revocation changed, as the URLs under which caches keep them (RFC 9919)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote

from crlgen.publish.purge import MAX_AGE, Purger
from quash.pki.certid import CertId, CertIdHash, issuer_hashes
from quash.pki.ocsp_request import build_request
from quash.runtime.clock import Clock
from quash.store import issuers
from quash.store.database import Pool, acquire
from quash.store.issuers import Issuer
from quash.store.news import NewsReader

DELAY = 5
"""Seconds from seeing a revocation until its URLs are purged: it must be visible at every node by then."""


def get_urls(base: str, issuer: Issuer, serial: bytes) -> Iterator[str]:
    """The GET URLs of a certificate's answers, both hashes; `base` as certificates carry it, before the issuer's path.

    A request is base64, percent-encoded; clients that encode less ask for another URL, which a cache keeps apart.
    """
    for algorithm in CertIdHash:
        hashes = issuer_hashes(issuer.subject, issuer.spki, algorithm)
        request = build_request(CertId(algorithm, hashes.name_hash, hashes.key_hash, serial))
        text = base64.b64encode(request).decode()
        for path in dict.fromkeys((quote(text, safe=""), text)):
            yield f"{base}/{issuer.ocsp_path}/{path}"


class OcspPurges:
    """Tells the purger of every revocation."""

    def __init__(self, pool: Pool, purger: Purger, clock: Clock, base: str) -> None:
        self._pool = pool
        self._purger = purger
        self._clock = clock
        self._base = base
        self._reader = NewsReader("revocation", ("issuer_id", "serial", "recorded_at"), "ocsp-purge")
        self._loaded = False

    async def step(self) -> int:
        """Takes what is new; returns how many revocations. Those that caches have forgotten by now are passed over."""
        now = self._clock.now()
        async with acquire(self._pool) as conn:
            if not self._loaded:
                self._reader.resume(await self._reader.load(conn))
                self._loaded = True
            batch = await self._reader.read(conn)
            if not batch.rows:
                return 0
            fresh = [row for row in batch.rows if row["recorded_at"] + MAX_AGE >= now]
            known = {id_: await issuers.get(conn, id_) for id_ in {row["issuer_id"] for row in fresh}}
        for row in fresh:
            if issuer := known[row["issuer_id"]]:
                urls = get_urls(self._base, issuer, row["serial"])
                self._purger.add(urls, f"ocsp/{issuer.name}", ocsp=True, after=DELAY)
        async with acquire(self._pool) as conn:
            await self._reader.save(conn, batch.position, int(now))
        self._reader.accept(batch)
        return len(batch.rows)
