"""Issuing certificates that are not leaves by flow 1, without orders: reserve, sign, commit; resumable at each step."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from issuer.signer import ca_profiles
from issuer.signer.ca_keys import check_ca_key, check_not_blocked
from issuer.signer.certificate_checks import MAX_BACKDATING, MAX_CLOCK_STEP
from issuer.signer.deployment import Deployment
from issuer.signer.lint import Linted, lint_before_signing
from issuer.signer.service import CaSigner
from issuer.signer.tbs_writer import Frame, key_identifier
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial, new_serial
from quash.store import acts, certificates, locks, outbox, revocations
from quash.store.certificates import Reservation
from quash.store.database import Connection, acquire
from quash.store.issuers import Issuer
from quash.store.revocations import Revocation

ACTOR = "command:init"
_RESUME_SECONDS = MAX_BACKDATING - 3600  # the CA signer refuses older reservations; an hour is left for this run
_AT_ONCE = 1000

T = TypeVar("T")
Finish = Callable[[Connection, bytes], Awaitable[T]]
"""Writes what depends on the certificate (DER), in the transaction that commits it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate that shall exist. `build` makes its TBS; `not_after` is inclusive, in Unix seconds.

    `about`: what the act of its issuance says beside issuer, serial and profile. `theirs`: the key is somebody else's.
    """

    issuer: Issuer
    profile: str
    subject: bytes
    spki: bytes
    not_after: int
    build: Callable[[Frame], bytes]
    about: Mapping[str, Any] = field(default_factory=dict)
    theirs: bool = False

    def frame(self, serial: bytes, not_before: int, not_after: int) -> Frame:
        return Frame(
            serial=serial,
            algorithm=ca_profiles.algorithm_of(self.issuer),
            issuer=self.issuer.subject,
            not_before=not_before,
            not_after=not_after,
            subject=self.subject,
            spki=self.spki,
        )


class Ceremony:
    """Explicit commands at the machine that holds the keys (D20)."""

    def __init__(self, deployment: Deployment, signer: CaSigner, actor: str = ACTOR) -> None:
        self._actor = actor
        self._config = deployment.config
        self._pool = deployment.pool
        self._signer = signer
        self._clock = deployment.clock

    async def issue(self, wanted: Wanted, finish: Finish[T]) -> T:
        """Issues a certificate; a crash between any two steps is taken up by the same call again.

        Raises `key.*`, `lint.failed`, `reservation.revoked` and whatever `CaSigner.sign_certificate` raises.
        """
        spki_sha256 = hashlib.sha256(wanted.spki).digest()
        async with acquire(self._pool) as conn:
            # 1. The key is as good as a subscriber's has to be, whoever made it. No stranger knows one of ours yet, and
            #    a machine with CA keys may have no way out.
            await check_ca_key(conn, self._config.checks, wanted.spki, issuer=wanted.issuer, ask=wanted.theirs)
            # 2. What shall be signed goes through the linters, unless a crash left a serial that may be used. Strangers
            #    and linters take their time, so nobody who throws the kill switch waits for them (G21).
            left = any(usable for _, usable in await self._left(conn, wanted, spki_sha256))
            draft = None if left else await self._draft(conn, wanted)
            async with locks.signing_locks(conn, spki_sha256):
                return await self._sign(conn, wanted, spki_sha256, draft, finish)

    async def _sign(
        self, conn: Connection, wanted: Wanted, spki_sha256: bytes, draft: Linted | None, finish: Finish[T]
    ) -> T:
        """Under the locks, so quick: from the last look at what forbids it until all is committed."""
        # 3. The key may have been reported meanwhile; the CA signer looks at the kill switch (G21).
        await check_not_blocked(conn, wanted.spki)
        # 4. A serial that a crash left reserved is used while young and if its bytes say what is wanted now, else
        #    revoked: each one is answered (A8). T1: serial and bytes.
        serial = await self._resume(conn, wanted, spki_sha256)
        if serial is None:
            serial = await self._reserve(conn, wanted, spki_sha256, draft)
        # 5. The CA signer checks the reservation like anybody's, signs and logs.
        der = await self._signer.sign_certificate(wanted.issuer.id, serial)
        # 6. T3: the certificate, its news, and what the caller makes of it.
        async with conn.transaction():
            await certificates.complete(conn, wanted.issuer.id, serial, der)
            await outbox.add_certificates(conn, [(wanted.issuer.id, serial)])
            await acts.record(
                conn,
                at=self.now(),
                actor=self._actor,
                action="certificate.issued",
                subject={
                    "issuer": wanted.issuer.name,
                    "serial": format_serial(serial),
                    "profile": wanted.profile,
                    **wanted.about,
                },
            )
            return await finish(conn, der)

    async def _resume(self, conn: Connection, wanted: Wanted, spki_sha256: bytes) -> bytes | None:
        found = None
        for reservation, usable in await self._left(conn, wanted, spki_sha256):
            if usable:
                found = reservation.certificate.serial
            else:
                await self._give_up(conn, reservation)
        return found

    async def _left(self, conn: Connection, wanted: Wanted, spki_sha256: bytes) -> list[tuple[Reservation, bool]]:
        """What crashes left reserved, and which of it may be used."""
        found = []
        for row in await certificates.siblings(conn, spki_sha256, self.now(), _AT_ONCE):
            reservation = await certificates.get_reservation(conn, row.issuer_id, row.serial)
            if reservation is None or not _is_open(reservation, wanted):
                continue
            if await revocations.latest(conn, row.issuer_id, row.serial) is None:
                young = self.now() - reservation.created_at <= _RESUME_SECONDS
                found.append((reservation, young and _says(reservation, wanted)))
        return found

    async def _give_up(self, conn: Connection, reservation: Reservation) -> None:
        row, now = reservation.certificate, self.now()
        async with conn.transaction():
            act_id = await acts.record(
                conn,
                at=now,
                actor=self._actor,
                action="reservation.given_up",
                subject={"issuer_id": row.issuer_id, "serial": format_serial(row.serial), "profile": row.profile},
            )
            revocation = Revocation(
                issuer_id=row.issuer_id,
                serial=row.serial,
                version=1,
                reason=int(Reason.superseded),
                revoked_at=now,
                recorded_at=now,
                shard=row.shard,
                act_id=act_id,
            )
            await revocations.add(conn, [revocation])
            await outbox.add_certificates(conn, [(row.issuer_id, row.serial)])

    async def _draft(self, conn: Connection, wanted: Wanted) -> Linted:
        now = self.now()
        frame = wanted.frame(new_serial(), now, wanted.not_after)  # G33
        tbs = wanted.build(frame)
        if not wanted.issuer.taken_over:  # an imported CA's name and key are as they are
            await lint_before_signing(conn, self._config.lint, frame, tbs, wanted.profile, at=now)
        return frame, tbs

    async def _reserve(self, conn: Connection, wanted: Wanted, spki_sha256: bytes, draft: Linted | None) -> bytes:
        """T1. Raises `reservation.revoked` where what a crash had left was to be used, and somebody was quicker."""
        if draft is None:
            raise QuashError("reservation.revoked", "its serial was revoked meanwhile: run it again", Kind.CONFLICT)
        issuer, (frame, tbs) = wanted.issuer, draft
        await certificates.reserve(
            conn,
            issuer_id=issuer.id,
            serial=frame.serial,
            profile=wanted.profile,
            tbs=tbs,
            spki_sha256=spki_sha256,
            ski=key_identifier(wanted.spki),
            not_before=frame.not_before,
            not_after=frame.not_after,
            shard=None,
            bucket=certificates.bucket_of(frame.serial, issuer.bucket_count),
            order_id=None,
            created_at=self.now(),
        )
        return frame.serial

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock.now())

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection for what is read around an issuance."""
        return acquire(self._pool)


def _is_open(reservation: Reservation, wanted: Wanted) -> bool:
    row = reservation.certificate
    return (row.issuer_id, row.profile, row.state) == (wanted.issuer.id, wanted.profile, "reserved")


def _says(reservation: Reservation, wanted: Wanted) -> bool:
    """Whoever corrects what was asked for, after a crash, gets what is asked for now."""
    row = reservation.certificate
    if row.not_before is None or row.not_after > wanted.not_after + MAX_CLOCK_STEP:
        return False
    return reservation.tbs == wanted.build(wanted.frame(row.serial, row.not_before, row.not_after))
