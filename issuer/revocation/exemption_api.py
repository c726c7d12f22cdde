"""The admin API's routes for exemptions from mass revocations."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import AwareDatetime, Field, Strict

from issuer.api import answer, read, read_query, require, timestamp
from issuer.revocation import approvals, exemptions
from issuer.revocation.find import Target
from issuer.revocation.officer_api import accepted
from issuer.revocation.routes import EVERYONE, Body, Routes, Text
from issuer.revocation.search_api import PageQuery
from quash.pki.serials import format_serial, parse_serial
from quash.store import exemptions as stored
from quash.store.database import acquire
from quash.store.exemptions import Exemption


class ExemptBody(Body):
    """One certificate, by serial (hexadecimal) of `issuer` or of whoever gave it out."""

    serial: str
    issuer: str | None = None


class ExemptionBody(Body):
    """`until`: RFC 3339, at most 30 days from now. `why`: shown wherever the certificates are left out."""

    certificates: Annotated[list[ExemptBody], Field(min_length=1, max_length=exemptions.MAX_CERTIFICATES)]
    why: Text
    until: Annotated[AwareDatetime, Strict(False)]


class EndBody(Body):
    why: Text


class ExemptionApi(Routes):
    """The handlers."""

    def add_routes(self, app: web.Application) -> None:
        app.add_routes(
            [
                web.get("/v1/exemptions", self.list_exemptions),
                web.post("/v1/exemptions", self.propose),
                web.post("/v1/exemptions/{id:[0-9]{1,18}}/end", self.end),
            ]
        )

    async def list_exemptions(self, request: web.Request) -> web.Response:
        """Decisions that certificates are left out of mass revocations, newest first; also those that are over."""
        require(request, *EVERYONE)
        query = read_query(request, PageQuery)
        async with acquire(self._pool) as conn:
            found = await stored.page(conn, query.before, query.limit)
        following = found[-1].id if len(found) == query.limit else None
        return answer({"exemptions": [shown(each) for each in found], "before": following})

    async def propose(self, request: web.Request) -> web.Response:
        """A second officer approves; certificates of a blocked key are never exempt (C8)."""
        operator = require(request, "officer")
        body = await read(request, ExemptionBody)
        now = self._now
        targets = [Target(each.issuer, parse_serial(each.serial)) for each in body.certificates]
        async with acquire(self._pool) as conn:
            asked = await exemptions.payload(conn, targets, body.why, int(body.until.timestamp()), now)
            return accepted(await approvals.propose(conn, operator, exemptions.DECIDE, asked, now))

    async def end(self, request: web.Request) -> web.Response:
        """Ends one before its time."""
        operator = require(request, "officer")
        body = await read(request, EndBody)
        number = int(request.match_info["id"])
        async with acquire(self._pool) as conn:
            ended = await exemptions.end(conn, operator, number, body.why, self._now)
        return answer(shown(ended), status=201)


def shown(exemption: Exemption) -> dict[str, Any]:
    """An exemption as every answer writes it."""
    return {
        "id": exemption.id,
        "issuer": exemption.issuer,
        "serial": format_serial(exemption.serial),
        "why": exemption.why,
        "decided_at": timestamp(exemption.at),
        "until": timestamp(exemption.until),
        "proposed_by": exemption.proposed_by,
        "approved_by": exemption.approved_by,
        "ended_at": timestamp(exemption.ended_at),
        "ended_why": exemption.ended_why,
    }
