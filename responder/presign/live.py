"""Live signing: responses for one asker, with its nonce (A27) or about several certificates (A22).

Same truth as the records, from the same places: statuses of the database, `permit`, the roster's signer, both clocks
in agreement; and only while this process holds the lease, so that it has compared the database with the published CRLs.
A certificate that cannot be vouched for is refused: what is said then is the asker's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import Counter

from quash.errors import Kind, QuashError
from quash.pki.certid import CertId
from quash.store import statuses
from quash.store.database import Connection, Pool, acquire
from quash.store.statuses import CertificateStatus
from responder.presign.agreement import ClockAgreement
from responder.presign.desk import SigningDesk
from responder.presign.permit import Key, permit
from responder.presign.presigner import Presigner
from responder.presign.roster import Roster
from responder.presign.signing import ForOne

BATCH = 64
"""Requests that are answered from one reading of the database."""

ANSWERS = Counter("quash_presign_live", "Responses asked for one asker, by how it ended: signed, or why not.", ["end"])


class Signed(NamedTuple):
    """`said`: (version, reason or None for good) of each certificate asked about, in that order. Unix seconds."""

    response: bytes
    said: list[tuple[int, int | None]]
    this_update: int


@dataclass(eq=False)
class _Waiting:
    cert_ids: Sequence[CertId]
    nonce: bytes | None
    signed: asyncio.Future[Signed]


class LiveSigner:
    """Signs while `presigner` holds the lease and `run` runs; at most `queue` requests wait. Owns `desk`.

    Requests that came meanwhile are read for together, so that many cost the database little more than one.
    """

    def __init__(
        self,
        pool: Pool,
        presigner: Presigner,
        desk: SigningDesk,
        agreement: ClockAgreement,
        *,
        validity: int,
        queue: int,
    ) -> None:
        self._pool = pool
        self._presigner = presigner
        self._desk = desk
        self._agreement = agreement
        self._validity = validity
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(queue)

    async def sign(self, cert_ids: Sequence[CertId], nonce: bytes | None) -> Signed:
        """One response about all of them, which must be of one issuer.

        Raises `live.busy`, `live.not_leading`, `live.not_vouched_for` and what reading and signing raise.
        """
        waiting = _Waiting(cert_ids, nonce, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            ANSWERS.labels("live.busy").inc()
            raise QuashError("live.busy", "too many responses wait to be signed", Kind.UNAVAILABLE) from None
        try:
            signed = await waiting.signed
        except QuashError as error:
            ANSWERS.labels(error.code).inc()
            raise
        ANSWERS.labels("signed").inc()
        return signed

    async def run(self) -> None:
        """Answers until it is cancelled; an error is the askers' to hear, and ends nothing."""
        try:
            while True:
                batch = [await self._queue.get()]
                with contextlib.suppress(asyncio.QueueEmpty):
                    while len(batch) < BATCH:
                        batch.append(self._queue.get_nowait())
                await self._answer(batch)
        finally:
            await self._desk.close()

    async def _answer(self, batch: list[_Waiting]) -> None:
        try:
            roster, found, as_of = await self._read(batch)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            for waiting in batch:
                _fail(waiting, error)
            return
        for waiting in batch:
            if waiting.signed.done():  # nobody waits any more
                continue
            try:
                signed = await self._sign(waiting, roster, found, as_of)
            except Exception as error:  # noqa: BLE001 - as above
                _fail(waiting, error)
            else:
                if not waiting.signed.done():
                    waiting.signed.set_result(signed)

    async def _read(self, batch: Collection[_Waiting]) -> tuple[Roster, Mapping[Key, CertificateStatus], int]:
        """Who signs, what may be said of the certificates asked about, and since when that was known (A30)."""
        vouches = self._presigner.vouches
        if vouches is None:
            raise QuashError("live.not_leading", "this presigner does not hold the lease", Kind.UNAVAILABLE)
        roster, lease = vouches
        keys = {key for waiting in batch for key in map(roster.key_of, waiting.cert_ids) if key is not None}
        async with acquire(self._pool) as conn:
            as_of = await self._agreement.now(conn)
            await lease.look(conn)
            permitted = await self._permitted(conn, roster, keys, as_of)
        return roster, {(status.issuer_id, status.serial): status for status in permitted}, as_of

    async def _permitted(
        self, conn: Connection, roster: Roster, keys: Collection[Key], as_of: int
    ) -> list[CertificateStatus]:
        found, certificates = await statuses.with_certificates(conn, keys, as_of)
        return permit(found, certificates, roster.parsed_certificates).statuses

    async def _sign(
        self, waiting: _Waiting, roster: Roster, found: Mapping[Key, CertificateStatus], as_of: int
    ) -> Signed:
        keys = [roster.key_of(cert_id) for cert_id in waiting.cert_ids]
        known = [found.get(key) for key in keys if key is not None]
        permitted = [status for status in known if status is not None]
        issuers = {status.issuer_id for status in permitted}
        if len(permitted) != len(waiting.cert_ids) or len(issuers) != 1:
            raise QuashError(
                "live.not_vouched_for", "not all of these are certificates of one issuer that is ours", Kind.REFUSED
            )
        (issuer_id,) = issuers
        asked = [(cert_id.hash, status) for cert_id, status in zip(waiting.cert_ids, permitted, strict=True)]
        response = await self._desk.sign_response(
            roster.signer(issuer_id, as_of),
            roster.certificate(issuer_id),
            asked,
            as_of,
            ForOne(self._validity, waiting.nonce),
        )
        return Signed(response, [(status.version, status.reason) for status in permitted], as_of)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.signed.done():
        waiting.signed.set_exception(error)
