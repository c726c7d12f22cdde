"""pkilint over CRLs, BR profile: the program of the lint worker. It reads CRLs on stdin and ends with its parent.

Each request is four octets of length and a CRL in DER; each answer is a JSON line, a list of findings.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

PREFIX = 4
TOLERATED = frozenset({"pkix.certificate_serial_number_out_of_range"})
"""An old CA's serials may be zero, negative or over 20 octets; a CRL names them byte for byte as they are (B8)."""
_NICE = 5  # behind the builder itself: the whole of a large CRL takes minutes


def make_linter() -> Callable[[bytes], list[str]]:
    """A function from a CRL to what pkilint says above notice; loading it takes two seconds."""
    from pkilint import loader, pkix  # noqa: PLC0415 - not in the builder's own process
    from pkilint.cabf import cabf_crl  # noqa: PLC0415
    from pkilint.pkix import crl, extension, name  # noqa: PLC0415
    from pkilint.validation import ValidationFindingSeverity  # noqa: PLC0415

    kind = crl.CertificateRevocationListType.CRL
    validator = crl.create_pkix_crl_validator_container(
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

    def lint(body: bytes) -> list[str]:
        document = loader.RFC5280CertificateListDocumentLoader().load_der_document(body, "crl")
        found: list[Any] = validator.validate(document.root)
        return [
            f"{each.finding.severity.name} {each.finding.code} {each.message or ''}".rstrip()
            for result in found
            for each in result.finding_descriptions
            if each.finding.severity < ValidationFindingSeverity.NOTICE and each.finding.code not in TOLERATED
        ]

    return lint


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answers until the parent closes its end."""
    lint = make_linter()
    while len(head := source.read(PREFIX)) == PREFIX:
        body = source.read(int.from_bytes(head, "big"))
        try:
            said = lint(body)
        except Exception as error:  # noqa: BLE001 - what pkilint cannot read must not pass, whatever it raises
            said = [f"FATAL pkilint.cannot_read {type(error).__name__}: {error}"]
        sink.write(json.dumps(said).encode() + b"\n")
        sink.flush()


if __name__ == "__main__":
    os.nice(_NICE)
    serve(sys.stdin.buffer, sys.stdout.buffer)
