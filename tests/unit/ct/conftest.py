"""A precertificate and the chain above it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pytest

from issuer import profiles
from issuer.ct.tbs import with_poison
from issuer.profiles import LeafContent, LeafIssuer, Validity
from issuer.signer.tbs_writer import write_certificate
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.runtime.profiles import shipped
from tests.support.issuing import (
    CRL_BASE,
    DAY,
    OCSP_BASE,
    SoftwareKey,
    ca_certificate,
    private_key,
    spki_of,
)

NOW = 1_800_000_000


@dataclass
class Chain:
    """A DV precertificate, signed by its CA, with issuer and root."""

    root: bytes
    issuer: bytes
    tbs: bytes

    @cached_property
    def poisoned(self) -> bytes:
        return with_poison(self.tbs)

    def signed(self, tbs: bytes) -> bytes:
        algorithm = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"]
        return write_certificate(tbs, algorithm, SoftwareKey(private_key("tls-dv")).sign(tbs))

    @cached_property
    def precertificate(self) -> bytes:
        return self.signed(self.poisoned)

    @property
    def above(self) -> list[bytes]:
        return [self.issuer, self.root]


@pytest.fixture(scope="session")
def chain() -> Chain:
    root, issuer = ca_certificate("root", "root", NOW, 3000), ca_certificate("tls-dv", "root", NOW, 999)
    leaf_issuer = LeafIssuer("ecdsa-p256-sha256", issuer, f"{OCSP_BASE}/a", f"{CRL_BASE}/a.cer", f"{CRL_BASE}/a.crl")
    content = LeafContent(spki_of(private_key("leaf")), ("www.example.org",), {})
    valid = Validity(NOW, NOW + 199 * DAY - 1)
    return Chain(root, issuer, profiles.build_tbs(shipped()["dv"], leaf_issuer, content, bytes(range(1, 17)), valid))
