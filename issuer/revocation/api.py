"""The admin API over HTTP: what each path takes, who may ask, and how an answer is written."""

from __future__ import annotations

from typing import Annotated, Any, Self

from aiohttp import web
from pydantic import AwareDatetime, Field, Strict, model_validator

from issuer.api import answer, read, read_query, require, timestamp
from issuer.revocation.find import Target, check_single, find_one, issuer_by_name, only, read_pem
from issuer.revocation.revoke import Request, Revoked, list_siblings, revoke
from issuer.revocation.routes import EVERYONE, MAY_REVOKE, Body, Routes
from issuer.revocation.scope import Scope, Siblings
from issuer.revocation.search_api import RevocationQuery
from issuer.revocation.status import CertificateStatus, status_of, unknown
from issuer.revocation.visible import Watches, target_of
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason, parse_reason
from quash.pki.serials import format_serial, parse_serial
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.store import acts, crl_demands, crls, jobs, outlook, revocations, statements
from quash.store.acts import Act
from quash.store.crls import ScopeState
from quash.store.database import Connection, Pool, acquire
from quash.store.operators import RESELLER, Operator
from quash.store.outlook import Outlook
from quash.store.revocations import Revocation
from quash.store.statements import Statement

_LOOK_EVERY = 300.0  # seconds
# What subscribers' own tools need; each handler looks through the operator's scope (G42).
_ALSO_RESELLERS = {"look": (*EVERYONE, RESELLER), "revoke": (*MAY_REVOKE, RESELLER)}


class CertificateBody(Body):
    """Names one certificate: by `serial` (hexadecimal) or by showing it (`certificate`, PEM); `issuer` by name."""

    issuer: str | None = None
    serial: str | None = None
    certificate: str | None = None

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.serial is None) == (self.certificate is None):
            raise ValueError("give serial or certificate, and only one of them")
        return self

    def target(self) -> Target:
        """Raises `serial.malformed`, `serial.too_long`."""
        return Target(self.issuer, None if self.serial is None else parse_serial(self.serial), self.certificate)


class RevocationBody(CertificateBody):
    """`reason`: a name of RFC 5280. `revoked_at`: RFC 3339, not later than now. `wait`: measure its visibility."""

    reason: str = Reason.unspecified.name
    revoked_at: Annotated[AwareDatetime, Strict(False)] | None = None
    dry_run: bool = False
    wait: bool = False

    @property
    def since(self) -> int | None:
        return None if self.revoked_at is None else int(self.revoked_at.timestamp())


class BuildBody(Body):
    """Which CRLs: all of an issuer, one `scope` of it, or every one."""

    issuer: str | None = None
    scope: str | None = None


class ReplacementBody(Body):
    """The CRLs of an issuer, or one `scope` of it, that may be replaced although they are from the future; `why`."""

    issuer: str
    scope: str | None = None
    why: Annotated[str, Field(min_length=10, max_length=1000)]


class DisclosureBody(Body):
    """All URLs that CCADB lists for an issuer now."""

    issuer: str
    urls: Annotated[list[str], Field(max_length=5000)]


class StatementsBody(Body):
    """Which certificates of an issuer: those of `serials`, or a page of `limit` from after the serial `after`.

    `revoked`: those that are, alone.
    """

    issuer: str
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    revoked: bool = False
    serials: Annotated[list[str], Field(max_length=1000)] | None = None


