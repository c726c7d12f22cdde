"""pkilint over leaves (D47, D48). Runs in a worker process: 4 to 8 ms a certificate once warm, two seconds before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from types import MappingProxyType
from typing import Final

from pkilint import finding_filter
from pkilint.cabf import serverauth, smime
from pkilint.cabf.serverauth.serverauth_constants import CertificateType
from pkilint.cabf.smime.smime_constants import Generation, ValidationLevel
from pkilint.pkix import certificate
from pkilint.validation import ValidatorContainer

from issuer.checks import parts
from issuer.checks.dispatch import speed_up
from issuer.checks.findings import TLS_DOCUMENTS, Finding
from quash.pki.rules import SHORT_LIVED

VERSION: Final = version("pkilint")
_TLS: Final[Mapping[str, CertificateType]] = MappingProxyType(
    {
        "dv-precertificate": CertificateType.DV_PRE_CERTIFICATE,
        "dv-certificate": CertificateType.DV_FINAL_CERTIFICATE,
        "ov-precertificate": CertificateType.OV_PRE_CERTIFICATE,
        "ov-certificate": CertificateType.OV_FINAL_CERTIFICATE,
    }
)
_LEVELS: Final = {
    "mailbox": ValidationLevel.MAILBOX,
    "organization": ValidationLevel.ORGANIZATION,
    "sponsor": ValidationLevel.SPONSORED,
}
# D4: the BRs let short-lived leaves go without CRLDP and OCSP. Microsoft's program does not say so, hence the finding;
# it stays on record as a notice, and a deployment that lints at notice refuses it.
_OF_SHORT_LIVED: Final[Mapping[str, str]] = MappingProxyType(
    {"msft.end_entity.revocation_information_absent": "notice"}
)


def findings(der: bytes, document: str) -> list[Finding]:
    """Everything that pkilint says about a DER certificate of this document type (`issuer.checks.findings`)."""
    loaded = parts.load(der, document, family_of(document))
    results = _validator(document).validate(loaded.root)
    parts.remember(loaded)
    if document in _TLS:
        results, _ = finding_filter.filter_results(
            serverauth.create_serverauth_finding_filters(_TLS[document]), results
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
    """Makes the validators of TLS, so that no order waits for them; the first S/MIME order of a kind waits a second."""
    for document in TLS_DOCUMENTS:
        _validator(document)


@cache
def _validator(document: str) -> ValidatorContainer:
    """Made once: each making reads the public suffix list five times, which takes longer than all linting."""
    return speed_up(stock(document))


def family_of(document: str) -> str:
    """Documents of one family are decoded alike."""
    return "tls" if document in _TLS else "email"


def stock(document: str) -> ValidatorContainer:
    """pkilint's own validator of a document type."""
    if document in _TLS:
        return certificate.create_pkix_certificate_validator_container(
            serverauth.create_decoding_validators(), serverauth.create_validators(_TLS[document])
        )
    _, level, generation, _ = document.split("-")
    return certificate.create_pkix_certificate_validator_container(
        smime.create_decoding_validators(),
        smime.create_subscriber_validators(_LEVELS[level], Generation[generation.upper()]),
    )
