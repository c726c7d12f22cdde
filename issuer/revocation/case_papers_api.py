"""The admin API's routes for the papers of cases: evidence files, and notices to whom they concern."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from aiohttp import web
from pydantic import Field, StringConstraints, model_validator

from issuer.api import answer, read, require, timestamp
from issuer.revocation.case_view import number, unchanged
from issuer.revocation.cases import add_file, find_case, standing
from issuer.revocation.notices import notify, notify_subscribers
from issuer.revocation.routes import EVERYONE, MAY_REVOKE, Body, Routes, Text
from quash.errors import Kind, QuashError
from quash.store import cases, notices
from quash.store.cases import File
from quash.store.database import acquire
from quash.store.notices import Standing as NoticeStanding

_MAX_FILE: Final = 16 << 20  # octets


class NoticeBody(Body):
    """`template`: a name of quash case notify --help. `to`: mail addresses; `subscribers`: all accounts concerned."""

    template: str
    to: Annotated[list[Text], Field(max_length=100, default_factory=list)]
    subscribers: bool = False
    text: Annotated[str, StringConstraints(max_length=8000)] = ""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if bool(self.to) == self.subscribers:
            raise ValueError("give addresses in to, or subscribers, and only one of them")
        return self


class CasePapersApi(Routes):
    """The handlers."""

    def add_routes(self, app: web.Application) -> None:
        case = "/v1/cases/{id:[0-9]{1,18}}"
        app.add_routes(
            [
                web.get(f"{case}/files", self.list_files),
                web.put(f"{case}/files/{{name:[^/]{{1,200}}}}", self.put_file),
                web.get(f"{case}/files/{{sha256:[0-9a-f]{{64}}}}", self.get_file),
                web.get(f"{case}/notices", self.list_notices),
                web.post(f"{case}/notices", self.add_notice),
            ]
        )

    async def list_files(self, request: web.Request) -> web.Response:
        """The evidence files that are kept with a case."""
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            await find_case(conn, number(request))
            found = await cases.files(conn, number(request))
        return answer({"files": [_file(each) for each in found]})

    async def put_file(self, request: web.Request) -> web.Response:
        """Keeps a file as it is sent; the same octets again change nothing."""
        operator = require(request, *MAY_REVOKE)
        if request.content_type != "application/octet-stream":
            raise QuashError("request.content_type", "send the file as application/octet-stream")
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > _MAX_FILE:
                raise QuashError("case.file_too_large", f"at most {_MAX_FILE} octets: record the hash instead")
        name = request.match_info["name"]
        async with unchanged(self._pool, self._now, request) as conn:
            kept = await add_file(conn, operator.actor, number(request), name, bytes(body), now=self._now)
        return answer(_file(kept), status=201)

    async def get_file(self, request: web.Request) -> web.Response:
        """A file, as it was sent."""
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            found = await cases.file(conn, number(request), bytes.fromhex(request.match_info["sha256"]))
        if found is None:
            raise QuashError("case.file_unknown", "the case has no file with this hash", Kind.NOT_FOUND)
        # Whatever it is, no browser shows it: it may have been sent by the one who is after us.
        headers = {
            "Content-Disposition": "attachment",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return web.Response(body=found[1], content_type="application/octet-stream", headers=headers)

    async def list_notices(self, request: web.Request) -> web.Response:
        """What was told to whom, and whether it was taken."""
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            await find_case(conn, number(request))
            found = await notices.of_case(conn, number(request))
        return answer({"notices": [_notice(each) for each in found]})

    async def add_notice(self, request: web.Request) -> web.Response:
        """To mail addresses, or to every subscriber with a certificate in the case (C18)."""
        operator = require(request, *MAY_REVOKE)
        body = await read(request, NoticeBody)
        async with unchanged(self._pool, self._now, request) as conn:
            stands = standing(await find_case(conn, number(request)), self._now)
            how: dict[str, Any] = {"now": self._now, "text": body.text}
            if body.subscribers:
                added = await notify_subscribers(conn, operator.actor, stands, body.template, **how)
            else:
                added = await notify(conn, operator.actor, stands, body.template, body.to, **how)
        return answer({"queued": added}, status=202)


def _file(file: File) -> dict[str, Any]:
    return {"name": file.name, "sha256": file.sha256.hex(), "at": timestamp(file.at), "octets": file.size}


def _notice(stands: NoticeStanding) -> dict[str, Any]:
    notice = stands.notice
    return {
        "id": notice.id,
        "at": timestamp(notice.at),
        "template": notice.template,
        "channel": notice.channel,
        "to": notice.recipient,
        "subject": notice.subject,
        "text": notice.body,
        "sent_at": timestamp(stands.sent_at),
        "tries": stands.tries,
        "last_failure": stands.last,
    }
