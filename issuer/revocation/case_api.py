"""The admin API's routes for cases: opening, looking at, judging, closing them."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import AwareDatetime, Strict, StringConstraints

from issuer.api import answer, read, read_query, require, timestamp
from issuer.revocation.case_view import forecast, number, shown, tag, tags, unchanged
from issuer.revocation.cases import find_case, open_case, record_event, standing
from issuer.revocation.routes import EVERYONE, MAY_REVOKE, Body, Routes, Text
from issuer.revocation.search_api import PageQuery
from issuer.revocation.triggers import TRIGGERS
from quash.store import case_timeline, cases, rates
from quash.store.case_timeline import Event
from quash.store.database import Connection, acquire

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class CaseBody(Body):
    """`trigger`: a name of `GET /v1/triggers`. `received_at`: RFC 3339, when the report came; else now."""

    trigger: str
    reporter: Text
    summary: Text
    received_at: Annotated[AwareDatetime, Strict(False)] | None = None


class JudgementBody(Body):
    trigger: str


class NoteBody(Body):
    text: Text


class EvidenceBody(Body):
    """A file that is kept elsewhere: its name and SHA-256."""

    name: Text
    sha256: Digest


class CaseApi(Routes):
    """The handlers."""

    def add_routes(self, app: web.Application) -> None:
        case = "/v1/cases/{id:[0-9]{1,18}}"
        app.add_routes(
            [
                web.get("/v1/triggers", self.list_triggers),
                web.get("/v1/cases", self.list_cases),
                web.post("/v1/cases", self.open),
                web.get(case, self.get),
                web.get(f"{case}/timeline", self.timeline),
                web.post(f"{case}/notes", self.note),
                web.post(f"{case}/evidence", self.evidence),
                web.post(f"{case}/preliminary-report", self.preliminary_report),
                web.post(f"{case}/pick-up", self.pick_up),
                web.post(f"{case}/judgement", self.judge),
                web.post(f"{case}/closure", self.close),
                web.post(f"{case}/reopening", self.reopen),
                web.get(f"{case}/forecast", self.forecast),
            ]
        )

    async def list_triggers(self, request: web.Request) -> web.Response:
        require(request, *EVERYONE)
        rows = [
            {"trigger": each.name, "rule": each.rule, "seconds": each.seconds, "reason": each.reason.name}
            | {"text": each.text}
            for each in TRIGGERS.values()
        ]
        return answer({"triggers": rows})

    async def list_cases(self, request: web.Request) -> web.Response:
        """Newest first."""
        require(request, *EVERYONE)
        query = read_query(request, PageQuery)
        async with acquire(self._pool) as conn:
            found = await cases.page(conn, query.before, query.limit)
            signing = await rates.last(conn, rates.SIGNING)
        following = found[-1].id if len(found) == query.limit else None
        standings = [standing(each, self._now, signing) for each in found]
        return answer({"cases": [{**shown(each), **forecast(each)} for each in standings], "before": following})

    async def open(self, request: web.Request) -> web.Response:
        operator = require(request, *MAY_REVOKE)
        body = await read(request, CaseBody)
        now = self._now
        received = now if body.received_at is None else int(body.received_at.timestamp())
        async with acquire(self._pool) as conn, conn.transaction():
            case_id = await open_case(
                conn,
                operator.actor,
                trigger=body.trigger,
                received_at=received,
                reporter=body.reporter,
                summary=body.summary,
                now=now,
            )
            return await self._shown(conn, case_id, 201)

    async def get(self, request: web.Request) -> web.Response:
        """A case, with an ETag: `If-Match` on a change refuses it when the case is not as it was shown."""
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            said = await self._shown(conn, number(request))
        if said.headers["ETag"] in tags(request.headers.get("If-None-Match", "")):
            return web.Response(status=304, headers={"ETag": said.headers["ETag"], "Cache-Control": "no-store"})
        return said

    async def timeline(self, request: web.Request) -> web.Response:
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            await find_case(conn, number(request))
            events = await case_timeline.events(conn, number(request))
        return answer({"timeline": [_event(each) for each in events]})

    async def note(self, request: web.Request) -> web.Response:
        require(request, *MAY_REVOKE)
        return await self._event(request, "note", (await read(request, NoteBody)).text, None)

    async def evidence(self, request: web.Request) -> web.Response:
        require(request, *MAY_REVOKE)
        body = await read(request, EvidenceBody)
        return await self._event(request, "evidence", body.name, bytes.fromhex(body.sha256))

    async def preliminary_report(self, request: web.Request) -> web.Response:
        """That subscriber and reporter have it, and how they were told (C6)."""
        require(request, *MAY_REVOKE)
        return await self._event(request, "preliminary-report", (await read(request, NoteBody)).text, None)

    async def pick_up(self, request: web.Request) -> web.Response:
        """That a person deals with it: what the public reported is escalated otherwise (G39)."""
        require(request, *MAY_REVOKE)
        return await self._event(request, "picked-up", "", None)

    async def judge(self, request: web.Request) -> web.Response:
        """Which trigger it is: its deadline and reason count from now on, its clock began with the receipt."""
        require(request, *MAY_REVOKE)
        return await self._event(request, "judged", (await read(request, JudgementBody)).trigger, None)

    async def close(self, request: web.Request) -> web.Response:
        """Without a revocation of what is left: an officer's decision, with its reason."""
        require(request, "officer")
        return await self._event(request, "closed", (await read(request, NoteBody)).text, None)

    async def reopen(self, request: web.Request) -> web.Response:
        """It was closed too early."""
        require(request, "officer")
        return await self._event(request, "reopened", (await read(request, NoteBody)).text, None)

    async def forecast(self, request: web.Request) -> web.Response:
        """When all will be visible if it goes on as measured, and whether the deadline is at risk."""
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            signing = await rates.last(conn, rates.SIGNING)
            stands = standing(await find_case(conn, number(request)), self._now, signing)
        return answer(forecast(stands))

    async def _event(self, request: web.Request, kind: str, text: str, sha256: bytes | None) -> web.Response:
        operator = require(request, *MAY_REVOKE)
        async with unchanged(self._pool, self._now, request) as conn:
            await record_event(
                conn, operator.actor, number(request), kind=kind, text=text, sha256=sha256, now=self._now
            )
            return await self._shown(conn, number(request), 201)

    async def _shown(self, conn: Connection, case_id: int, status: int = 200) -> web.Response:
        """As it stands in the transaction: after the commit nothing is left that could fail."""
        case = shown(standing(await find_case(conn, case_id), self._now))
        response = answer(case, status)
        response.headers["ETag"] = tag(case)
        return response


def _event(event: Event) -> dict[str, Any]:
    last = "" if event.until == event.at else f", the last at {timestamp(event.until)}"
    what = f"{event.count} {event.what}{last}" if event.count else event.what
    return {"at": timestamp(event.at), "by": event.actor, "action": event.action, "what": what}
