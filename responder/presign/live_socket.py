"""The live signer's socket: CertIDs and a nonce in, a response out; never octets to sign, nor a status.

`{"cert_ids": [[hash, name hash, key hash, serial], ...], "nonce": text or null}`, all but the first in hexadecimal, is
answered with `{"said": [[version, reason or null], ...], "this_update": seconds}` and the DER OCSPResponse as body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quash.cache.layout import MAX_SERIAL
from quash.errors import QuashError
from quash.pki.certid import CertId, CertIdHash
from quash.pki.ocsp_request import MAX_NONCE
from quash.runtime import rpc
from responder.presign.live import LiveSigner

MOST_CERTIFICATES = 250


def _hex(least: int, most: int) -> Any:
    """Of so many octets."""
    return Field(pattern=rf"^([0-9a-f]{{2}}){{{least},{most}}}$")


_Hash = Annotated[str, _hex(20, 32)]
_CertId = tuple[Annotated[str, Field(pattern="^sha(1|256)$")], _Hash, _Hash, Annotated[str, _hex(1, MAX_SERIAL)]]


class LiveRequest(BaseModel):
    """What a responder may ask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cert_ids: Annotated[list[_CertId], Field(min_length=1, max_length=MOST_CERTIFICATES)]
    nonce: Annotated[str, _hex(1, MAX_NONCE)] | None


async def serve(path: Path, signer: LiveSigner, users: Sequence[str | int] = ()) -> asyncio.AbstractServer:
    """Serves a signer on a Unix socket; raises what `quash.runtime.rpc.serve` raises."""

    async def handle(header: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            request = LiveRequest.model_validate(header)
        except ValidationError as error:
            raise QuashError("live.malformed_request", str(error.errors(include_input=False)[0]["msg"])) from None
        nonce = None if request.nonce is None else bytes.fromhex(request.nonce)
        signed = await signer.sign([_cert_id(*fields) for fields in request.cert_ids], nonce)
        return {"said": signed.said, "this_update": signed.this_update}, signed.response

    return await rpc.serve(path, handle, max_body=0, users=users)


def _cert_id(hash_name: str, name_hash: str, key_hash: str, serial: str) -> CertId:
    return CertId(CertIdHash(hash_name), *map(bytes.fromhex, (name_hash, key_hash, serial)))
