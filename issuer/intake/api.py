"""What the public may hand in: `POST /report` and `POST /report-key-compromise` (C6, C14). No operator is needed.

Everything is bounded before it is read: octets, quotas, proofs under way. A report that was committed is acknowledged.
"""

from __future__ import annotations

import asyncio
import base64
import math
import secrets
from typing import Annotated, Any, Final, Self
from uuid import uuid4

import orjson
from aiohttp import web
from prometheus_client import Counter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, Strict, StringConstraints, model_validator

from issuer.api import CODE, answer, problem, problems, read, timestamp
from issuer.checks.workers import Runner
from issuer.intake.quota import Quota
from issuer.intake.tasks import read as read_proof
from issuer.revocation.find import read_pem
from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Intake
from quash.store import reports
from quash.store.database import Pool, acquire
from quash.store.key_evidence import Evidence
from quash.store.reports import Report

MAX_BODY: Final = 16 * 1024
_CHALLENGE_LASTS: Final = 3600
_BUSY_FOR: Final = 10  # seconds after which to ask again

_REPORTS = Counter("quash_intake_reports_total", "Reports that were taken", ["kind"])
_REFUSED = Counter("quash_intake_refused_total", "Reports that were not", ["code"])

Contact = Annotated[str, StringConstraints(min_length=3, max_length=300, strip_whitespace=True)]
Description = Annotated[str, StringConstraints(min_length=1, max_length=8000)]
Document = Annotated[str, StringConstraints(min_length=1, max_length=MAX_BODY)]
Serial = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ProblemBody(_Body):
    """Any problem with certificates. `contact`: how to reach you; `serials`: in hexadecimal, as far as known."""

    contact: Contact
    description: Description
    serials: Annotated[list[Serial], Field(max_length=100)] = []


class CompromiseBody(_Body):
    """One proof: `private_key` (PEM), `csr` (PEM, common name: a challenge) or `jws` (flattened, over a challenge).

    `certificate` (PEM): one that has the key; a JWS needs it. `revoked_at`: since when it is in wrong hands (B26).
    """

    contact: Contact
    description: Description = "the private key is compromised"
    private_key: Document | None = None
    csr: Document | None = None
    jws: dict[str, Document] | None = None
    certificate: Document | None = None
    revoked_at: Annotated[AwareDatetime, Strict(False)] | None = None

    @model_validator(mode="after")
    def _one_proof(self) -> Self:
        if sum(each is not None for each in (self.private_key, self.csr, self.jws)) != 1:
            raise ValueError("give private_key, csr or jws, and only one of them")
        if self.jws is not None and self.certificate is None:
            raise ValueError("a JWS needs the certificate that it is about")
        return self


class IntakeApi:
    """The handlers."""

    def __init__(self, pool: Pool, config: Intake, clock: Clock, workers: Runner) -> None:
        self._pool = pool
        self._clock = clock
        self._workers = workers
        self._behind_proxy = config.behind_proxy
        self._quota = Quota(clock, per_hour=config.per_source_hour, per_minute=config.per_minute)
        self._verifying = asyncio.Semaphore(config.workers * 4)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._counted, problems, self._limited], client_max_size=MAX_BODY)
        app.add_routes(
            [
                web.post("/report", self.report),
                web.post("/report-key-compromise", self.report_compromise),
                web.post("/report-key-compromise/challenges", self.challenge),
            ]
        )
        return app

    @property
    def _now(self) -> int:
        return int(self._clock.now())

    async def report(self, request: web.Request) -> web.Response:
        body = await read(request, ProblemBody)
        return await self._take(request, "problem", body.contact, body.model_dump(exclude={"contact"}), None)

    async def report_compromise(self, request: web.Request) -> web.Response:
        body = await read(request, CompromiseBody)
        proof = await self._verified(body)
        # What was handed in is not kept: it may be a private key. The proof made of it is.
        kept: dict[str, Any] = {"description": body.description, "certificate": body.certificate}
        kept["revoked_at"] = None if body.revoked_at is None else int(body.revoked_at.timestamp())
        return await self._take(request, "key-compromise", body.contact, kept, proof)

    async def challenge(self, _request: web.Request) -> web.Response:
        challenge, now = f"quash-compromise-{secrets.token_hex(20)}", self._now
        async with acquire(self._pool) as conn:
            await reports.add_challenge(conn, challenge, at=now, expires_at=now + _CHALLENGE_LASTS)
        return answer({"challenge": challenge, "expires_at": timestamp(now + _CHALLENGE_LASTS)}, status=201)

    async def _verified(self, body: CompromiseBody) -> Evidence:
        """In a worker process that is killed when it takes too long: numbers that a stranger chose."""
        if self._verifying.locked():
            raise QuashError("intake.busy", "too many proofs are being verified: try again soon", Kind.UNAVAILABLE)
        spki = b"" if body.certificate is None else read_pem(body.certificate)[1].spki
        if body.private_key is not None:
            task, argument, octets = "private-key", "", body.private_key.encode()
        elif body.csr is not None:
            task, argument, octets = "csr", "", body.csr.encode()
        else:
            task, argument, octets = "jws", base64.b64encode(spki).decode(), orjson.dumps(body.jws)
        async with self._verifying:
            proof = read_proof(await self._workers.run(task, argument, octets))
        if spki and proof.spki != spki:
            raise QuashError(
                "evidence.key_mismatch", "the proof is by another key than the certificate's", Kind.REFUSED
            )
        return proof

    async def _take(
        self, request: web.Request, kind: str, contact: str, body: dict[str, Any], proof: Evidence | None
    ) -> web.Response:
        report = Report(uuid4(), self._now, kind, self._source(request), contact, body, proof)
        async with acquire(self._pool) as conn:
            await reports.add(conn, report)
        _REPORTS.labels(kind).inc()
        return answer(
            {
                "reference": str(report.reference),
                "received_at": timestamp(report.received_at),
                "said": "Received. A preliminary report goes to you within 24 hours (BR 4.9.5).",
            },
            status=202,
        )

    def _source(self, request: web.Request) -> str:
        """Behind a proxy the address that it adds last: what stands before it, anybody may write."""
        if self._behind_proxy:
            return request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()[:100] or "unknown"
        return request.remote or "unknown"

    @property
    def _limited(self) -> Any:
        @web.middleware
        async def limited(request: web.Request, handler: Any) -> web.StreamResponse:
            wait = self._quota.take(self._source(request)) if request.method == "POST" else 0.0
            if wait == 0.0:
                response: web.StreamResponse = await handler(request)
                return response
            error = QuashError("intake.too_many", "too many reports: wait, or write to our address", Kind.UNAVAILABLE)
            refused = problem(error, 429)
            refused.headers["Retry-After"] = str(math.ceil(wait))
            return refused

        return limited

    @property
    def _counted(self) -> Any:
        @web.middleware
        async def counted(request: web.Request, handler: Any) -> web.StreamResponse:
            response: web.StreamResponse = await handler(request)
            response.force_close()  # one report, one connection: see `server`
            if response.status >= 400:
                _REFUSED.labels(response.headers.get(CODE, "none")).inc()
            if response.status == 503:
                response.headers["Retry-After"] = str(_BUSY_FOR)
            return response

        return counted
