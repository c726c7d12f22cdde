"""The edge that both private APIs share: mutual TLS, operators, problem documents (RFC 9457).

Who asks is decided by the SHA-256 of the client certificate, looked up on every request, so that a disabled operator
is out at once (F6, F9). HTTP is spoken here and in the two `api` modules alone; use cases raise `QuashError`.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong
from cryptography import x509
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel, ValidationError

from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.runtime.log import logger
from quash.runtime.server_name import hide_versions
from quash.runtime.state import State
from quash.store import operators
from quash.store.database import Pool, acquire
from quash.store.operators import Operator

MAX_BODY = 64 * 1024
OPERATOR = web.RequestKey("operator", Operator)
CODE = "X-Quash-Code"
"""The header that carries a problem's code, so that metrics and the log need not read bodies."""
PRECONDITION = "precondition.failed"

STATUS = {
    Kind.INPUT: 400,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.REFUSED: 422,
    Kind.INTERNAL: 500,
    Kind.UNAVAILABLE: 503,
}
# What aiohttp refuses before a handler runs: (status to send, error).
_REFUSALS = {
    404: QuashError("request.no_such_path", "there is nothing at this path", Kind.NOT_FOUND),
    405: QuashError("request.method", "this path does not take this method: see Allow", Kind.INPUT),
    413: QuashError("request.too_large", "the body is too large: send less", Kind.INPUT),
}
# What it refuses before there is a request.
_UNREADABLE = {
    400: QuashError("request.malformed", "this is no HTTP request that can be read", Kind.INPUT),
    414: QuashError("request.uri_too_long", "the URL is too long: send less", Kind.INPUT),
    431: QuashError("request.header_too_large", "the request's header is too large: send less", Kind.INPUT),
    501: QuashError("request.method", "no path takes this method", Kind.INPUT),
}
# How its parser shows a request line with a method that it does not know.
_UNKNOWN_METHOD = re.compile(r"^ *b'[A-Za-z0-9!#$%&*+.^_`|~-]+ \S+ HTTP/1\.[01]'$", re.MULTILINE)
_CUT_OFF = QuashError("request.cut_off", "the connection ended before the whole request was here", Kind.INPUT)
_FAULT = QuashError("internal", "this is a fault of ours: the log of the API says more", Kind.INTERNAL)
_MAX_LINE = 8190  # octets of a request line; a header field may have one more, so that LineTooLong tells which it was
_REQUESTS = Counter("quash_api_requests_total", "Requests to the private APIs", ["route", "method", "code"])
_ENDS = Gauge(
    "quash_api_certificate_end_timestamp",
    "notAfter, Unix seconds, of what a private API was started with: its certificate, the operators' CA's (alarm)",
    ["what"],
)
_SECONDS = Histogram("quash_api_request_seconds", "Time of requests to the private APIs", ["route", "method"])

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class TlsFiles:
    """What the APIs serve with: their certificate and key, and the one CA whose client certificates may knock."""

    certificate: Path
    key: Path
    client_ca: Path


def tls_files(state: State) -> TlsFiles:
    """Where `quash init` puts them."""
    return TlsFiles(state.secrets / "api.pem", state.secrets / "api.key", state.operators / "ca.pem")


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.3 only, a client certificate of our own CA or no connection (F11).

    No session tickets: each connection shows its certificate again.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.client_ca)
    except OSError as error:
        raise QuashError(
            "api.no_certificate",
            f"cannot read {files.certificate} and its companions: run quash init",
            Kind.UNAVAILABLE,
        ) from error
    for what, path in (("server", files.certificate), ("operators-ca", files.client_ca)):
        end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        _ENDS.labels(what).set(end.timestamp())
    return context


def application(pool: Pool, clock: Clock) -> web.Application:
    """An application whose every request comes from an active operator and whose every error is a problem document.

    Routes are added by the caller; their handlers call `require` first.
    """
    return web.Application(middlewares=[_observe(clock), problems, _authenticate(pool)], client_max_size=MAX_BODY)


