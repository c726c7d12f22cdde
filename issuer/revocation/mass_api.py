"""The admin API's routes for mass revocations: a set, its preview, and the way through it (C17)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from aiohttp import web
from pydantic import AwareDatetime, Field, Strict, StringConstraints, model_validator

from issuer.api import answer, read, read_query, require, timestamp
from issuer.revocation import approvals, exemption_api, mass, pace
from issuer.revocation.mass import Pace
from issuer.revocation.officer_api import accepted
from issuer.revocation.routes import EVERYONE, MAY_REVOKE, Body, Routes
from issuer.revocation.search_api import PageQuery, SetQuery, Word
from quash.pki.reasons import Reason, parse_reason
from quash.pki.serials import format_serial, parse_serial
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.store import exemptions, mass_jobs, mass_sets, mass_signing, rates
from quash.store.database import Pool, acquire
from quash.store.mass_jobs import MassJob

_PART: Final = 10_000  # serials in a request
_PART_BODY: Final = 2 << 20
_LINES: Final = 10_000


class PaceBody(Body):
    """At most `per_second` certificates, or evenly so that all is published by `finish_by`; neither: at full speed."""

    per_second: Annotated[float, Field(gt=0, le=1e6, strict=False)] | None = None
    finish_by: Annotated[AwareDatetime, Strict(False)] | None = None

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        if self.per_second is not None and self.finish_by is not None:
            raise ValueError("give per_second or finish_by, and not both")
        return self

    def pace(self) -> Pace:
        """As the job keeps it."""
        return Pace(self.per_second, None if self.finish_by is None else int(self.finish_by.timestamp()))


class FilterBody(Body):
    """Certificates that a search finds with the same words; all that is given must hold. Dates are inclusive."""

    name: Word | None = None
    account: Word | None = None
    issuer: Word | None = None
    issued_from: Annotated[AwareDatetime, Strict(False)] | None = None
    issued_to: Annotated[AwareDatetime, Strict(False)] | None = None
    expires_from: Annotated[AwareDatetime, Strict(False)] | None = None
    expires_to: Annotated[AwareDatetime, Strict(False)] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a filter says something: all certificates of everybody are no set")
        return self

    def kept(self) -> dict[str, Any]:
        """As the job keeps it: times in Unix seconds."""
        given = self.model_dump(exclude_none=True)
        return {name: value if isinstance(value, str) else int(value.timestamp()) for name, value in given.items()}


class MassBody(PaceBody):
    """What to revoke: one of `list` (sent in parts afterwards), `spki_sha256`, `case`, `filter`, or `issuer` with a

    period, `issued_after` <= notBefore < `issued_before`. `reason`: a name of RFC 5280. `revoked_at`: not later than
    now; left out: when the job is started.
    """

    list: bool = False
    spki_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    case: Annotated[int, Field(ge=1, lt=1 << 63)] | None = None
    filter: FilterBody | None = None
    issuer: str | None = None
    issued_after: Annotated[AwareDatetime, Strict(False)] | None = None
    issued_before: Annotated[AwareDatetime, Strict(False)] | None = None
    reason: str = Reason.unspecified.name
    revoked_at: Annotated[AwareDatetime, Strict(False)] | None = None

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        period = [self.issuer is not None, self.issued_after is not None, self.issued_before is not None]
        if any(period) != all(period):
            raise ValueError("an issuer's set needs issuer, issued_after and issued_before")
        sets = (self.spki_sha256, self.case, self.filter)
        if [self.list, all(period), *(each is not None for each in sets)].count(True) != 1:
            raise ValueError("give list, spki_sha256, case, filter, or issuer with a period, and only one of them")
        return self

    def selection(self) -> dict[str, Any]:
        """As the job keeps it."""
        if self.spki_sha256 is not None:
            return {"spki_sha256": self.spki_sha256}
        if self.case is not None:
            return {"case": self.case}
        if self.filter is not None:
            return {"filter": self.filter.kept()}
        if self.issued_after is not None and self.issued_before is not None:
            after, before = self.issued_after.timestamp(), self.issued_before.timestamp()
            return {"issuer": self.issuer, "after": int(after), "before": int(before)}
        return {"list": True}


class PartBody(Body):
    """Some certificates of a list, by serial (hexadecimal), of `issuer` or of whoever gave it out."""

    issuer: str | None = None
    serials: Annotated[list[str], Field(min_length=1, max_length=_PART)]


class MassApi(Routes):
    """The handlers."""

    def __init__(self, pool: Pool, config: Config, clock: Clock) -> None:
        super().__init__(pool, clock)
        self._limit = config.admin.mass_limit

    def add_routes(self, app: web.Application) -> None:
        one = "/v1/mass-revocations/{id:[0-9]{1,18}}"
        app.add_routes(
            [
                web.get("/v1/mass-revocations", self.list_jobs),
                web.post("/v1/mass-revocations", self.create),
                web.get(one, self.get_job),
                web.get(f"{one}/certificates", self.certificates),
                web.post(f"{one}/certificates", self.add_part),
                web.get(f"{one}/exemptions", self.list_exempt),
                web.post(f"{one}/pace", self.set_pace),
                web.post(f"{one}/gather", self.gather),
                web.post(f"{one}/start", self.start),
                web.post(f"{one}/pause", self.pause),
                web.post(f"{one}/resume", self.resume),
                web.post(f"{one}/abort", self.abort),
            ]
        )

    async def list_jobs(self, request: web.Request) -> web.Response:
        """Newest first."""
        require(request, *EVERYONE)
        query = read_query(request, PageQuery)
        async with acquire(self._pool) as conn:
            found = await mass_jobs.page(conn, query.before, query.limit)
            signing = await rates.last(conn, rates.SIGNING)
            waiting = await mass_signing.to_sign(conn, [each.id for each in found], self._now)
        following = found[-1].id if len(found) == query.limit else None
        shown = [self._job(each, signing, waiting.get(each.id, 0)) for each in found]
        return answer({"mass_revocations": shown, "before": following})

    async def create(self, request: web.Request) -> web.Response:
        """Changes nothing yet: the set is gathered, previewed, and then started."""
        operator = require(request, *MAY_REVOKE)
        body = await read(request, MassBody)
        reason = parse_reason(body.reason)
        since = None if body.revoked_at is None else int(body.revoked_at.timestamp())
        async with acquire(self._pool) as conn:
            made = await mass.create(
                conn, operator, body.selection(), reason=reason, revoked_at=since, now=self._now, pace=body.pace()
            )
        return answer(self._job(made, None, 0), status=201)

    async def get_job(self, request: web.Request) -> web.Response:
        """State, preview, progress, and the seconds that are left: until all is revoked, and until all is signed."""
        require(request, *EVERYONE)
        return await self._shown(request)

    async def certificates(self, request: web.Request) -> web.Response:
        """The set as text, a line `issuer serial` each, whose SHA-256 is the job's."""
        require(request, *EVERYONE)
        number, after = _number(request), read_query(request, SetQuery).cursor()
        async with acquire(self._pool) as conn:
            await mass.find(conn, number)
            text, following = await mass_sets.lines(conn, number, after, _LINES)
        beyond = None if following is None else f"{following[0]}:{following[1]}:{following[2].hex()}"
        return answer({"lines": text, "after": beyond})

    async def add_part(self, request: web.Request) -> web.Response:
        """Adds to a list; says which serials nobody gave out, and which more than one issuer did."""
        require(request, *MAY_REVOKE)
        body = await read(request.clone(client_max_size=_PART_BODY), PartBody)
        serials = [parse_serial(each) for each in body.serials]
        async with acquire(self._pool) as conn:
            unknown, ambiguous = await mass.add_listed(conn, _number(request), body.issuer, serials, self._now)
        return answer({"unknown": _texts(unknown), "ambiguous": _texts(ambiguous)}, status=201)

    async def list_exempt(self, request: web.Request) -> web.Response:
        """The officers' decisions by which certificates of the set are left out."""
        require(request, *EVERYONE)
        async with acquire(self._pool) as conn:
            await mass.find(conn, _number(request))
            found = await exemptions.of_job(conn, _number(request))
        return answer({"exemptions": [exemption_api.shown(each) for each in found]})

    async def set_pace(self, request: web.Request) -> web.Response:
        """From the next batch on; an empty body: at full speed."""
        operator = require(request, *MAY_REVOKE)
        body = await read(request, PaceBody)
        async with acquire(self._pool) as conn:
            await mass.set_pace(conn, operator, _number(request), body.pace(), self._now)
        return await self._shown(request)

    async def gather(self, request: web.Request) -> web.Response:
        """The list is complete."""
        return await self._change(request, "gather")

    async def start(self, request: web.Request) -> web.Response:
        """Above the limit, for CA certificates and for a key without proof, a second officer approves the set."""
        operator = require(request, *MAY_REVOKE)
        async with acquire(self._pool) as conn:
            job = await mass.find(conn, _number(request))
            if mass.needs_approval(job, self._limit):
                require(request, "officer")
                asked = mass.payload(job)
                return accepted(await approvals.propose(conn, operator, mass.START, asked, self._now))
            await mass.start(conn, operator, job.id, self._now)
        return await self._shown(request)

    async def pause(self, request: web.Request) -> web.Response:
        """Before the next batch."""
        return await self._change(request, "pause")

    async def resume(self, request: web.Request) -> web.Response:
        """Goes on where it was paused."""
        return await self._change(request, "resume")

    async def abort(self, request: web.Request) -> web.Response:
        """For ever, before the next batch. What is revoked stays revoked (C16)."""
        return await self._change(request, "abort")

    async def _change(self, request: web.Request, what: str) -> web.Response:
        operator = require(request, *MAY_REVOKE)
        async with acquire(self._pool) as conn:
            await mass.change(conn, operator, _number(request), what, self._now)
        return await self._shown(request)

    async def _shown(self, request: web.Request) -> web.Response:
        async with acquire(self._pool) as conn:
            job = await mass.find(conn, _number(request))
            waiting = await mass_signing.to_sign(conn, [job.id], self._now)
            return answer(self._job(job, await rates.last(conn, rates.SIGNING), waiting.get(job.id, 0)))

    def _job(self, job: MassJob, signing: float | None, to_sign: int) -> dict[str, Any]:
        """`signing`: certificates a second, as the presigner measured it last; `to_sign`: revoked, and not yet signed.

        `signing_seconds` is for those and for all that is not yet revoked; an aborted job revokes no more.
        """
        not_revoked = 0 if job.state == "aborted" else (job.total or 0) - job.done
        left = None if job.total is None else not_revoked + to_sign
        return {
            "id": job.id,
            "state": job.state,
            "selection": job.selection,
            "reason": Reason(job.reason).name,
            "revoked_at": timestamp(job.revoked_at),
            "created_at": timestamp(job.created_at),
            "updated_at": timestamp(job.updated_at),
            "certificates": job.total,
            "siblings": None if job.total is None or job.listed is None else job.total - job.listed,
            "sha256": None if job.sha256 is None else job.sha256.hex(),
            "preview": job.preview,
            "needs_approval": None if job.total is None else mass.needs_approval(job, self._limit),
            "signing_seconds": None if left is None or not signing else round(left / signing, 1),
            "to_sign": to_sign,
            "done": job.done,
            "changed": job.changed,
            "exempt": job.exempt,
            "per_second": job.per_second,
            "max_per_second": job.max_per_second,
            "finish_by": timestamp(job.finish_by),
            "seconds_left": job.seconds_left,
            "expected_at": timestamp(pace.expected_at(job, self._clock.now())),
            "late": pace.is_late(job, self._clock.now()),
        }


def _number(request: web.Request) -> int:
    return int(request.match_info["id"])


def _texts(serials: list[bytes]) -> list[str]:
    return sorted(map(format_serial, serials))
