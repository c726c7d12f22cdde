"""The CA signer as the builder sees it: octets in, a raw signature out, and no key on this side."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from quash.runtime import rpc


class CrlSigner(Protocol):
    """Signs CRLs that it has checked by itself.

    Returns the raw signature over `tbs` (r||s for ECDSA, see `quash.pki.algorithms`). It may refuse, with a code of its
    own, whatever does not fit the scope or the numbers it has signed before. Raises `rpc.unavailable`; whoever calls
    retries, under a new number, since an unanswered request may have been signed.
    """

    async def sign_crl(self, issuer_id: int, scope: str, tbs: bytes) -> bytes: ...


class RpcCrlSigner:
    """The CA signer behind its Unix socket."""

    def __init__(self, socket: Path, timeout: float = 120.0) -> None:
        self._socket = socket
        self._timeout = timeout

    async def sign_crl(self, issuer_id: int, scope: str, tbs: bytes) -> bytes:
        request = {"type": "crl", "issuer_id": issuer_id, "scope": scope}
        _, raw_signature = await rpc.call(self._socket, request, tbs, timeout=self._timeout)
        return raw_signature
