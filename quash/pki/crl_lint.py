"""pkilint over CRLs, BR profile: asked before any CRL is published, of online and of offline keys alike (B1-B11).

Loading it takes two seconds: the CRL builder has it in a process of its own.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from pkilint import loader, pkix
from pkilint.cabf import cabf_crl
from pkilint.pkix import crl, extension, name
from pkilint.validation import ValidationFindingSeverity, ValidatorContainer

TOLERATED: Final = frozenset({"pkix.certificate_serial_number_out_of_range"})
"""An old CA's serials may be zero, negative or over 20 octets; a CRL names them byte for byte as they are (B8)."""


def findings(body: bytes, *, of_cas: bool = False) -> list[str]:
    """What pkilint says above notice of a CRL in DER, half a millisecond an entry; nothing: it pleases.

    `of_cas`: it lists certificates of CAs, and may be valid for a year (B2).
    """
    try:
        document = loader.RFC5280CertificateListDocumentLoader().load_der_document(body, "crl")
        results = _validator(of_cas).validate(document.root)
    except Exception as error:  # noqa: BLE001 - what pkilint cannot read must not pass, whatever it raises
        return [f"FATAL pkilint.cannot_read {type(error).__name__}: {error}"]
    return [
        f"{each.finding.severity.name} {each.finding.code} {each.message or ''}".rstrip()
        for result in results
        for each in result.finding_descriptions
        if each.finding.severity < ValidationFindingSeverity.NOTICE and each.finding.code not in TOLERATED
    ]


@cache
def _validator(of_cas: bool) -> ValidatorContainer:
    kind = crl.CertificateRevocationListType.ARL if of_cas else crl.CertificateRevocationListType.CRL
    return crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([cabf_crl.create_validity_period_validator(kind)]),
            crl.create_extensions_validator_container([]),
            cabf_crl.CabfCrlReasonCodeAllowlistValidator(kind),
        ],
    )
