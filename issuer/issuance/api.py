"""The issuing API: orders, and the officers' decisions about those that are held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ConfigDict, Field

from issuer.api import answer, read, read_query, require, timestamp
from issuer.issuance.issue import Issuance
from quash.errors import Kind, QuashError
from quash.pki.serials import format_serial
from quash.runtime.config import Config
from quash.store import issuing, orders
from quash.store.database import Connection, Pool, acquire
from quash.store.issuers import Issuer
from quash.store.operators import RESELLER, Operator
from quash.store.orders import Order

_MAY_ORDER: Final = ("operator", "officer", RESELLER)
_MAY_LOOK: Final = (*_MAY_ORDER, "viewer", "auditor")
_MOST: Final = 1000


class OrderRequest(BaseModel):
    """What to issue: the `csr` is PEM, or base64 of DER."""

    model_config = ConfigDict(extra="forbid", strict=True)

    profile: Annotated[str, Field(min_length=1, max_length=64)]
    csr: Annotated[str, Field(min_length=1)]


class OrderQuery(BaseModel):
    """`state`: of these alone. `before`, `after`: older, newer than the order of this id."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["held", "pending", "ready", "issued", "refused"] | None = None
    before: Annotated[str, Field(pattern="^[0-9a-f-]{36}$")] | None = None
    after: Annotated[str, Field(pattern="^[0-9a-f-]{36}$")] | None = None
    limit: Annotated[int, Field(ge=1, le=_MOST)] = _MOST


class Decision(BaseModel):
    """What an officer decides about a held order; a refusal has a reason."""

    model_config = ConfigDict(extra="forbid", strict=True)

    release: bool
    reason: Annotated[str, Field(min_length=1, max_length=1000)] | None = None


def add_routes(app: web.Application, pool: Pool, config: Config, issuance: Issuance) -> None:
    """Adds the routes of the issuing API."""

    async def post(request: web.Request) -> web.Response:
        """201 with the certificate, or 202 where its answers are not out in time: then ask for the order again."""
        operator = require(request, *_MAY_ORDER)
        body = await read(request, OrderRequest)
        by = operator.actor if operator.account is not None else None
        outcome = await issuance.order(
            operator.applicant, body.profile, body.csr, by=by, timeout=config.issuance.visible_timeout
        )
        order = outcome.order
        if order.state == "refused":
            error = QuashError(order.code or "order.refused", f"{order.detail} (order {order.id})", Kind.REFUSED)
            error.order_id = str(order.id)
            raise error
        if outcome.issued is not None:
            reserved, chain = outcome.issued
            told = _told(order, chain, reserved.valid.not_after, reserved.der)
        else:
            async with acquire(pool) as conn:
                told = await describe(conn, order)
        response = answer(told, 201 if order.final else 202)
        response.headers["Location"] = f"/v1/orders/{order.id}"
        return response

    async def get(request: web.Request) -> web.Response:
        """One order; with its certificate and chain once it is issued."""
        operator = require(request, *_MAY_LOOK)
        order_id = _order_id(request.match_info["id"])
        async with acquire(pool) as conn:
            order = await orders.get(conn, order_id)
            if order is None or not _is_of(operator, order):
                raise QuashError("order.unknown", "there is no such order", Kind.NOT_FOUND)
            return answer(await describe(conn, order))

    async def listed(request: web.Request) -> web.Response:
        """Orders without certificates, newest first, to be paged with `before`. Resellers see their own.

        To officers those that are held come oldest first, to be paged with `after`.
        """
        operator = require(request, "officer", RESELLER)
        query = read_query(request, OrderQuery)
        async with acquire(pool) as conn:
            applicant = None if operator.account is None else operator.applicant
            before, after = (None if each is None else _order_id(each) for each in (query.before, query.after))
            found = await orders.page(
                conn,
                orders.Page(applicant, query.state, before, after, query.limit),
                oldest_first=query.state == "held" and applicant is None,
            )
            return answer({"orders": [await describe(conn, each, whole=False) for each in found]})

    async def decide(request: web.Request) -> web.Response:
        """Releases a held order, or refuses it (G19)."""
        officer = require(request, "officer")
        decision = await read(request, Decision)
        if decision.release == (decision.reason is not None):
            raise QuashError("request.invalid", "a refusal has a reason, a release has none")
        order = await issuance.decide(_order_id(request.match_info["id"]), officer.actor, decision.reason)
        async with acquire(pool) as conn:
            return answer(await describe(conn, order))

    app.router.add_post("/v1/orders", post)
    app.router.add_get("/v1/orders", listed)
    app.router.add_post("/v1/orders/{id}/decision", decide)
    app.router.add_get("/v1/orders/{id}", get)


async def describe(conn: Connection, order: Order, *, whole: bool = True) -> dict[str, Any]:
    """An order as JSON. The certificate (PEM), and the chain behind it without the root, only once it is released.

    `whole`: with both; a list goes without.
    """
    if order.issuer_id is None or order.serial is None:
        return _told(order)
    found = await issuing.chain_and_certificate(conn, order.issuer_id, order.serial)
    if found is None:
        raise QuashError("order.inconsistent", f"order {order.id} has no certificate: tell support", Kind.INTERNAL)
    above, not_after, der = found
    chain = [(issuer, certificate.der if certificate is not None else None) for issuer, certificate in above]
    return _told(order, chain, not_after, der if whole else None)


def _told(
    order: Order,
    chain: Sequence[tuple[Issuer, bytes | None]] = (),
    not_after: int | None = None,
    certificate: bytes | None = None,
) -> dict[str, Any]:
    """Of its issuer and those above it, until when it is valid, and the (pre)certificate, where these are known."""
    released = order.state == "issued" and certificate is not None
    return {
        "id": str(order.id),
        "state": order.state,
        "profile": order.profile,
        "created_at": timestamp(order.created_at),
        "code": order.code,
        "detail": order.detail,
        "issuer": chain[0][0].name if chain else None,
        "serial": format_serial(order.serial) if order.serial is not None else None,
        "not_after": timestamp(not_after),
        "certificate": _pem(certificate) if released and certificate is not None else None,
        "chain": "".join(_chain(chain)) if released else None,
    }


def _chain(above: Iterable[tuple[Issuer, bytes | None]]) -> Iterator[str]:
    """PEM of the issuer's certificate and those above it; clients have the root."""
    for issuer, certificate in above:
        if certificate is None or issuer.kind == "root":
            break
        yield _pem(certificate)


def _is_of(operator: Operator, order: Order) -> bool:
    """G42: a reseller's orders are its account's; staff see all."""
    return operator.account is None or order.operator == operator.applicant


def _order_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise QuashError("order.unknown", "there is no such order", Kind.NOT_FOUND) from None


@lru_cache(maxsize=64)  # of the CAs', again and again
def _pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode("ascii")
