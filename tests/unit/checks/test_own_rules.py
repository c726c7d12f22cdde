"""Our own S/MIME rules (G8): each finds what it is for, where pkilint says nothing, and nothing in what is right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from issuer.checks import pkilinting
from issuer.checks.findings import refusal
from issuer.checks.lint import LintGate
from issuer.checks.own_rules import RULES, findings
from issuer.checks.workers import Inline
from quash.runtime.config import Lint
from tests.support.issuing import private_key

START = datetime(2026, 11, 22, tzinfo=UTC)
ORGANIZATION = (
    (NameOID.COUNTRY_NAME, "TN"),
    (NameOID.ORGANIZATION_NAME, "Essai"),
    (NameOID.ORGANIZATION_IDENTIFIER, "NTRTN-B2412342"),
)


def made(
    *more: tuple[x509.ObjectIdentifier, str],
    names: tuple[x509.GeneralName, ...] = (x509.RFC822Name("a@example.org"),),
    policy: str = "2.23.140.1.5.2.2",
    digest: Any = None,
) -> bytes:
    """DER of an organization's multipurpose certificate, as far as the rules look at it."""
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in (*ORGANIZATION, *more)])
    policies = [x509.PolicyInformation(x509.ObjectIdentifier(policy), None)]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .serial_number(1 << 100)
        .public_key(private_key("leaf").public_key())
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=99))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.CertificatePolicies(policies), False)
        .sign(private_key("tls-ov"), digest or hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


UPN = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a")
MAILBOX = x509.RFC822Name("a@example.org")
WRONG: dict[str, bytes] = {
    "organizational_unit": made((NameOID.ORGANIZATIONAL_UNIT_NAME, "PKI")),
    "general_name": made(names=(MAILBOX, UPN)),
    "internationalized_host": made(names=(x509.RFC822Name("a@xn--caf-dma.example.org"),)),
    "weak_digest": made(digest=hashes.SHA224()),
    "pseudonym": made((NameOID.PSEUDONYM, "Zorro")),
    "policy": made(policy="2.23.140.1.5.2.1"),
}


@pytest.mark.parametrize("code", WRONG)
def test_each_rule_finds_its_own(code: str) -> None:
    """One finding, an error, of this rule and no other."""
    (found,) = findings(WRONG[code])
    assert (found.severity, found.code) == ("error", f"quash.smime.{code}")


def test_every_rule_has_its_case() -> None:
    """And nothing is found in a certificate that keeps the promises."""
    assert set(WRONG) == {code for code, _ in RULES}
    assert findings(made()) == []


@pytest.mark.parametrize("code", ["organizational_unit", "pseudonym", "internationalized_host"])
def test_pkilint_is_silent_there(code: str) -> None:
    """The SBR allow these to somebody: hence rules of our own."""
    right = {
        (each.code, each.message) for each in pkilinting.findings(made(), "smime-organization-multipurpose-certificate")
    }
    said = pkilinting.findings(WRONG[code], "smime-sponsor-multipurpose-certificate" if code == "pseudonym" else
                               "smime-organization-multipurpose-certificate")  # fmt: skip
    new = {each.code for each in said if (each.code, each.message) not in right and each.severity in ("error", "fatal")}
    assert new <= {"cabf.smime.no_required_reserved_policy_oid"}  # the certificate says organization, not sponsor


async def test_the_gate_refuses_on_them() -> None:
    """Of S/MIME there are two reports, and either refuses."""
    gate = LintGate(Lint(level="error"), Inline())
    reports = await gate(WRONG["organizational_unit"], "smime-organization-multipurpose-certificate")
    assert [report.linter for report in reports] == ["pkilint", "quash"]
    error = refusal("smime-organization-multipurpose-certificate", reports[1:])
    assert error is not None
    assert "quash.smime.organizational_unit" in error.message