class AdminApi(Routes):
    """The handlers."""

    def __init__(self, pool: Pool, config: Config, clock: Clock, watches: Watches) -> None:
        super().__init__(pool, clock)
        self._batch = config.admin.sibling_batch
        self._crl_every = config.crl.every
        self._watches = watches
        self._outlooks: dict[str, Outlook] = {}
        self._look_again_at = 0.0

    def add_routes(self, app: web.Application) -> None:
        app.add_routes(
            [
                web.post("/v1/revocations", self.post_revocation),
                web.get("/v1/revocations/{act_id:[0-9]{1,18}}", self.get_revocation),
                web.get("/v1/certificates/{issuer}/{serial}", self.get_certificate),
                web.post("/v1/certificates/statements", self.list_statements),
                web.post("/v1/certificates/lookup", self.lookup),
                web.get("/v1/crls", self.list_crls),
                web.post("/v1/crls/builds", self.build_crls),
                web.post("/v1/crls/replacements", self.replace_crls),
                web.post("/v1/crls/disclosures", self.disclose),
            ]
        )

    async def post_revocation(self, request: web.Request) -> web.Response:
        operator = require(request, *_ALSO_RESELLERS["revoke"])
        scope, body = Scope(operator), await read(request, RevocationBody)
        reason = parse_reason(body.reason)
        scope.check_reason(reason)
        async with acquire(self._pool) as conn:
            wanted = Request(await scope.narrow(conn, body.target()), reason, body.since)
            if not body.dry_run:
                check_single(await find_one(conn, wanted.target))
            revoked = await revoke(
                conn, self._clock, wanted, actor=operator.actor, batch=self._batch, dry_run=body.dry_run
            )
            told = await self._told(conn, scope, revoked.issuer, revoked.serial,
                                    (revoked.siblings, revoked.siblings_total))  # fmt: skip
        if body.wait and revoked.changed and revoked.act_id is not None:
            self._watches.start(revoked.act_id)
        return answer(_revoked(revoked, told), status=201 if revoked.changed and not body.dry_run else 200)

    async def get_revocation(self, request: web.Request) -> web.Response:
        scope = Scope(require(request, *_ALSO_RESELLERS["look"]))
        act_id, named = int(request.match_info["act_id"]), _named(request)
        async with acquire(self._pool) as conn:
            act = await acts.get(conn, act_id)
            found = await find_one(conn, await scope.narrow(conn, target_of(act, named)))
            stands = await revocations.latest(conn, found.certificate.issuer_id, found.certificate.serial)
            if act is None or stands is None or not _is_of(act, found.issuer.name, stands):
                raise QuashError("revocation.unknown", "this act did not revoke this certificate", Kind.NOT_FOUND)
            reason = Reason(stands.reason)
            listed = await list_siblings(conn, found, reason, now=self._now, limit=self._batch)
            siblings, total = await self._told(conn, scope, found.issuer.name, found.certificate.serial, listed)
            job = await jobs.find_by_act(conn, act_id) if scope.whole else None
        visibility = self._watches.find(act, named)
        return answer(
            {
                "serial": format_serial(stands.serial),
                "issuer": found.issuer.name,
                "reason": reason.name,
                "revoked_at": timestamp(stands.revoked_at),
                "act_id": act_id,
                **_siblings(siblings, total),
                "job": None if job is None else {"state": job.state, "total": job.total, "done": job.done},
                "ocsp_visible_ms": visibility.ocsp_visible_ms,
                "crl_published_ms": visibility.crl_published_ms,
            }
        )

    async def get_certificate(self, request: web.Request) -> web.Response:
        scope = Scope(require(request, *_ALSO_RESELLERS["look"]))
        target = Target(request.match_info["issuer"], parse_serial(request.match_info["serial"]))
        return answer((await self._status(scope, target)).json())

    async def lookup(self, request: web.Request) -> web.Response:
        scope = Scope(require(request, *_ALSO_RESELLERS["look"]))
        return answer((await self._status(scope, (await read(request, CertificateBody)).target())).json())

    async def _told(self, conn: Connection, scope: Scope, issuer: str, serial: bytes, listed: Siblings) -> Siblings:
        return await scope.siblings(conn, issuer, serial, listed, now=self._now, limit=self._batch)

    async def _status(self, scope: Scope, target: Target) -> CertificateStatus:
        async with acquire(self._pool) as conn:
            found = only(await scope.find(conn, target))
            if found is not None:
                return await status_of(conn, found, self._now)
        serial = read_pem(target.certificate)[1].serial if target.certificate is not None else target.serial
        return unknown(target.issuer, serial or b"")

    async def list_statements(self, request: web.Request) -> web.Response:
        """What relying parties should hear of many certificates, page by page: for comparing with what they do."""
        require(request, *EVERYONE)
        body = await read(request, StatementsBody)
        async with acquire(self._pool) as conn:
            issuer = await issuer_by_name(conn, body.issuer)
            if body.serials is not None:
                named = [(issuer.id, parse_serial(serial)) for serial in body.serials]
                page, full = await statements.of(conn, named), False
            else:
                after = parse_serial(body.after) if body.after else b""
                page = await statements.page(conn, issuer.id, after, body.limit, revoked=body.revoked)
                full = len(page) == body.limit
        following = format_serial(page[-1].serial) if full else None
        said = [_statement(each) for each in page]
        return answer({"ocsp_path": issuer.ocsp_path, "certificates": said, "after": following})

    async def list_crls(self, request: web.Request) -> web.Response:
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            states = await crls.states(conn, offline=True)
            outlooks = await self._look_ahead(conn)
        now = self._clock.now()
        shown = [_crl(state, outlooks.get(state.scope.path), now, self._crl_every) for state in states]
        return answer({"crls": shown})

    async def _look_ahead(self, conn: Connection) -> dict[str, Outlook]:
        """By path; it counts all certificates, so what was found is good for some minutes."""
        if self._clock.monotonic() >= self._look_again_at:
            found = await outlook.outlooks(conn, self._now)
            self._outlooks = {each.state.scope.path: each for each in found}
            self._look_again_at = self._clock.monotonic() + _LOOK_EVERY
        return self._outlooks

    async def disclose(self, request: web.Request) -> web.Response:
        """Remembers what CCADB was told, so that what it must still be told is known."""
        operator = require(request, *MAY_REVOKE)
        body = await read(request, DisclosureBody)
        now = self._now
        async with acquire(self._pool) as conn:
            issuer = await issuer_by_name(conn, body.issuer)
            before = (await outlook.latest_disclosures(conn)).get(issuer.id, ())
            async with conn.transaction():
                await outlook.add_disclosure(conn, issuer.id, issuer.name, body.urls, actor=operator.actor, at=now)
        self._look_again_at = 0.0
        added = [url for url in body.urls if url not in before]
        return answer({"added": added, "removed": [url for url in before if url not in body.urls]}, status=201)

    async def build_crls(self, request: web.Request) -> web.Response:
        operator = require(request, *MAY_REVOKE)
        body = await read(request, BuildBody)
        return await self._demand(operator, body.issuer, body.scope)

    async def replace_crls(self, request: web.Request) -> web.Response:
        """Has CRLs replaced that a clock gone wrong dated in the future; others are built as usual."""
        operator = require(request, "officer")
        body = await read(request, ReplacementBody)
        return await self._demand(operator, body.issuer, body.scope, replaces_future=body.why)

    async def _demand(
        self, operator: Operator, issuer: str | None, scope: str | None, *, replaces_future: str = ""
    ) -> web.Response:
        async with acquire(self._pool) as conn:
            if issuer is not None:
                await issuer_by_name(conn, issuer)
            scopes = [
                state.scope
                for state in await crls.states(conn, offline=bool(replaces_future))
                if issuer in (None, state.scope.issuer) and scope in (None, state.scope.scope)
            ]
            if not scopes:
                raise QuashError(
                    "crl.no_such_scope", "no CRL that is built online has this name: see quash crl list", Kind.NOT_FOUND
                )
            async with conn.transaction():
                now = self._now
                await crl_demands.add(conn, scopes, actor=operator.actor, at=now, replaces_future=replaces_future)
        return answer({"scopes": [{"issuer": each.issuer, "scope": each.scope} for each in scopes]}, status=202)


