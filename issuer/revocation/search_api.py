"""The admin API's routes that look around: certificates, acts, jobs. Each pages by a key, never by a count."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from issuer.api import answer, read_query, require, timestamp
from issuer.revocation.find import issuer_by_name
from issuer.revocation.routes import EVERYONE
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial, parse_serial
from quash.store import acts, certificate_search, jobs
from quash.store.acts import Act
from quash.store.certificate_search import Hit, Wanted
from quash.store.database import Connection, Pool, acquire
from quash.store.jobs import Job
from quash.store.mass_sets import START, Cursor

Number = Annotated[int, Field(ge=0, le=2**63 - 1)]
Limit = Annotated[int, Field(ge=1, le=1000)]
_SMALLINT = 2**15 - 1
Word = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class _Query(BaseModel):
    """Unknown parameters are errors: a misspelt one would find too much."""

    model_config = ConfigDict(extra="forbid")


class CertificateQuery(_Query):
    """All that is given must hold. `name`: exactly; `.example.org`: all below; `@example.org`: all mailboxes.

    `account`: who ordered it, as acts name them. Dates are RFC 3339, inclusive. `after`: of the page before.
    """

    serial: Word | None = None
    name: Word | None = None
    spki_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    account: Word | None = None
    issuer: Word | None = None
    state: Annotated[str, StringConstraints(pattern="^(reserved|precertificate|issued|imported)$")] | None = None
    issued_from: AwareDatetime | None = None
    issued_to: AwareDatetime | None = None
    expires_from: AwareDatetime | None = None
    expires_to: AwareDatetime | None = None
    after: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5}:([0-9a-f]{2}){1,64}$")] | None = None
    limit: Limit = 100


class ActQuery(_Query):
    """Acts, newest first; `before`: of the page before."""

    actor: Word | None = None
    action: Word | None = None
    since: AwareDatetime | None = None
    before: Number | None = None
    limit: Limit = 100


class RevocationQuery(_Query):
    """The certificate that is meant, where an act revoked more than one."""

    serial: Word | None = None
    issuer: Word | None = None


class PageQuery(_Query):
    """Newest first; `before`: of the page before."""

    before: Number | None = None
    limit: Limit = 100


class HashPageQuery(_Query):
    """In the order of their hashes; `after`: of the page before, empty for the first."""

    after: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""


class MemberQuery(_Query):
    """The certificates of a case, by issuer id and serial; `after`: of the page before, `-1:` for the first."""

    after: Annotated[str, StringConstraints(pattern=r"^(-1:|[0-9]{1,5}:[0-9a-f]{1,128})$")] = "-1:"

    def cursor(self) -> tuple[int, bytes]:
        """(issuer id, serial); raises `serial.*`."""
        issuer_id, _, serial = self.after.partition(":")
        return min(int(issuer_id), _SMALLINT), parse_serial(serial) if serial else b""


class SetQuery(_Query):
    """The set of a mass revocation, in its order; `after`: of the page before, empty for the first."""

    after: Annotated[str, StringConstraints(pattern=r"^([0-9]{1,5}:[0-9]{1,18}:([0-9a-f]{2}){1,64})?$")] = ""

    def cursor(self) -> Cursor:
        """As the set is read."""
        if not self.after:
            return START
        issuer_id, rank, serial = self.after.split(":")
        return min(int(issuer_id), _SMALLINT), int(rank), bytes.fromhex(serial)


class SearchApi:
    """The handlers; each begins with who may ask."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def add_routes(self, app: web.Application) -> None:
        app.add_routes(
            [
                web.get("/v1/certificates", self.certificates),
                web.get("/v1/acts", self.list_acts),
                web.get("/v1/acts/{id:[0-9]{1,18}}", self.get_act),
                web.get("/v1/jobs", self.list_jobs),
                web.get("/v1/jobs/{id:[0-9]{1,18}}", self.get_job),
            ]
        )

    async def certificates(self, request: web.Request) -> web.Response:
        """Certificates by serial, name, key, account, issuer, state and dates."""
        require(request, *EVERYONE)
        query = read_query(request, CertificateQuery)
        issuer_id, _, serial = (query.after or "").partition(":")
        after = (min(int(issuer_id), _SMALLINT), bytes.fromhex(serial)) if query.after else (-1, b"")
        async with acquire(self._pool) as conn:
            page = await certificate_search.search(conn, await _wanted(conn, query), after, query.limit)
        last = page[-1] if len(page) == query.limit else None
        following = f"{last.issuer_id}:{last.serial.hex()}" if last else None
        return answer({"certificates": [_hit(each) for each in page], "after": following})

    async def list_acts(self, request: web.Request) -> web.Response:
        """Who did what, newest first."""
        require(request, "officer", "auditor")
        query = read_query(request, ActQuery)
        async with acquire(self._pool) as conn:
            page = await acts.page(
                conn,
                actor=query.actor,
                action=query.action,
                since=None if query.since is None else int(query.since.timestamp()),
                before=query.before,
                limit=query.limit,
            )
        following = page[-1].id if len(page) == query.limit else None
        return answer({"acts": [_act(each) for each in page], "before": following})

    async def get_act(self, request: web.Request) -> web.Response:
        """One act."""
        require(request, "officer", "auditor")
        async with acquire(self._pool) as conn:
            act = await acts.get(conn, int(request.match_info["id"]))
        if act is None:
            raise QuashError("act.unknown", "no act has this number", Kind.NOT_FOUND)
        return answer(_act(act))

    async def list_jobs(self, request: web.Request) -> web.Response:
        """Jobs that revoke what one transaction could not: a key's many certificates. Newest first."""
        require(request, *EVERYONE)
        query = read_query(request, PageQuery)
        async with acquire(self._pool) as conn:
            page = await jobs.page(conn, query.before, query.limit)
        following = page[-1].id if len(page) == query.limit else None
        return answer({"jobs": [_job(each) for each in page], "before": following})

    async def get_job(self, request: web.Request) -> web.Response:
        """One of these jobs."""
        require(request, *EVERYONE)
        number = int(request.match_info["id"])
        async with acquire(self._pool) as conn:
            found = [each for each in await jobs.page(conn, number + 1, 1) if each.id == number]
        if not found:
            raise QuashError("job.unknown", "no job has this number", Kind.NOT_FOUND)
        return answer(_job(found[0]))


