"""Idempotency keys: a change with the header `Idempotency-Key` is done once, and answered again as it was.

For a day and per operator. A refusal is not kept, since nothing was done: the same key may try again. When the process
died between the change and the end of its answer, the outcome is not known, and it is said so rather than done twice.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from aiohttp import web

from issuer.api import OPERATOR, Handler
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
        path = resource.canonical if resource is not None else ""
        if key is None or request.method != "POST" or path in BY_NATURE:
            return await handler(request)
        if not 0 < len(key) <= _LONGEST or not key.isascii() or not key.isprintable():
            raise QuashError("idempotency.malformed", f"{HEADER} has 1 to {_LONGEST} printable ASCII characters")
        operator = request[OPERATOR].fingerprint
        digest = hashlib.sha256(request.path_qs.encode() + b"\n" + await request.read()).digest()
        async with acquire(pool) as conn:
            kept = await idempotency.begin(conn, operator, key, digest, now=int(clock.now()), keep=DAY)
        if kept is not None:
            return _again(kept, digest)
        done = False
        try:
            response = await handler(request)
            done = response.status < 300
        finally:
            if not done:
                async with acquire(pool) as conn:
                    await idempotency.forget(conn, operator, key)
        assert isinstance(response, web.Response)  # noqa: S101 - every answer of a POST is a whole one
        async with acquire(pool) as conn:
            await idempotency.finish(conn, operator, key, response.status, bytes(response.body or b""))  # type: ignore[arg-type]
        return response

    return once


def _again(kept: Kept, digest: bytes) -> web.Response:
    if kept.request_sha256 != digest:
        raise QuashError("idempotency.reused", "this key was used for another request: take a new one", Kind.REFUSED)
    if kept.status is None:
        raise QuashError(
            "idempotency.unknown", "the first request is under way or was cut off: look what it did", Kind.CONFLICT
        )
    return web.Response(
        body=kept.body,
        status=kept.status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", REPLAYED: "true"},
    )
