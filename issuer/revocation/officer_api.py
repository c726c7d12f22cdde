"""The admin API's routes for officers: kill switch, operators, and what waits for a second officer."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import StringConstraints

from issuer import staff
from issuer.api import answer, read, require, timestamp
from issuer.revocation import approvals, kill_switch
from issuer.revocation.find import issuer_by_name
from issuer.revocation.routes import EVERYONE, MAY_REVOKE, Body, Routes, Text
from quash.store import issuers, operators, proposals
from quash.store.database import acquire
from quash.store.proposals import Proposal


class KillSwitchBody(Body):
    """`issuer`: by name, null for all. `stopped`: false proposes to lift. `why`: for the ledger."""

    issuer: str | None = None
    stopped: bool
    why: Text


class OperatorBody(Body):
    """A client certificate for a key that the operator made on hardware (`csr`: PEM). `renews`: of a known name.

    `account`: of a reseller, whose certificates are all that it sees (G42).
    """

    name: Text
    person: Text
    role: Text
    csr: Annotated[str, StringConstraints(min_length=1, max_length=60_000)]
    renews: bool = False
    account: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")] | None = None


class ApprovalBody(Body):
    """`sha256`: of the proposal, as it was shown."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class OfficerApi(Routes):
    """The handlers."""

    def add_routes(self, app: web.Application) -> None:
        app.add_routes(
            [
                web.get("/v1/kill-switch", self.get_kill_switch),
                web.post("/v1/kill-switch", self.post_kill_switch),
                web.get("/v1/operators", self.list_operators),
                web.post("/v1/operators", self.post_operator),
                web.post("/v1/operators/{name}/disable", self.disable_operator),
                web.get("/v1/proposals", self.list_proposals),
                web.get("/v1/proposals/{id:[0-9]{1,18}}", self.get_proposal),
                web.post("/v1/proposals/{id:[0-9]{1,18}}/approval", self.approve),
            ]
        )

    async def get_kill_switch(self, request: web.Request) -> web.Response:
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            switches = await issuers.kill_switches(conn)
        return answer({"switches": [{**each, "at": timestamp(each["at"])} for each in switches]})

    async def post_kill_switch(self, request: web.Request) -> web.Response:
        """Stopping is at once and anybody's who may revoke; lifting is an officer's proposal."""
        operator = require(request, *MAY_REVOKE)
        body = await read(request, KillSwitchBody)
        async with acquire(self._pool) as conn:
            if body.stopped:
                act_id = await kill_switch.stop(conn, operator, body.issuer, body.why, self._now)
                return answer({"issuer": body.issuer, "stopped": True, "act_id": act_id}, status=201)
            require(request, "officer")
            if body.issuer is not None:
                await issuer_by_name(conn, body.issuer)
            payload = {"issuer": body.issuer, "why": body.why}
            return accepted(await approvals.propose(conn, operator, kill_switch.LIFT, payload, self._now))

    async def list_operators(self, request: web.Request) -> web.Response:
        require(request, "officer", "auditor")
        async with acquire(self._pool) as conn:
            everyone = await operators.everyone(conn)
        return answer(
            {
                "operators": [
                    {
                        "name": each.name,
                        "person": each.person,
                        "role": each.role,
                        "account": each.account,
                        "state": each.state,
                        "fingerprint": each.fingerprint.hex(),
                    }
                    for each in everyone
                ]
            }
        )

    async def post_operator(self, request: web.Request) -> web.Response:
        operator = require(request, "officer")
        body = await read(request, OperatorBody)
        async with acquire(self._pool) as conn:
            return accepted(await approvals.propose(conn, operator, staff.ADD, body.model_dump(), self._now))

    async def disable_operator(self, request: web.Request) -> web.Response:
        operator = require(request, "officer")
        payload = {"name": request.match_info["name"]}
        async with acquire(self._pool) as conn:
            return accepted(await approvals.propose(conn, operator, staff.DISABLE, payload, self._now))

    async def list_proposals(self, request: web.Request) -> web.Response:
        require(request, "officer", "auditor")
        async with acquire(self._pool) as conn:
            waiting = await proposals.waiting(conn, self._now)
        return answer({"proposals": [_proposal(each) for each in waiting]})

    async def get_proposal(self, request: web.Request) -> web.Response:
        require(request, "officer", "auditor")
        async with acquire(self._pool) as conn:
            return answer(_proposal(await approvals.find(conn, int(request.match_info["id"]))))

    async def approve(self, request: web.Request) -> web.Response:
        operator = require(request, "officer")
        body = await read(request, ApprovalBody)
        number = int(request.match_info["id"])
        async with acquire(self._pool) as conn:
            done = await approvals.approve(conn, operator, number, bytes.fromhex(body.sha256), self._now)
        return answer(_proposal(done))


def accepted(proposal: Proposal) -> web.Response:
    """A proposal that waits for the second officer."""
    return answer(_proposal(proposal), status=202)


def _proposal(proposal: Proposal) -> dict[str, Any]:
    return {
        "id": proposal.id,
        "action": proposal.action,
        "payload": proposal.payload,
        "sha256": proposal.sha256.hex(),
        "proposed_by": proposal.person,
        "at": timestamp(proposal.at),
        "expires_at": timestamp(proposal.expires_at),
        "approved_by": proposal.approved_by,
        "approved_at": timestamp(proposal.approved_at),
    }
