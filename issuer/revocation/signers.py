"""OCSP signers over the admin API: which there are, and an operator's order to replace one at once."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from issuer.api import answer, read, read_query, require, timestamp
from issuer.revocation.find import issuer_by_name
from issuer.revocation.routes import EVERYONE, Body, Routes
from issuer.revocation.search_api import PageQuery
from quash.errors import Kind, QuashError
from quash.pki.certificate import read_certificate
from quash.pki.serials import format_serial
from quash.store import issuers, ocsp_signers, signer_requests, signer_switches, stolen_signers
from quash.store.database import Connection, acquire
from quash.store.issuers import Issuer
from quash.store.ocsp_signers import OcspSigner
from quash.store.signer_switches import SignerSwitch


class SwitchBody(Body):
    """Whose signer is to be replaced."""

    issuer: str


class SignersApi(Routes):
    """Renewal needs nobody; a switch is for a key that others may know, and officers alone order it."""

    def add_routes(self, app: web.Application) -> None:
        app.add_routes(
            [
                web.get("/v1/signers", self.list_signers),
                web.get("/v1/signers/switches", self.list_switches),
                web.get("/v1/signers/switches/{id:[0-9]{1,18}}", self.get_switch),
                web.post("/v1/signers/switches", self.order_switch),
            ]
        )

    async def list_signers(self, request: web.Request) -> web.Response:
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            found = [
                _signer(issuer.name, signer)
                for issuer in await issuers.all_issuers(conn)
                for signer in await ocsp_signers.of_issuer(conn, issuer.id)
            ]
        return answer({"signers": found})

    async def list_switches(self, request: web.Request) -> web.Response:
        """Newest first."""
        require(request, *EVERYONE)
        query = read_query(request, PageQuery)
        async with acquire(self._pool) as conn:
            found = await signer_switches.page(conn, query.before, query.limit)
        following = found[-1].id if len(found) == query.limit else None
        return answer({"switches": [self._switch(each) for each in found], "before": following})

    async def get_switch(self, request: web.Request) -> web.Response:
        """How far it is."""
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            found = await signer_switches.get(conn, int(request.match_info["id"]))
        if found is None:
            raise QuashError("signer.unknown_switch", "no switch has this number: check it", Kind.NOT_FOUND)
        return answer(self._switch(found))

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
            now = self._now
            async with conn.transaction():
                switch_id, act_id = await signer_requests.order_switch(
                    conn, issuer.id, issuer.name, actor=operator.actor, at=now
                )
                case_id = await _open_case(conn, operator.actor, issuer, now)
        said = {"issuer": issuer.name, "job": job_name(switch_id), "act_id": act_id, "case": case_id}
        return answer(said, status=202)

    def _switch(self, switch: SignerSwitch) -> dict[str, Any]:
        left = switch.seconds_left(self._clock.now())
        return {
            "id": job_name(switch.id),
            "state": switch.state,
            "issuer": switch.issuer,
            "created_at": timestamp(switch.at),
            "act_id": switch.act_id,
            "code": switch.code,
            "signing_since": timestamp(switch.began_at),
            "buckets": switch.buckets,
            "done": switch.done,
            "seconds_left": None if left is None else round(left, 1),
        }


def job_name(switch_id: int) -> str:
    """What `quash job` calls it: mass revocations have bare numbers."""
    return f"switch-{switch_id}"


async def _open_case(conn: Connection, actor: str, issuer: Issuer, now: int) -> int | None:
    """With every signer certificate that it may be; None: there is none."""
    signers = [each for each in await ocsp_signers.of_issuer(conn, issuer.id) if each.not_after >= now]
    return await stolen_signers.ensure_case(conn, issuer, signers, actor=actor, at=now) if signers else None


def _signer(issuer: str, signer: OcspSigner) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "serial": format_serial(read_certificate(signer.certificate).serial),
        "state": signer.state,
        "algorithm": signer.signature_algorithm,
        "not_before": timestamp(signer.not_before),
        "not_after": timestamp(signer.not_after),
    }
