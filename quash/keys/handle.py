"""What a private key is to the two processes that may use one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from quash.errors import Kind, QuashError
from quash.pki.algorithms import SignatureAlgorithm


class KeyUnavailable(QuashError):  # noqa: N818 - the word of the design
    """A key cannot be used now: a file, token or secret is missing or wrong; the message says what to repair."""

    def __init__(self, message: str, code: str = "key.unavailable") -> None:
        super().__init__(code, message, Kind.UNAVAILABLE)


class KeyHandle(Protocol):
    """One private key, opened.

    Contract: synchronous; used by one thread at a time, in the process that opened it, never across a fork.
    `sign` hashes and signs `tbs` with `algorithm` and returns the raw signature: r || s of fixed width for ECDSA, the
    integer's octets for RSA, 64 octets for Ed25519. It never returns one of a wrong size, but it does not verify what
    it made: a caller that hands signatures out checks them against `spki`. Any failure raises `KeyUnavailable`; the
    handle is then spent, and who wants to retry opens a new one. Nothing is promised about two signatures of the same
    bytes being equal.
    """

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo."""

    @property
    def algorithm(self) -> SignatureAlgorithm: ...

    @property
    def quick(self) -> bool:
        """Whether a signature takes less than to have another thread make it: it may then be made by the event loop."""

    def sign(self, tbs: bytes) -> bytes: ...

    def sign_many(self, many: Sequence[bytes]) -> list[bytes]:
        """Signatures of all, in order; quicker than one `sign` each where the key allows it."""

    def check(self) -> None:
        """Whether it is still there, as far as that can be told without a signature; raises as `sign` does."""

    def close(self) -> None:
        """Releases the token's session or forgets the key; idempotent."""
