"""The admin API's routes for the certificates of cases: which they are, how each stands, revoking them."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import Field

from issuer.api import answer, read, read_query, require, timestamp
from issuer.revocation import exemption_api
from issuer.revocation.case_view import number, unchanged
from issuer.revocation.cases import MAX_CERTIFICATES, add_certificates, find_case, judged, revoke_members
from issuer.revocation.find import Target
from issuer.revocation.routes import EVERYONE, MAY_REVOKE, Body, Routes
from issuer.revocation.search_api import MemberQuery
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial, parse_serial
from quash.store import cases, exemptions, issuers
from quash.store.cases import Member
from quash.store.database import acquire

_PAGE: Final = 1000
_REVOKED_AT_ONCE: Final = 50  # certificates of one request: each is a transaction of its own


class Named(Body):
    """One certificate."""

    serial: str
    issuer: str | None = None


class CertificatesBody(Body):
    certificates: Annotated[list[Named], Field(min_length=1, max_length=MAX_CERTIFICATES)]


class CaseCertificatesApi(Routes):
    """The handlers."""

    def add_routes(self, app: web.Application) -> None:
        case = "/v1/cases/{id:[0-9]{1,18}}"
        app.add_routes(
            [
                web.get(f"{case}/certificates", self.list_certificates),
                web.post(f"{case}/certificates", self.add_certificates),
                web.post(f"{case}/revocation", self.revoke),
                web.get(f"{case}/exemptions", self.list_exemptions),
            ]
        )

    async def list_certificates(self, request: web.Request) -> web.Response:
        """Each with how it stands, by issuer and serial."""
        require(request, *EVERYONE)
        after = read_query(request, MemberQuery).cursor()
        async with acquire(self._pool) as conn:
            await find_case(conn, number(request))
            page = await cases.members(conn, number(request), after, _PAGE)
            names = {each.id: each.name for each in await issuers.all_issuers(conn)}
        last = page[-1] if len(page) == _PAGE else None
        following = f"{last.issuer_id}:{format_serial(last.serial)}" if last else None
        return answer({"certificates": [_member(each, names, self._now) for each in page], "after": following})

    async def add_certificates(self, request: web.Request) -> web.Response:
        operator = require(request, *MAY_REVOKE)
        body = await read(request, CertificatesBody)
        targets = [Target(each.issuer, parse_serial(each.serial)) for each in body.certificates]
        async with unchanged(self._pool, self._now, request) as conn:
            added = await add_certificates(conn, operator.actor, number(request), targets, self._now)
        return answer({"added": added}, status=201)

    async def revoke(self, request: web.Request) -> web.Response:
        """Some of the certificates, with the trigger's reason; `left` says how many more: ask again."""
        operator = require(request, *MAY_REVOKE)
        async with unchanged(self._pool, self._now, request) as conn:
            reason = (await judged(conn, number(request))).reason
        async with acquire(self._pool) as conn:  # each certificate is a transaction of its own
            done, left = await revoke_members(
                conn, self._clock, operator, number(request), reason, batch=_REVOKED_AT_ONCE
            )
        return answer({"revoked": done, "left": left})

    async def list_exemptions(self, request: web.Request) -> web.Response:
        """The officers' decisions about certificates of the case, those that are over as well."""
        require(request, *EVERYONE)
        now = self._now
        async with acquire(self._pool) as conn:
            await find_case(conn, number(request))
            found = await exemptions.of_case(conn, number(request))
        told = [{**exemption_api.shown(each), "in_force": each.ended_at is None and each.until > now} for each in found]
        return answer({"exemptions": told})


def _member(member: Member, names: dict[int, str], now: int) -> dict[str, Any]:
    return {
        "issuer": names[member.issuer_id],
        "serial": format_serial(member.serial),
        "fingerprint": None if member.der is None else hashlib.sha256(member.der).hexdigest(),
        "revoked": member.reason is not None,
        "expired": member.not_after < now,
        "revoked_at": timestamp(member.revoked_at),
        "recorded_at": timestamp(member.recorded_at),
        "reason": None if member.reason is None else Reason(member.reason).name,
        "visible_at": timestamp(member.seen_at),
    }
