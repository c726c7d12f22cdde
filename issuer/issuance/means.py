"""What the steps of flow 1 are done with: every seam of `Issuance`, and the faults that say nothing about an order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from issuer.checks.keys import KeyCheck
from issuer.checks.lint import Linting
from issuer.checks.registries import Registries
from issuer.ct.submit import Transparency
from issuer.issuance.crl_urls import CrlUrls
from quash.errors import Kind
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.store.database import Pool
from quash.store.issuers import Issuer

SignCertificate = Callable[[int, bytes], Awaitable[bytes]]
"""The CA signer: (issuer id, serial) of a reservation to the DER of its certificate; the same DER when asked again."""

PASSING: Final = (Kind.UNAVAILABLE, Kind.INTERNAL)
"""Faults that say nothing about the order: it waits and is tried again."""


class Answers(Protocol):
    """Whether the public gets `good` for a certificate. May be asked as often as one likes; knows no order."""

    async def good(self, issuer: Issuer, issuer_certificate: bytes, serial: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Logging:
    """What steps 6 and 9 need. Without it, certificates have no SCTs."""

    sign_precertificate: SignCertificate
    transparency: Transparency


async def unobserved(_step: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Means:
    """`passed` is told each step that is complete (`Issuance`)."""

    pool: Pool
    config: Config
    clock: Clock
    sign: SignCertificate
    answers: Answers
    check_key: KeyCheck
    linting: Linting
    logging: Logging | None
    registries: Registries | None
    passed: Callable[[str], Awaitable[None]]
    crl_urls: CrlUrls

    def now(self) -> int:
        """Unix seconds."""
        return int(self.clock.now())
