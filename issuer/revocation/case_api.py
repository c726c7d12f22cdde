"""The admin API's routes for cases."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, Strict, StringConstraints

from issuer.api import answer, read, require, timestamp
from issuer.revocation.cases import (
    MAX_CERTIFICATES,
    Standing,
    add_certificates,
    find_case,
    open_case,
    record_event,
    revoke_members,
    standing,
)
from issuer.revocation.find import Target
from issuer.revocation.officer_api import Text
from issuer.revocation.triggers import TRIGGERS
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial, parse_serial
from quash.runtime.clock import Clock
from quash.store import cases, issuers
from quash.store.cases import Member
from quash.store.database import Pool, acquire

_EVERYONE = ("viewer", "operator", "officer", "auditor")
_PAGE = 1000
_REVOKED_AT_ONCE = 50  # certificates of one request: each is a transaction of its own
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CaseBody(_Body):
    """`trigger`: a name of `GET /v1/triggers`. `received_at`: RFC 3339, when the report came; else now."""

    trigger: str
    reporter: Text
    summary: Text
    received_at: Annotated[AwareDatetime, Strict(False)] | None = None


class Named(_Body):
    """One certificate."""

    serial: str
    issuer: str | None = None


class CertificatesBody(_Body):
    certificates: Annotated[list[Named], Field(min_length=1, max_length=MAX_CERTIFICATES)]


class NoteBody(_Body):
    text: Text


class EvidenceBody(_Body):
    """A file that is kept elsewhere: its name and SHA-256."""

    name: Text
    sha256: Digest


class CaseApi:
    """The handlers; each begins with who may ask."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    def add_routes(self, app: web.Application) -> None:
        case = "/v1/cases/{id:[0-9]{1,18}}"
        app.add_routes(
            [
                web.get("/v1/triggers", self.list_triggers),
                web.get("/v1/cases", self.list_cases),
                web.post("/v1/cases", self.open),
                web.get(case, self.get),
                web.get(f"{case}/certificates", self.list_certificates),
                web.post(f"{case}/certificates", self.add_certificates),
                web.get(f"{case}/timeline", self.timeline),
                web.post(f"{case}/notes", self.note),
                web.post(f"{case}/evidence", self.evidence),
                web.post(f"{case}/preliminary-report", self.preliminary_report),
                web.post(f"{case}/revocation", self.revoke),
            ]
        )

    @property
    def _now(self) -> int:
        return int(self._clock.now())

    async def list_triggers(self, request: web.Request) -> web.Response:
        require(request, *_EVERYONE)
        rows = [
            {"trigger": each.name, "rule": each.rule, "seconds": each.seconds, "reason": each.reason.name}
            | {"text": each.text}
            for each in TRIGGERS.values()
        ]
        return answer({"triggers": rows})

    async def list_cases(self, request: web.Request) -> web.Response:
        require(request, *_EVERYONE)
        async with acquire(self._pool) as conn:
            found = await cases.everything(conn)
        return answer({"cases": [_case(standing(each, self._now)) for each in found]})

    async def open(self, request: web.Request) -> web.Response:
        operator = require(request, "operator", "officer")
        body = await read(request, CaseBody)
        now = self._now
        received = now if body.received_at is None else int(body.received_at.timestamp())
        async with acquire(self._pool) as conn:
            number = await open_case(
                conn,
                operator,
                trigger=body.trigger,
                received_at=received,
                reporter=body.reporter,
                summary=body.summary,
                now=now,
            )
            return answer(_case(standing(await find_case(conn, number), now)), status=201)

    async def get(self, request: web.Request) -> web.Response:
        require(request, *_EVERYONE)
        return await self._shown(_number(request))

    async def list_certificates(self, request: web.Request) -> web.Response:
        """Pages by `?after=issuer id:serial`, as the page before says."""
        require(request, *_EVERYONE)
        issuer_id, _, serial = request.query.get("after", "-1:").partition(":")
        after = (int(issuer_id) if issuer_id.isdecimal() else -1, parse_serial(serial) if serial else b"")
        async with acquire(self._pool) as conn:
            await find_case(conn, _number(request))
            page = await cases.members(conn, _number(request), after, _PAGE)
            names = {each.id: each.name for each in await issuers.all_issuers(conn)}
        last = page[-1] if len(page) == _PAGE else None
        following = f"{last.issuer_id}:{format_serial(last.serial)}" if last else None
        return answer({"certificates": [_member(each, names, self._now) for each in page], "after": following})

    async def add_certificates(self, request: web.Request) -> web.Response:
        operator = require(request, "operator", "officer")
        body = await read(request, CertificatesBody)
        targets = [Target(each.issuer, parse_serial(each.serial)) for each in body.certificates]
        async with acquire(self._pool) as conn:
            added = await add_certificates(conn, operator, _number(request), targets, self._now)
        return answer({"added": added}, status=201)

    async def timeline(self, request: web.Request) -> web.Response:
        require(request, *_EVERYONE)
        async with acquire(self._pool) as conn:
            await find_case(conn, _number(request))
            rows = await cases.timeline(conn, _number(request))
        shown = [{"at": timestamp(at), "by": actor, "action": action, "what": what} for at, actor, action, what in rows]
        return answer({"timeline": shown})

    async def note(self, request: web.Request) -> web.Response:
        require(request, "operator", "officer")
        return await self._event(request, "note", (await read(request, NoteBody)).text, None)

    async def evidence(self, request: web.Request) -> web.Response:
        require(request, "operator", "officer")
        body = await read(request, EvidenceBody)
        return await self._event(request, "evidence", body.name, bytes.fromhex(body.sha256))

    async def preliminary_report(self, request: web.Request) -> web.Response:
        """That subscriber and reporter have it, and how they were told (C6)."""
        require(request, "operator", "officer")
        return await self._event(request, "preliminary-report", (await read(request, NoteBody)).text, None)

    async def revoke(self, request: web.Request) -> web.Response:
        """Some of the certificates, with the trigger's reason; `left` says how many more: ask again."""
        operator = require(request, "operator", "officer")
        async with acquire(self._pool) as conn:
            done, left = await revoke_members(conn, self._clock, operator, _number(request), batch=_REVOKED_AT_ONCE)
        return answer({"revoked": done, "left": left})

    async def _event(self, request: web.Request, kind: str, text: str, sha256: bytes | None) -> web.Response:
        operator = require(request, "operator", "officer")
        async with acquire(self._pool) as conn:
            await record_event(conn, operator, _number(request), kind=kind, text=text, sha256=sha256, now=self._now)
        return await self._shown(_number(request), 201)

    async def _shown(self, number: int, status: int = 200) -> web.Response:
        async with acquire(self._pool) as conn:
            return answer(_case(standing(await find_case(conn, number), self._now)), status)


def _number(request: web.Request) -> int:
    return int(request.match_info["id"])


def _case(stands: Standing) -> dict[str, Any]:
    case = stands.case
    return {
        "id": case.id,
        "trigger": case.trigger,
        "rule": stands.trigger.rule,
        "reason": stands.trigger.reason.name,
        "reporter": case.reporter,
        "summary": case.summary,
        "received_at": timestamp(case.received_at),
        "opened_at": timestamp(case.opened_at),
        "preliminary_report_by": timestamp(stands.report_by),
        "preliminary_report_at": timestamp(case.reported_at),
        "publish_by": timestamp(stands.publish_by),
        "state": stands.state,
        "late": stands.late,
        "certificates": case.total,
        "revoked": case.revoked,
        "visible": case.seen,
        "visible_at": timestamp(case.last_seen_at),
    }


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