def _named(request: web.Request) -> Target | None:
    """The certificate that a query names: needed where an act revoked more than one."""
    query = read_query(request, RevocationQuery)
    return None if query.serial is None else Target(query.issuer, parse_serial(query.serial))


def _is_of(act: Act, issuer: str, stands: Revocation) -> bool:
    """Whether the act revoked the certificate, or asked for it when it stood already."""
    asked = (act.subject.get("issuer"), act.subject.get("serial"))
    return stands.act_id == act.id or asked == (issuer, format_serial(stands.serial))


def _revoked(revoked: Revoked, siblings: Siblings) -> dict[str, Any]:
    return {
        "serial": format_serial(revoked.serial),
        "issuer": revoked.issuer,
        "reason": revoked.reason.name,
        "revoked_at": timestamp(revoked.revoked_at),
        "changed": revoked.changed,
        "act_id": revoked.act_id,
        **_siblings(*siblings),
    }


def _siblings(siblings: tuple[tuple[str, bytes], ...], total: int) -> dict[str, Any]:
    listed = [{"issuer": issuer, "serial": format_serial(serial)} for issuer, serial in siblings]
    return {"siblings": listed, "siblings_total": total}


def _statement(said: Statement) -> dict[str, Any]:
    return {
        "serial": said.serial.hex(),  # every octet of it: an entry and an answer must carry the same
        "not_after": said.not_after,
        "reason": said.reason,
        "revoked_at": said.revoked_at,
        "since": said.since,
        "answered": said.answered,
        "scope": said.scope,
        "path": said.path,
        "misnamed": said.misnamed,
    }


def _crl(state: ScopeState, ahead: Outlook | None, now: float, every: int) -> dict[str, Any]:
    """What is published; numbers are null where nothing is yet. `forecast_bytes`, `warnings`: what is coming.

    `due_seconds`: for how long a newer one has been due; null: none is.
    """
    crl, due_since = state.published, state.due_since(now, every)
    return {
        "issuer": state.scope.issuer,
        "scope": state.scope.scope,
        "url": state.scope.url,
        "number": crl.number if crl else None,
        "entries": crl.entries if crl else None,
        "this_update": timestamp(crl.this_update) if crl else None,
        "next_update": timestamp(crl.next_update) if crl else None,
        "bytes": crl.size if crl else None,
        "sha256": crl.sha256.hex() if crl and crl.sha256 else None,
        "path": state.scope.path,
        "due_seconds": None if due_since is None else int(now - due_since),
        "forecast_bytes": ahead.forecast if ahead else None,
        "warnings": ahead.warnings(now) if ahead else [],
    }
