"""Idempotency keys: a change with the header `Idempotency-Key` is done once, and answered again as it was.

For a day and per operator, whichever of its certificates it shows. A refusal is kept like any answer: some come after a
part was done, as an order's does, so trying anew takes a new key. A passing fault of which it is certain that it came
before anything was done leaves the key as if it had not been used. Where no answer says how it ended (another fault of
ours, a lost database, a process that died), the outcome is not known, and it is said so rather than done twice.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any, Final

import orjson
from aiohttp import web

from issuer.api import CODE, OPERATOR, Handler, problem
from quash.errors import Kind, QuashError
from quash.pki.rules import DAY
from quash.runtime.clock import Clock
from quash.store import idempotency
from quash.store.database import Pool, acquire
from quash.store.idempotency import Kept

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
_LONGEST: Final = 255
BY_NATURE: Final = ("/v1/mass-revocations/{id}/certificates",)
"""Changes that are the same when done again, with bodies too large to be read twice: the header changes nothing."""


def middleware(pool: Pool, clock: Clock) -> Any:
    """To stand behind the one that says which operator asks. Raises `idempotency.malformed`, `.reused`, `.unknown`."""

    @web.middleware
    async def once(request: web.Request, handler: Handler) -> web.StreamResponse:
        key = request.headers.get(HEADER)
        resource = request.match_info.route.resource
        if key is None or request.method != "POST" or resource is None or resource.canonical in BY_NATURE:
            return await handler(request)
        if not 0 < len(key) <= _LONGEST or not key.isascii() or not key.isprintable():
            raise QuashError("idempotency.malformed", f"{HEADER} has 1 to {_LONGEST} printable ASCII characters")
        operator = request[OPERATOR].identity
        digest = await _digest(request)
        async with acquire(pool) as conn:
            kept = await idempotency.begin(conn, operator, key, digest, now=int(clock.now()), keep=DAY)
        if kept is not None:
            return _again(kept, digest)
        try:
            response = await handler(request)
        except QuashError as error:
            if error.undone:
                with suppress(QuashError):
                    async with acquire(pool) as conn:
                        await idempotency.forget(conn, operator, key)
                raise
            response = problem(error)
        assert isinstance(response, web.Response)  # noqa: S101 - every answer of a POST is a whole one
        if response.status < 500:
            # What was done is told even where it cannot be kept: the next one to ask hears that it is not known.
            with suppress(QuashError):
                async with acquire(pool) as conn:
                    await idempotency.finish(conn, operator, key, response.status, bytes(response.body or b""))  # type: ignore[arg-type]
        return response

    return once


async def _digest(request: web.Request) -> bytes:
    """Of all that the handler looks at."""
    digest = hashlib.sha256()
    for part in (request.path_qs.encode(), request.headers.get("If-Match", "").encode(), await request.read()):
        digest.update(b"%d:" % len(part) + part)
    return digest.digest()


def _again(kept: Kept, digest: bytes) -> web.Response:
    if kept.request_sha256 != digest:
        raise QuashError("idempotency.reused", "this key was used for another request: take a new one", Kind.REFUSED)
    if kept.status is None or kept.body is None:
        raise QuashError(
            "idempotency.unknown",
            "the first request is under way or was cut off: look what it did (quash acts), then take a new key",
            Kind.CONFLICT,
        )
    headers, content_type = {"Cache-Control": "no-store", REPLAYED: "true"}, "application/json"
    if kept.status >= 400:
        headers[CODE], content_type = orjson.loads(kept.body)["code"], "application/problem+json"
    return web.Response(body=kept.body, status=kept.status, content_type=content_type, headers=headers)
