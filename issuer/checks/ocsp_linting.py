"""pkilint over OCSP responses (D47, A42): samples of what the public gets, not a gate; two seconds before the first."""

from __future__ import annotations

from functools import cache

from pkilint import loader, pkix
from pkilint.pkix import extension, name, ocsp
from pkilint.validation import ValidatorContainer

from issuer.checks.findings import Finding


def findings(der: bytes) -> list[Finding]:
    """Everything that pkilint says about a DER OCSPResponse. Raises ValueError for what is none."""
    loaded = loader.RFC6960OCSPResponseDocumentLoader().load_der_document(der, "response")
    return [
        Finding(said.finding.severity.name.lower(), said.finding.code, said.message or "")
        for result in _validator().validate(loaded.root)
        for said in result.finding_descriptions
    ]


@cache
def _validator() -> ValidatorContainer:
    decoders = [
        ocsp.create_response_decoder(),
        pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
        pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
    ]
    return ocsp.create_pkix_ocsp_response_validator_container(decoders, [])
