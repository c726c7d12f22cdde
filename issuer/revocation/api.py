"""The admin API over HTTP: what each path takes, who may ask, and how an answer is written."""

from __future__ import annotations

from typing import Annotated, Any, Self

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Strict, model_validator

from issuer.api import answer, read, require, timestamp
from issuer.revocation.find import Target, find_all, find_one, issuer_by_name, only, read_pem
from issuer.revocation.revoke import Request, Revoked, list_siblings, revoke
from issuer.revocation.status import CertificateStatus, status_of, unknown
from issuer.revocation.visible import Watches, target_of
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason, parse_reason
from quash.pki.serials import format_serial, parse_serial
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.store import acts, crl_demands, crls, jobs, revocations
from quash.store.crls import ScopeState
from quash.store.database import Pool, acquire

EVERYONE = ("viewer", "operator", "officer", "auditor")
MAY_REVOKE = ("operator", "officer")


class Body(BaseModel):
    """Unknown names are errors, so that a misspelt one never changes the meaning."""

    model_config = ConfigDict(extra="forbid", strict=True)


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


class AdminApi:
    """The handlers; each begins with who may ask."""

    def __init__(self, pool: Pool, config: Config, clock: Clock, watches: Watches) -> None:
        self._pool = pool
        self._batch = config.admin.sibling_batch
        self._clock = clock
        self._watches = watches

    def add_routes(self, app: web.Application) -> None:
        app.add_routes(
            [
                web.post("/v1/revocations", self.post_revocation),
                web.get("/v1/revocations/{act_id:[0-9]{1,18}}", self.get_revocation),
                web.get("/v1/certificates/{issuer}/{serial}", self.get_certificate),
                web.post("/v1/certificates/lookup", self.lookup),
                web.get("/v1/crls", self.list_crls),
                web.post("/v1/crls/builds", self.build_crls),
            ]
        )

    async def post_revocation(self, request: web.Request) -> web.Response:
        operator = require(request, *MAY_REVOKE)
        body = await read(request, RevocationBody)
        wanted = Request(body.target(), parse_reason(body.reason), body.since)
        async with acquire(self._pool) as conn:
            revoked = await revoke(
                conn, self._clock, wanted, actor=operator.actor, batch=self._batch, dry_run=body.dry_run
            )
        if body.wait and revoked.act_id is not None:
            self._watches.start(revoked.act_id)
        return answer(_revoked(revoked), status=201 if revoked.changed and not body.dry_run else 200)

    async def get_revocation(self, request: web.Request) -> web.Response:
        require(request, *EVERYONE)
        act_id = int(request.match_info["act_id"])
        async with acquire(self._pool) as conn:
            act = await acts.get(conn, act_id)
            found = await find_one(conn, target_of(act))
            stands = await revocations.latest(conn, found.certificate.issuer_id, found.certificate.serial)
            assert act is not None and stands is not None  # noqa: S101, PT018 - its act was written with it
            reason = Reason(stands.reason)
            siblings, total = await list_siblings(conn, found, reason, now=int(self._clock.now()), limit=self._batch)
            job = await jobs.find_by_act(conn, act_id)
        visibility = self._watches.find(act)
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
        require(request, *EVERYONE)
        target = Target(request.match_info["issuer"], parse_serial(request.match_info["serial"]))
        return answer((await self._status(target)).json())

    async def lookup(self, request: web.Request) -> web.Response:
        require(request, *EVERYONE)
        return answer((await self._status((await read(request, CertificateBody)).target())).json())

    async def _status(self, target: Target) -> CertificateStatus:
        async with acquire(self._pool) as conn:
            found = only(await find_all(conn, target))
            if found is not None:
                return await status_of(conn, found, int(self._clock.now()))
        serial = read_pem(target.certificate)[1].serial if target.certificate is not None else target.serial
        return unknown(target.issuer, serial or b"")

    async def list_crls(self, request: web.Request) -> web.Response:
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            states = await crls.states(conn, offline=True)
        return answer({"crls": [_crl(state) for state in states]})

    async def build_crls(self, request: web.Request) -> web.Response:
        operator = require(request, *MAY_REVOKE)
        body = await read(request, BuildBody)
        async with acquire(self._pool) as conn:
            if body.issuer is not None:
                await issuer_by_name(conn, body.issuer)
            scopes = [
                state.scope
                for state in await crls.states(conn)
                if body.issuer in (None, state.scope.issuer) and body.scope in (None, state.scope.scope)
            ]
            if not scopes:
                raise QuashError(
                    "crl.no_such_scope", "no CRL that is built online has this name: see quash crl list", Kind.NOT_FOUND
                )
            async with conn.transaction():
                await crl_demands.add(conn, scopes, actor=operator.actor, at=int(self._clock.now()))
        return answer({"scopes": [{"issuer": each.issuer, "scope": each.scope} for each in scopes]}, status=202)


def _revoked(revoked: Revoked) -> dict[str, Any]:
    return {
        "serial": format_serial(revoked.serial),
        "issuer": revoked.issuer,
        "reason": revoked.reason.name,
        "revoked_at": timestamp(revoked.revoked_at),
        "changed": revoked.changed,
        "act_id": revoked.act_id,
        **_siblings(revoked.siblings, revoked.siblings_total),
    }


def _siblings(siblings: tuple[tuple[str, bytes], ...], total: int) -> dict[str, Any]:
    listed = [{"issuer": issuer, "serial": format_serial(serial)} for issuer, serial in siblings]
    return {"siblings": listed, "siblings_total": total}


def _crl(state: ScopeState) -> dict[str, Any]:
    """What is published; numbers are null where nothing is yet."""
    crl = state.published
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
    }
