"""The CA signer's socket: three requests, each with exactly its fields; none has bytes signed unread.

`{"type": "certificate", "issuer_id": int, "serial": hex}` answers with the DER certificate as body, `precertificate`
with the DER precertificate;
`{"type": "crl", "issuer_id": int, "scope": text}` with the TBSCertList as body answers with the raw signature.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from issuer.signer.service import CaSigner
from quash.errors import QuashError
from quash.pki.serials import parse_serial
from quash.runtime import rpc

MAX_CRL = 256 * 1024 * 1024
"""Octets of a TBSCertList: five million entries."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    issuer_id: Annotated[int, Field(ge=1, le=32767)]


class CertificateRequest(_Request):
    type: Literal["certificate", "precertificate"]
    serial: Annotated[str, Field(max_length=256)]


class CrlRequest(_Request):
    type: Literal["crl"]
    scope: Annotated[str, Field(max_length=64)]


_ANY: TypeAdapter[CertificateRequest | CrlRequest] = TypeAdapter(
    Annotated[CertificateRequest | CrlRequest, Field(discriminator="type")]
)


async def serve(
    path: Path, signer: CaSigner, *, max_body: int = MAX_CRL, users: Sequence[str | int] = ()
) -> asyncio.AbstractServer:
    """Serves a signer on a Unix socket; raises what `quash.runtime.rpc.serve` raises."""

    async def handle(header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        return {}, await answer(signer, header, body)

    return await rpc.serve(path, handle, max_body=max_body, users=users)


async def answer(signer: CaSigner, header: dict[str, Any], body: bytes) -> bytes:
    """Answers one request. Raises `signer.malformed_request` and what `CaSigner` raises."""
    try:
        request = _ANY.validate_python(header)
    except ValidationError as error:
        raise _malformed("; ".join(f"{_where(e['loc'])}: {e['msg']}" for e in error.errors())) from None
    if isinstance(request, CrlRequest):
        return await signer.sign_crl(request.issuer_id, request.scope, body)
    if body:
        raise _malformed("a request for a certificate has no body: what is signed is the reservation")
    sign = signer.sign_certificate if request.type == "certificate" else signer.sign_precertificate
    return await sign(request.issuer_id, parse_serial(request.serial))


def _where(loc: tuple[int | str, ...]) -> str:
    return ".".join(map(str, loc)) or "request"


def _malformed(message: str) -> QuashError:
    return QuashError("signer.malformed_request", message)