@asynccontextmanager
async def listening(app: web.Application, files: TlsFiles, host: str, port: int) -> AsyncIterator[int]:
    """Serves `app` inside the block and yields the port (of use where 0 was asked for)."""
    hide_versions()
    runner = ProblemRunner(app, handle_signals=False, shutdown_timeout=10)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls_context(files)).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class ProblemRunner(web.AppRunner):
    """aiohttp's, whose every refusal is a problem document, also of what its parser cannot read.

    `connection`: makes each one, given what `ApiConnection` takes.
    """

    def __init__(
        self, app: web.Application, *, connection: Callable[..., ApiConnection] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(app, **kwargs)
        self._connection = connection or ApiConnection

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        made = _Server(server.request_handler, request_factory=server.request_factory)
        made.connection = self._connection
        return made


class _Server(web.Server):
    connection: Callable[..., ApiConnection]

    def __call__(self) -> web.RequestHandler:
        return self.connection(
            self, loop=self._loop, access_log=cast(Any, None), max_line_size=_MAX_LINE, max_field_size=_MAX_LINE + 1
        )


class ApiConnection(web.RequestHandler):
    """aiohttp's, which answers what it cannot read with a problem document."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun: there is no other way to end it")
        if isinstance(exc, LineTooLong):
            status = 414 if exc.args[1] == _MAX_LINE else 431
        elif isinstance(exc, BadHttpMethod) and _UNKNOWN_METHOD.search(exc.message):
            status = 501  # RFC 9110 9.1; 405 is for what some other path takes
        error = _UNREADABLE.get(status, _FAULT)
        if error is _FAULT:
            self.log_exception("api.fault", exc_info=exc)
        _REQUESTS.labels("none", "none", error.code).inc()
        response = problem(error, status)
        response.force_close()
        return response


def require(request: web.Request, *roles: str) -> Operator:
    """The operator that asks; raises `operator.role` (403) unless it has one of these roles."""
    operator: Operator = request[OPERATOR]
    if operator.role not in roles:
        raise QuashError(
            "operator.role",
            f"{operator.name} has the role {operator.role}; this needs {' or '.join(roles)}: choose with --as",
            Kind.FORBIDDEN,
        )
    return operator


async def read(request: web.Request, model: type[Body]) -> Body:
    """The JSON body as a model; raises `request.content_type`, `request.malformed_json`, `request.nul`,
    `request.invalid`.
    """
    # Nothing else, so that a browser holding a client certificate cannot be made to post a form here.
    if request.content_type != "application/json":
        raise QuashError("request.content_type", "send the body as application/json", Kind.INPUT)
    try:
        tree = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise QuashError("request.malformed_json", f"the body is not JSON: {error}", Kind.INPUT) from None
    _refuse_nul(tree)
    return _validated(model, tree)


def _validated(model: type[Body], tree: object) -> Body:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
        raise QuashError("request.invalid", said, Kind.INPUT) from None


def read_query(request: web.Request, model: type[Body]) -> Body:
    """The query's parameters as a model, each given once; raises `request.invalid`, `request.nul`."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise QuashError("request.invalid", f"{name}: give it once", Kind.INPUT)
        given[name] = value
    _refuse_nul(given)
    return _validated(model, given)


def _refuse_nul(tree: object) -> None:
    """Raises `request.nul` for U+0000 in a text, since PostgreSQL holds none and the bodies need none."""
    if isinstance(tree, str) and "\0" in tree:
        raise QuashError("request.nul", "leave U+0000 out", Kind.INPUT)
    if isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            _refuse_nul(each)


def answer(value: object, status: int = 200) -> web.Response:
    """A JSON answer; none of them may be kept by a cache."""
    return web.Response(
        body=orjson.dumps(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def timestamp(at: int | None) -> str | None:
    """Unix seconds as the APIs write times: RFC 3339, Zulu, without fractions."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def problem(error: QuashError, status: int | None = None) -> web.Response:
    """RFC 9457; `code` and `kind` let our own client raise the same error again. `order`: what was refused for it."""
    status = status or (412 if error.code == PRECONDITION else STATUS[error.kind])
    document = {
        "type": f"urn:quash:problem:{error.code}",
        "title": error.code,
        "status": status,
        "detail": error.message,
        "code": error.code,
        "kind": error.kind.value,
    }
    headers = {"Cache-Control": "no-store", CODE: error.code}
    if error.order_id is not None:
        document["order"], headers["Location"] = error.order_id, f"/v1/orders/{error.order_id}"
    return web.Response(
        body=orjson.dumps(document), status=status, content_type="application/problem+json", headers=headers
    )


def _observe(clock: Clock) -> Any:
    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Counts and logs each request: who, what, how it ended (F1, F3)."""
        began = clock.monotonic()
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        response = await handler(request)
        code = response.headers.get(CODE, "ok")
        seconds = clock.monotonic() - began
        _REQUESTS.labels(route, request.method, code).inc()
        _SECONDS.labels(route, request.method).observe(seconds)
        operator = request.get(OPERATOR)
        logger().info(
            "api.request",
            method=request.method,
            path=request.path,
            status=response.status,
            code=code,
            operator=operator.name if operator else None,
            ms=round(seconds * 1000, 1),
        )
        return response

    return observe


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever went wrong into a problem document; an unforeseen fault is logged and told without detail."""
    try:
        _refuse_nul(request.path)
        return await handler(request)
    except QuashError as error:
        return problem(error)
    except web.HTTPException as error:
        refusal = _REFUSALS.get(error.status)
        if refusal is None:
            raise
        response = problem(refusal, error.status)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception as error:  # noqa: BLE001 - the edge: nothing may pass it unanswered
        if isinstance(error, ConnectionError) and request.transport is None:
            return problem(_CUT_OFF)  # nobody reads it, but it is counted
        logger().exception("api.fault", method=request.method, path=request.path)
        return problem(_FAULT)


def _authenticate(pool: Pool) -> Any:
    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        async with acquire(pool) as conn:
            operator = await operators.find(conn, _fingerprint(request))
        if operator is None:
            raise QuashError("operator.unknown", "this client certificate belongs to no operator", Kind.FORBIDDEN)
        if not operator.active:
            raise QuashError("operator.disabled", f"the operator {operator.name} is disabled", Kind.FORBIDDEN)
        request[OPERATOR] = operator
        return await handler(request)

    return authenticate


def _fingerprint(request: web.Request) -> bytes:
    """SHA-256 of the client certificate, which TLS has already verified against the operators' CA."""
    transport = request.transport
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    if certificate is None:
        raise QuashError("operator.no_certificate", "connect with a client certificate", Kind.FORBIDDEN)
    return hashlib.sha256(certificate).digest()
