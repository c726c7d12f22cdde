"""Granting requests for a new OCSP signer, in the CA signer's own process: no operator takes part.

A request is a row that the presigner inserts, with a key that it made. It is granted when the issuer's signer has
passed half of its life, or when an operator ordered a switch; everything else about the certificate is decided here and
checked by `CaSigner` like any other. The steps are those of flow 1 without an order: T1, sign, T3, each resumable.
"""

from __future__ import annotations

import hashlib

from prometheus_client import Counter

from issuer.signer import ca_profiles
from issuer.signer.authority import authority_of
from issuer.signer.ca_keys import check_ca_key, check_not_blocked
from issuer.signer.certificate_checks import MAX_BACKDATING
from issuer.signer.certificate_profiles import OCSP_SIGNER
from issuer.signer.lint import Linted, lint_before_signing
from issuer.signer.service import CaSigner
from issuer.signer.tbs_writer import Frame, key_identifier
from quash.errors import Kind, QuashError
from quash.pki.algorithms import algorithm_for_spki
from quash.pki.certificate import read_certificate
from quash.pki.csr import proven_key
from quash.pki.rules import DAY, renewal_due
from quash.pki.serials import new_serial
from quash.runtime.clock import Clock
from quash.runtime.config import Config, OcspSigner
from quash.runtime.log import logger
from quash.store import certificates, issuers, locks, ocsp_signers, signer_requests
from quash.store.database import Connection, Pool, acquire
from quash.store.issuers import Issuer
from quash.store.signer_requests import SignerRequest

_DECIDED = Counter("quash_ca_signer_rotations_total", "Requests for a new OCSP signer, decided", ["issuer", "code"])
_RESUME_SECONDS = MAX_BACKDATING - 3600
"""`CaSigner` refuses older reservations; an hour is left to sign."""
_CLOCKS_APART = 60
"""Seconds by which the presigner's clock may be ahead of ours when it says that a renewal is due."""

_RULES = {
    "rotation.offline": "the issuer's key is offline: quash root ocsp-signer renews its signer",
    "rotation.not_due": "the issuer's signer has more than half of its life left and no switch was ordered",
    "rotation.no_gain": "the new certificate would not outlive the one in use: the issuer's own certificate ends",
    "rotation.key_reused": "the key is an issuer's or an earlier signer's: make a new one",
}


