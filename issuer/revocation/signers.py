"""OCSP signers over the admin API: which there are, and an operator's order to replace one at once."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from issuer.api import answer, read, require, timestamp
from issuer.revocation.api import EVERYONE, Body
from issuer.revocation.cases import ADD, open_case
from issuer.revocation.find import issuer_by_name
from quash.errors import Kind, QuashError
from quash.pki.certificate import read_certificate
from quash.pki.serials import format_serial
from quash.runtime.clock import Clock
from quash.store import acts, cases, issuers, ocsp_signers, signer_requests
from quash.store.database import Connection, Pool, acquire
from quash.store.issuers import Issuer
from quash.store.ocsp_signers import OcspSigner


class SwitchBody(Body):
    """Whose signer is to be replaced."""

    issuer: str


class SignersApi:
    """Renewal needs nobody; a switch is for a key that others may know, and officers alone order it."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    def add_routes(self, app: web.Application) -> None:
        app.add_routes([web.get("/v1/signers", self.list_signers), web.post("/v1/signers/switches", self.order_switch)])

    async def list_signers(self, request: web.Request) -> web.Response:
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            found = [
                _signer(issuer.name, signer)
                for issuer in await issuers.all_issuers(conn)
                for signer in await ocsp_signers.of_issuer(conn, issuer.id)
            ]
        return answer({"signers": found})

    async def order_switch(self, request: web.Request) -> web.Response:
        operator = require(request, "officer")
        body = await read(request, SwitchBody)
        async with acquire(self._pool) as conn:
            issuer = await issuer_by_name(conn, body.issuer)
            if issuer.key_ref is None:
                raise QuashError(
                    "signer.offline",
                    f"the key of {issuer.name} is offline: quash root ocsp-signer replaces its signer",
                    Kind.REFUSED,
                )
            now = int(self._clock.now())
            async with conn.transaction():
                act_id = await signer_requests.order_switch(conn, issuer.id, issuer.name, actor=operator.actor, at=now)
                case_id = await _open_case(conn, operator.actor, issuer, now)
        return answer({"issuer": issuer.name, "act_id": act_id, "case": case_id}, status=202)


async def _open_case(conn: Connection, actor: str, issuer: Issuer, now: int) -> int | None:
    """The case of a key that others may know (C1), with every signer certificate that it may be; None: there is none.

    A switch repairs our own answers alone: what is decided about forged ones, up to the CA itself (C3), is the case's.
    """
    signers = [each for each in await ocsp_signers.of_issuer(conn, issuer.id) if each.not_after >= now]
    if not signers:
        return None
    until = timestamp(max(each.not_after for each in signers))
    case_id = await open_case(
        conn,
        actor,
        trigger="br-3",
        received_at=now,
        reporter=actor,
        now=now,
        summary=f"The key of an OCSP signer of {issuer.name} may be known to others, who can forge `good` until"
        f" {until}: revoke the signer's certificate, and decide whether the issuing CA must be revoked (sub-ca-3).",
    )
    keys = [(issuer.id, read_certificate(each.certificate).serial) for each in signers]
    act_id = await acts.record(
        conn, at=now, actor=actor, action=ADD, subject={"case": case_id, "certificates": len(keys)}
    )
    await cases.add_certificates(conn, case_id, keys, act_id)
    return case_id


def _signer(issuer: str, signer: OcspSigner) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "serial": format_serial(read_certificate(signer.certificate).serial),
        "state": signer.state,
        "algorithm": signer.signature_algorithm,
        "not_before": timestamp(signer.not_before),
        "not_after": timestamp(signer.not_after),
    }