async def _wanted(conn: Connection, query: CertificateQuery) -> Wanted:
    dates = ("issued_from", "issued_to", "expires_from", "expires_to")
    given = {name: getattr(query, name) for name in dates}
    return Wanted(
        serial=None if query.serial is None else parse_serial(query.serial),
        name=query.name,
        spki_sha256=None if query.spki_sha256 is None else bytes.fromhex(query.spki_sha256),
        account=query.account,
        issuer_id=None if query.issuer is None else (await issuer_by_name(conn, query.issuer)).id,
        state=query.state,
        **{name: None if at is None else int(at.timestamp()) for name, at in given.items()},
    )


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "issuer": hit.issuer,
        "serial": format_serial(hit.serial),
        "state": hit.state,
        "profile": hit.profile,
        "names": list(hit.names),
        "account": hit.account,
        "spki_sha256": None if hit.spki_sha256 is None else hit.spki_sha256.hex(),
        "issued_at": timestamp(hit.created_at),
        "not_after": timestamp(hit.not_after),
        "reason": None if hit.reason is None else Reason(hit.reason).name,
        "revoked_at": timestamp(hit.revoked_at),
    }


def _act(act: Act) -> dict[str, Any]:
    return {"id": act.id, "at": timestamp(act.at), "by": act.actor, "action": act.action, "subject": act.subject}


def _job(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "spki_sha256": job.spki_sha256.hex(),
        "reason": Reason(job.reason).name,
        "revoked_at": timestamp(job.revoked_at),
        "total": job.total,
        "done": job.done,
        "act_id": job.act_id,
        "created_at": timestamp(job.created_at),
        "updated_at": timestamp(job.updated_at),
    }