class Rotation:
    """Decides open requests; `step` does so for all and returns how many it granted."""

    def __init__(self, pool: Pool, signer: CaSigner, config: Config, clock: Clock) -> None:
        self._pool = pool
        self._signer = signer
        self._days = {issuer.name: issuer.ocsp_signer.days for issuer in config.issuers}
        self._checks = config.checks
        self._lint = config.lint
        self._clock = clock

    async def step(self) -> int:
        """What cannot be decided now (a key away) stays open for the next step."""
        async with acquire(self._pool) as conn:
            await ocsp_signers.retire_expired(conn, self._now())
            waiting = await signer_requests.open_requests(conn)
        granted = 0
        for request in waiting:
            granted += await self._decide(request)
        return granted

    async def _decide(self, request: SignerRequest) -> bool:
        try:
            return await self._grant(request)
        except QuashError as error:
            if error.kind is Kind.UNAVAILABLE:
                logger().warning("rotation.waiting", code=error.code, detail=error.message, issuer_id=request.issuer_id)
                return False
            async with acquire(self._pool) as conn:
                await signer_requests.refuse(conn, request.id, error.code, self._now())
            logger().error("rotation.refused", code=error.code, detail=error.message, issuer_id=request.issuer_id)
            _DECIDED.labels(str(request.issuer_id), error.code).inc()
            return False

    async def _grant(self, request: SignerRequest) -> bool:
        # 1. Whoever asks holds the key.
        spki = proven_key(request.csr)
        async with acquire(self._pool) as conn:
            # 2. It is time, and the key is a good one, and new.
            issuer = await issuers.get(conn, request.issuer_id)
            if issuer is None or issuer.key_ref is None:
                raise _refused("rotation.offline")
            # No service of strangers is asked: this process opens no connection to the outside, and the key is new.
            await check_ca_key(conn, self._checks, spki, issuer=issuer, ask=False)
            # 3. Linters see it, unless a crash left a serial. They take their time, so nobody who throws the kill
            #    switch, or blocks the key, waits for them (G21, C9).
            draft = None if request.serial else await self._draft(conn, request, issuer, spki)
            async with locks.signing_locks(conn, hashlib.sha256(spki).digest()):
                done = await self._sign(conn, request, issuer, spki, draft)
        if done:
            logger().info("rotation.granted", issuer=issuer.name, switch=request.switch_id is not None)
            _DECIDED.labels(issuer.name, "granted").inc()
        return done

    async def _sign(
        self, conn: Connection, request: SignerRequest, issuer: Issuer, spki: bytes, draft: Linted | None
    ) -> bool:
        """Under the locks, so quick: from the last look at the key until all is committed."""
        # 4. The key may have been reported meanwhile.
        await check_not_blocked(conn, spki)
        # 5. T1: commit serial and bytes; or take up what a crash left.
        serial = request.serial if draft is None else await self._reserve(conn, request, issuer, spki, draft)
        if serial is None:
            return False
        await self._check_age(conn, issuer, serial)
        # 6. The CA signer checks the reservation like anybody's, signs and logs.
        der = await self._signer.sign_certificate(issuer.id, serial)
        # 7. T3: certificate, signer, news.
        fields = read_certificate(der)
        return await signer_requests.finish(
            conn,
            request.id,
            der=der,
            algorithm=algorithm_for_spki(spki).name,
            not_before=fields.not_before,
            not_after=fields.not_after,
            at=self._now(),
        )

    async def _draft(self, conn: Connection, request: SignerRequest, issuer: Issuer, spki: bytes) -> Linted:
        """What shall be signed, as linters let it pass."""
        now, every = self._now(), await ocsp_signers.of_issuer(conn, issuer.id)
        used = {each.spki for each in await issuers.all_issuers(conn)}
        used |= {read_certificate(each.certificate).spki for each in every}
        if spki in used:
            raise _refused("rotation.key_reused")
        own = await issuers.certificate(conn, issuer.id)
        if own is None:
            raise QuashError("signer.issuer_certificate", f"{issuer.name} has no certificate yet", Kind.REFUSED)
        days = self._days.get(issuer.name, OcspSigner().days)
        not_after = min(now + days * DAY - 1, own.not_after)
        if every and request.switch_id is None:
            newest = every[-1]
            if not renewal_due(newest.not_before, newest.not_after, now + _CLOCKS_APART):
                raise _refused("rotation.not_due")
            if not_after <= newest.not_after:
                raise _refused("rotation.no_gain")
        frame = Frame(
            serial=new_serial(),
            algorithm=ca_profiles.algorithm_of(issuer),
            issuer=issuer.subject,
            not_before=now,  # G33
            not_after=not_after,
            subject=ca_profiles.ocsp_signer_subject(issuer, len(every) + 1),
            spki=spki,
        )
        tbs = ca_profiles.ocsp_signer(frame, issuer_key_id=authority_of(issuer, own.der).key_id)
        if not issuer.taken_over:  # an imported CA's name and key are as they are
            await lint_before_signing(conn, self._lint, frame, tbs, OCSP_SIGNER, at=now)
        return frame, tbs

    async def _reserve(
        self, conn: Connection, request: SignerRequest, issuer: Issuer, spki: bytes, draft: Linted
    ) -> bytes | None:
        frame, tbs = draft
        return await signer_requests.reserve(
            conn,
            request.id,
            serial=frame.serial,
            tbs=tbs,
            spki_sha256=hashlib.sha256(spki).digest(),
            ski=key_identifier(spki),
            not_before=frame.not_before,
            not_after=frame.not_after,
            bucket=certificates.bucket_of(frame.serial, issuer.bucket_count),
        )

    async def _check_age(self, conn: Connection, issuer: Issuer, serial: bytes) -> None:
        """A reservation that is too old to be signed is given up: the next request begins anew."""
        reservation = await certificates.get_reservation(conn, issuer.id, serial)
        if reservation is not None and self._now() - reservation.created_at > _RESUME_SECONDS:
            raise QuashError("rotation.too_old", "the reservation has waited for a day: ask again", Kind.REFUSED)

    def _now(self) -> int:
        return int(self._clock.now())


def _refused(code: str) -> QuashError:
    return QuashError(code, _RULES[code], Kind.REFUSED)
