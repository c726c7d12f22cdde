"""Rotation of delegated OCSP signers, the asking side: no operator takes part (A17).

At half of a signer's life, or when an operator ordered a switch, the lease's holder makes a key and asks for a
certificate with a row; the CA signer grants it (`issuer.signer.rotation`), and the `signer` news then bring it into the
roster. Until the old signer's records are refreshed both are served, each with its own template. A crash between key
and row leaves a key that the next try takes up.

A signer whose issuer's key is offline cannot be renewed so: a person is told `WARN_OFFLINE` before its end, and for
online issuers when renewal has failed for a quarter of its life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from quash.errors import QuashError
from quash.keys import KeyHandle
from quash.pki.certificate import read_certificate
from quash.pki.csr import certification_request, request_info
from quash.pki.rules import DAY, renewal_due
from quash.runtime.clock import Clock
from quash.store import ocsp_signers, signer_requests
from quash.store.database import Pool, acquire
from quash.store.issuers import Issuer
from quash.store.leases import Lease
from quash.store.ocsp_signers import OcspSigner
from quash.store.signer_requests import Asked
from responder.presign.metrics import SIGNER_SECONDS, alarm
from responder.presign.roster import Roster

WARN_OFFLINE = 60 * DAY
"""C-5: the root's signer is made by a ceremony, which people have to arrange."""
_WARN_ONLINE = 4  # a quarter of its life is left: two quarters have gone by without a renewal that worked
_ASK_AGAIN = 3600
"""Seconds after a request that was refused, unless a switch was ordered since; one that is open is never doubled."""

MakeKey = Callable[[Issuer, OcspSigner, str], tuple[str, KeyHandle]]
"""Makes the key of an issuer's next signer under a name, or finds it there: its reference, and the key opened.

It may block. Raises `KeyUnavailable`, `key.*`.
"""


@dataclass(frozen=True, slots=True)
class _Due:
    issuer: Issuer
    last: OcspSigner
    asked: Asked


class SignerRotation:
    """Looks after every issuer's signer, under the lease. `step` returns how many requests it made."""

    def __init__(self, pool: Pool, lease: Lease, make_key: MakeKey, clock: Clock) -> None:
        self._pool = pool
        self._lease = lease
        self._make_key = make_key
        self._clock = clock

    async def step(self, roster: Roster) -> int:
        async with acquire(self._pool) as conn:
            newest = await ocsp_signers.newest(conn)
            asked = await signer_requests.asked(conn, newest)
        requests = 0
        for issuer in roster.issuers:
            if issuer.id in newest:
                self._watch(issuer, newest[issuer.id], roster)
                requests += await self._renew(_Due(issuer, newest[issuer.id], asked[issuer.id]), roster)
        return requests

    async def _renew(self, each: _Due, roster: Roster) -> bool:
        """Asks where that is due. What one issuer lacks, above all a place for its key, holds up no other's request."""
        try:
            if not self._is_due(each, roster):
                return False
            name = f"{each.issuer.name}-r{each.asked.requests + 1}"  # `init` counts without the letter
            ref, csr = await asyncio.to_thread(self._prepare, each, name)
        except QuashError as error:
            alarm(error.code, error.message, issuer=each.issuer.name)
            return False
        await self._ask(each, ref, csr)
        return True

    def _is_due(self, each: _Due, roster: Roster) -> bool:
        last, asked, now = each.last, each.asked, self._now()
        if each.issuer.key_ref is None or asked.open:
            return False
        if asked.switch_id is not None and not asked.tried:
            return True
        if asked.newest_at is not None and now < asked.newest_at + _ASK_AGAIN and asked.newest_at > last.created_at:
            return False  # it was refused
        if asked.switch_id is not None:
            return True
        outlives = read_certificate(roster.certificate(each.issuer.id)).not_after > last.not_after
        return outlives and renewal_due(last.not_before, last.not_after, now)

    async def _ask(self, each: _Due, ref: str, csr: bytes) -> None:
        async with acquire(self._pool) as conn, conn.transaction():
            await self._lease.check(conn)
            await signer_requests.add(
                conn,
                issuer_id=each.issuer.id,
                switch_id=each.asked.switch_id,
                key_ref=ref,
                csr=csr,
                created_at=self._now(),
            )

    def _prepare(self, each: _Due, name: str) -> tuple[str, bytes]:
        """Makes the key, and a request that proves that we hold it. The CA signer gives the certificate its name."""
        ref, key = self._make_key(each.issuer, each.last, name)
        try:
            info = request_info(each.issuer.subject, key.spki)
            return ref, certification_request(info, key.algorithm, key.sign(info))
        finally:
            key.close()

    def _watch(self, issuer: Issuer, last: OcspSigner, roster: Roster) -> None:
        ends = roster.ends(issuer.id)
        if ends is not None and ends < self._now():  # it has nothing left to answer for
            SIGNER_SECONDS.remove(issuer.name)
            return
        left = last.not_after - self._now()
        SIGNER_SECONDS.labels(issuer.name).set(left)
        life = last.not_after - last.not_before
        limit = WARN_OFFLINE if issuer.key_ref is None else life // _WARN_ONLINE
        if left < limit:
            remedy = "quash root ocsp-signer" if issuer.key_ref is None else "see why the CA signer refuses it"
            alarm(
                "presign.signer_ends",
                f"the OCSP signer of {issuer.name} ends in {max(0, left) // DAY} days: {remedy}",
                issuer=issuer.name,
            )

    def _now(self) -> int:
        return int(self._clock.now())
