"""The issuing API's routes for validated identifiers: officers record and withdraw, auditors look (G37)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, Strict

from issuer.api import answer, read, read_query, require, timestamp
from issuer.issuance.issue import Issuance
from issuer.issuance.validations import record, withdraw
from quash.store import validations
from quash.store.database import Pool, acquire
from quash.store.validations import Validation


class Applicant(BaseModel):
    """Who orders: `operator:ann`, or for a reseller `account:acme`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    applicant: Annotated[str, Field(pattern=r"^(operator|account):[^\s]{1,64}$")]


class ValidatedIdentifier(Applicant):
    """`value`: a DNS name, a mailbox, an organization as `TN/Name`, or a person as `TN/Name/GN=Given/SN=Surname`.

    Of an organization also what else of it was validated: `TN/Name/ST=State/L=Locality/organizationIdentifier=NTRTN-1`.
    """

    kind: Literal["dns", "email", "organization", "person"]
    value: Annotated[str, Field(min_length=1, max_length=600)]

    @property
    def identifier(self) -> dict[str, str]:
        return {"kind": self.kind, "value": self.value}


class ValidationRecord(ValidatedIdentifier):
    """`method`: its number in the BR or SBR; `validated_at`: RFC 3339, now when it is missing.

    `mailbox`: of method 3.2.2.4.4, the one of the five (G36) that was asked.
    """

    method: Annotated[str, Field(pattern=r"^3\.2\.[0-9.]{1,12}$")]
    validated_at: Annotated[AwareDatetime, Strict(False)] | None = None
    mailbox: Annotated[str, Field(min_length=3, max_length=320)] | None = None


def add_routes(app: web.Application, pool: Pool, issuance: Issuance) -> None:
    """Adds the routes below `/v1/validations`."""

    async def validate(request: web.Request) -> web.Response:
        officer = require(request, "officer")
        body, now = await read(request, ValidationRecord), issuance.now()
        at = now if body.validated_at is None else int(body.validated_at.timestamp())
        async with acquire(pool) as conn:
            row = await record(
                conn, officer.actor, body.applicant, body.identifier, method=body.method, validated_at=at, now=now,
                mailbox=body.mailbox, registries=issuance.registries,
            )  # fmt: skip
        return answer(_validation(row), 201)

    async def invalidate(request: web.Request) -> web.Response:
        officer = require(request, "officer")
        body = await read(request, ValidatedIdentifier)
        async with acquire(pool) as conn:
            await withdraw(conn, officer.actor, body.applicant, body.identifier, issuance.now())
        return answer({})

    async def validated(request: web.Request) -> web.Response:
        require(request, "officer", "auditor")
        query = read_query(request, Applicant)
        async with acquire(pool) as conn:
            rows = await validations.current(conn, query.applicant)
        return answer({"validations": [_validation(row) for row in rows]})

    app.router.add_post("/v1/validations", validate)
    app.router.add_post("/v1/validations/withdrawals", invalidate)
    app.router.add_get("/v1/validations", validated)


def _validation(row: Validation) -> dict[str, Any]:
    return {
        "applicant": row.applicant,
        "kind": row.kind,
        "value": row.value,
        "method": row.method,
        "validated_at": timestamp(row.validated_at),
        "recorded_at": timestamp(row.recorded_at),
    }
