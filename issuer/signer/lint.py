"""pkilint over certificates that are not leaves, before a CA key signs them (D47, A42)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from pkilint import finding_filter, loader
from pkilint.cabf import serverauth
from pkilint.cabf.serverauth.serverauth_constants import CertificateType
from pkilint.pkix import certificate
from pkilint.validation import ValidationFindingSeverity, ValidatorContainer

from issuer.signer.tbs_writer import write_certificate
from quash.errors import Kind, QuashError
from quash.pki.algorithms import SignatureAlgorithm

TYPES: Final[Mapping[str, CertificateType]] = MappingProxyType(
    {
        "root": CertificateType.ROOT_CA,
        "sub-ca": CertificateType.INTERNAL_UNCONSTRAINED_TLS_CA,
        "sub-ca-constrained": CertificateType.EXTERNAL_CONSTRAINED_TLS_CA,  # our own pass what others' must
        "smime-sub-ca": CertificateType.NON_TLS_CA,
        "smime-sub-ca-constrained": CertificateType.NON_TLS_CA,
        "ocsp-signer": CertificateType.OCSP_RESPONDER,
    }
)

# Findings above notice that do not stop a certificate: code -> (what its message must match, why).
TOLERATED: Final[Mapping[str, tuple[re.Pattern[str], str]]] = MappingProxyType(
    {
        "cabf.internal_domain_name": (
            re.compile(r'Internal domain name: "(127\.0\.0\.1|localhost)"'),
            "the demo's URLs are on the loopback interface; no other machine is ever sent there",
        ),
        "cabf.serverauth.name_constraints_discouraged_name_type": (
            re.compile("Discouraged GeneralSubtree base type: rfc822Name"),
            "a constrained S/MIME CA has just these (D17); the discouragement is the TLS rules'",
        ),
        "pkix.invalid_email_address_syntax": (
            re.compile(r'Invalid e-mail address syntax: "[^"@]+"'),
            "a constraint names a host or, with a dot, all hosts below, not a mailbox (D17, RFC 5280 4.2.1.10)",
        ),
    }
)


def lint_before_signing(tbs: bytes, algorithm: SignatureAlgorithm, profile: str) -> None:
    """Lints the certificate that `tbs` will be, around a static signature value, which BR 4.3.1.2 allows.

    Raises `lint.failed` with every finding above notice that is not tolerated.
    """
    twin = write_certificate(tbs, algorithm, b"\x01" * (algorithm.raw_size or 256))
    problems = [problem for problem in findings(twin, profile) if not _is_tolerated(*problem)]
    if problems:
        said = "; ".join(f"{code} {message}".strip() for code, message in problems)
        raise QuashError("lint.failed", f"the {profile} certificate was not signed: {said}", Kind.REFUSED)


def findings(der: bytes, profile: str) -> Iterator[tuple[str, str]]:
    """(code, message) of what pkilint finds above notice in a certificate of this profile."""
    document = loader.load_certificate(der, profile)
    results, _ = finding_filter.filter_results(
        serverauth.create_serverauth_finding_filters(TYPES[profile]), _validator(profile).validate(document.root)
    )
    for result in results:
        for description in result.finding_descriptions:
            if description.finding.severity < ValidationFindingSeverity.NOTICE:  # FATAL is 0
                yield description.finding.code, description.message or ""


@cache
def _validator(profile: str) -> ValidatorContainer:
    """Made once: each making reads the public suffix list five times, which takes longer than all linting."""
    return certificate.create_pkix_certificate_validator_container(
        serverauth.create_decoding_validators(), serverauth.create_validators(TYPES[profile])
    )


def _is_tolerated(code: str, message: str) -> bool:
    known = TOLERATED.get(code)
    return known is not None and known[0].fullmatch(message) is not None
