"""pkilint over leaves (D47, D48). Runs in a worker process: 4 to 8 ms a certificate once warm, two seconds before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from types import MappingProxyType
from typing import Final

from pkilint import finding_filter, loader
from pkilint.cabf import serverauth
from pkilint.cabf.serverauth.serverauth_constants import CertificateType
from pkilint.pkix import certificate
from pkilint.validation import ValidatorContainer

from issuer.checks.findings import DOCUMENTS, Finding
from quash.pki.rules import SHORT_LIVED

VERSION: Final = version("pkilint")
_TYPES: Final[Mapping[str, CertificateType]] = MappingProxyType(
    {
        "dv-precertificate": CertificateType.DV_PRE_CERTIFICATE,
        "dv-certificate": CertificateType.DV_FINAL_CERTIFICATE,
        "ov-precertificate": CertificateType.OV_PRE_CERTIFICATE,
        "ov-certificate": CertificateType.OV_FINAL_CERTIFICATE,
    }
)
# D4: the BRs let short-lived leaves go without CRLDP and OCSP. Microsoft's program does not say so, hence the finding;
# it stays on record as a notice, and a deployment that lints at notice refuses it.
_OF_SHORT_LIVED: Final[Mapping[str, str]] = MappingProxyType(
    {"msft.end_entity.revocation_information_absent": "notice"}
)


def findings(der: bytes, document: str) -> list[Finding]:
    """Everything that pkilint says about a DER certificate of this type (`issuer.checks.findings.DOCUMENTS`)."""
    loaded = loader.load_certificate(der, document)
    results, _ = finding_filter.filter_results(
        serverauth.create_serverauth_finding_filters(_TYPES[document]), _validator(document).validate(loaded.root)
    )
    lowered = _OF_SHORT_LIVED if loaded.validity_period.total_seconds() <= SHORT_LIVED else {}
    return [
        Finding(
            lowered.get(said.finding.code, said.finding.severity.name.lower()), said.finding.code, said.message or ""
        )
        for result in results
        for said in result.finding_descriptions
    ]


def warm() -> None:
    """Makes the validators of every type, so that no order waits for them."""
    for document in DOCUMENTS:
        _validator(document)


@cache
def _validator(document: str) -> ValidatorContainer:
    """Made once: each making reads the public suffix list five times, which takes longer than all linting."""
    return certificate.create_pkix_certificate_validator_container(
        serverauth.create_decoding_validators(), serverauth.create_validators(_TYPES[document])
    )
