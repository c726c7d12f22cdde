"""Linters over certificates that are not leaves, before a CA key signs them (D47, D48, A42).

pkilint always; of the configuration its level, its exemptions and its external linters, as for leaves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkilint import finding_filter, loader
from pkilint.cabf import serverauth
from pkilint.cabf.serverauth.serverauth_constants import CertificateType
from pkilint.pkix import certificate
from pkilint.validation import ValidatorContainer

from issuer.checks import pkilinting
from issuer.checks.findings import Finding, Report
from issuer.checks.lint import LintGate
from issuer.checks.workers import Threaded
from issuer.profiles import sign_twin, throw_away_key
from issuer.signer import ca_profiles
from issuer.signer.tbs_writer import Frame, write_certificate
from quash.errors import Kind, QuashError
from quash.runtime.config import Lint
from quash.store import lint_results
from quash.store.database import Connection
from quash.store.lint_results import LintResult

Linted = tuple[Frame, bytes]
"""What linters let pass: a frame and its TBS."""

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

# Findings at notice or above that stop no certificate, whatever the level: code -> (what its message matches, why).
TOLERATED: Final[Mapping[str, tuple[re.Pattern[str], str]]] = MappingProxyType(
    {
        "cabf.ca_certificate_no_digital_signature_bit": (
            re.compile(".*"),
            "CA keys sign certificates and CRLs alone: OCSP answers have signers of their own (A13)",
        ),
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

TAKEN_FOR_A_LEAF: Final = frozenset(
    {
        "No CRL or OCSP over HTTP",
        "No HTTP URL for issuing certificate",
        "No policy extension",
        "Subject with organizationName, givenName or surname but without stateOrProvince or localityName",
        "no authorityInformationAccess extension",
    }
)
"""x509lint's findings that stand in an OCSP signer, and there alone: it asks one for what a TLS leaf has.

None needs that (A15-A17); all else that it finds in one counts.
"""


async def lint_before_signing(
    conn: Connection, config: Lint, frame: Frame, tbs: bytes, profile: str, *, at: int
) -> None:
    """Lints the certificate that `tbs` will be, in `frame`, and stores what each linter said (D47).

    `conn` is outside a transaction: a refusal is stored too. Raises `lint.failed` with every finding at the configured
    level that is not tolerated; `lint.unavailable`, `lint.timeout`.
    """
    reports = await _reports(config, frame, tbs, profile)
    results = [
        LintResult(at, None, profile, each.linter, each.version, each.as_json(), bool(each.refusing), frame.serial)
        for each in reports
    ]
    await lint_results.add(conn, results)
    problems = [problem for each in reports for problem in each.refusing]
    if problems:
        said = "; ".join(f"{each.code} {each.message}".strip() for each in problems)
        raise QuashError("lint.failed", f"the {profile} certificate was not signed: {said}", Kind.REFUSED)


async def _reports(config: Lint, frame: Frame, tbs: bytes, profile: str) -> Sequence[Report]:
    gate = LintGate(config, Threaded())
    # pkilint sees the very key and a static signature value, which BR 4.3.1.2 allows.
    static = write_certificate(tbs, frame.algorithm, b"\x01" * (frame.algorithm.raw_size or 256))
    inside = gate.report("pkilint", pkilinting.VERSION, await asyncio.to_thread(findings, static, profile))
    twin = _twin(frame, tbs, profile) if config.external else b""
    outside = await asyncio.gather(*(gate.external(linter, twin) for linter in config.external))
    return [_tolerating(each, profile) for each in (inside, *outside)]


def _tolerating(report: Report, profile: str) -> Report:
    standing = tuple(each for each in report.refusing if is_tolerated(each, profile))
    refusing = tuple(each for each in report.refusing if each not in standing)
    return replace(report, refusing=refusing, standing=(*report.standing, *standing))


def _twin(frame: Frame, tbs: bytes, profile: str) -> bytes:
    """Signed by a throw-away key; a root also names it, since linters tell roots by their own signatures."""
    key, digest = throw_away_key(frame.algorithm.name)
    if profile == "root":
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        tbs = ca_profiles.root(replace(frame, spki=spki))
    return sign_twin(tbs, frame.algorithm.name, key, digest)


def findings(der: bytes, profile: str) -> list[Finding]:
    """Everything that pkilint says about a certificate of this profile."""
    document = loader.load_certificate(der, profile)
    results, _ = finding_filter.filter_results(
        serverauth.create_serverauth_finding_filters(TYPES[profile]), _validator(profile).validate(document.root)
    )
    return [
        Finding(said.finding.severity.name.lower(), said.finding.code, said.message or "")
        for result in results
        for said in result.finding_descriptions
    ]


@cache
def _validator(profile: str) -> ValidatorContainer:
    """Made once: each making reads the public suffix list five times, which takes longer than all linting."""
    return certificate.create_pkix_certificate_validator_container(
        serverauth.create_decoding_validators(), serverauth.create_validators(TYPES[profile])
    )


def is_tolerated(finding: Finding, profile: str) -> bool:
    """Whether a rule wants so what a linter found, see `TOLERATED` and `TAKEN_FOR_A_LEAF`."""
    if profile == "ocsp-signer" and finding.code in TAKEN_FOR_A_LEAF:
        return True
    known = TOLERATED.get(finding.code)
    return known is not None and known[0].fullmatch(finding.message) is not None
