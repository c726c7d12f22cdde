"""TrustCor and TunTrust as they ship: each initialises, issues, and refuses what it must; strangers read what comes."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import VerificationError

from issuer.checks import adapters
from issuer.checks.findings import at_or_above
from issuer.checks.lint import TOLERATED
from quash.errors import QuashError
from quash.runtime.clock import FakeClock
from tests.support.issuing import make_csr, private_key
from tests.support.shipped import (
    ORGANIZATION,
    PERSON,
    REGISTERED,
    Shipped,
    gnutls_says,
    mail_csr,
    openssl_says,
    pyca_verifies,
    shipped,
)


@pytest.fixture
def clock() -> FakeClock:
    """Now: certtool knows no other time."""
    return FakeClock(int(time.time()) - 60)


def chain_of(found: Shipped, *names: str) -> list[x509.Certificate]:
    return [found.made.certificate(name) for name in names]


def policies_of(certificate: x509.Certificate) -> list[str]:
    value = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    return [each.policy_identifier.dotted_string for each in value]


# profile -> (chain above the leaf, request, policy)
TRUSTCOR: dict[str, tuple[tuple[str, str], str, str]] = {
    "tls-dv": (("ca1-tls", "ca1"), make_csr(["www.example.org"]), "2.23.140.1.2.1"),
    "tls-dv-week": (("ca1-tls", "ca1"), make_csr(["www.example.org"], key=private_key("rsa-leaf")), "2.23.140.1.2.1"),
    "tls-ov": (
        ("ca2-tls", "ca2"),
        make_csr(["www.example.org"], subject=ORGANIZATION, key=ec.generate_private_key(ec.SECP521R1())),
        "2.23.140.1.2.2",
    ),
    "tls-ov-day": (
        ("ca2-tls", "ca2"),
        make_csr(["www.example.org"], subject=ORGANIZATION, key=ec.generate_private_key(ec.SECP256R1())),
        "2.23.140.1.2.2",
    ),
    "mail-dv": (("ca1-mail", "ca1"), mail_csr("amel@example.org"), "2.23.140.1.5.1.3"),
    "mail-dv-multipurpose": (
        ("ca1-mail", "ca1"),
        mail_csr("a@example.org", "b@Example.ORG", subject=((NameOID.COMMON_NAME, "a@example.org"),)),
        "2.23.140.1.5.1.2",
    ),
    "mail-organization": (("ca2-mail", "ca2"), mail_csr("info@example.org", subject=REGISTERED), "2.23.140.1.5.2.3"),
    "mail-organization-multipurpose": (
        ("ca2-mail", "ca2"),
        mail_csr("info@example.org", subject=REGISTERED, key=private_key("rsa-leaf")),
        "2.23.140.1.5.2.2",
    ),
    "mail-sponsor": (("ca2-mail", "ca2"), mail_csr("amel@example.org", subject=PERSON), "2.23.140.1.5.3.3"),
    "mail-sponsor-multipurpose": (
        ("ca2-mail", "ca2"),
        mail_csr("amel@example.org", subject=(*PERSON, (NameOID.COMMON_NAME, "Amel Ben Salah"))),
        "2.23.140.1.5.3.2",
    ),
}
CAS = ("ca1", "ca2", "eca1", "ca1-tls", "ca1-mail", "ca2-tls", "ca2-mail", "eca1-tls", "eca1-mail")
PURPOSES = {True: "sslserver", False: "smimesign"}


async def test_trustcor_issues_what_it_is_for(database: Any, clock: FakeClock, tmp_path: Path) -> None:
    """A leaf of every profile passes the linter at `warning`, openssl, pyca's verifier and GnuTLS (D5-D13, D49)."""
    async with shipped("trustcor", database, clock, tmp_path) as found:
        assert set(TRUSTCOR) == {each.name for each in found.made.deployment.config.profiles}
        for profile, (above, request, policy) in TRUSTCOR.items():
            leaf, chain = await found.order(profile, request), chain_of(found, *above)
            assert policies_of(leaf) == [policy], profile
            tls = profile.startswith("tls")
            assert openssl_says(leaf, chain, PURPOSES[tls], tmp_path) == "leaf.pem: OK", profile
            assert openssl_says(leaf, chain, PURPOSES[not tls], tmp_path) != "leaf.pem: OK", profile
            about = "--verify-hostname=www.example.org" if tls else f"--verify-email={mailbox(leaf)}"
            assert "Chain verification output: Verified" in gnutls_says(leaf, chain, tmp_path, about), profile
            if tls:
                pyca_verifies(leaf, chain, "www.example.org", int(clock.now()))
            urls(leaf, above[0], short=profile == "tls-dv-week")
        for name in CAS:
            subject = found.made.certificate(name).subject.rfc4514_string()
            assert "OU=" not in subject  # G4, G26
            assert "CN=TrustCor" in subject  # G35
        linted = await found.made.fetch("select linter, findings from lint_result where order_id is not null")
        known = {(linter, each["code"]) for linter, findings in linted for each in findings}
        assert known == {
            ("pkilint", "msft.end_entity.revocation_information_absent"),  # D4, of the week's certificate
            ("pkilint", "pkix.subject_key_identifier_rfc7093_method_1_identified"),  # G32: SHA-1 names no key either
            ("zlint", "w_ct_sct_policy_count_unsatisfied"),  # a notice: nothing is logged here
            *(("zlint", code) for code in TOLERATED),
        }
        count = Counter(linter for linter, _ in linted)
        assert count == {"pkilint": 10, "zlint": 10, "quash": 6}  # G6, G8
        await cas_linted_clean(found, CAS)


async def cas_linted_clean(found: Shipped, names: tuple[str, ...]) -> None:
    """pkilint and zlint looked at every CA and OCSP signer before they were signed (G6, D47), zlint again after."""
    stored = await found.made.fetch("select document, linter, refused from lint_result where order_id is null")
    assert len(stored) == 2 * 2 * len(names)
    count = Counter((document == "ocsp-signer", linter, refused) for document, linter, refused in stored)
    assert count == {(ocsp, linter, False): len(names) for ocsp in (True, False) for linter in ("pkilint", "zlint")}
    (zlint,) = found.made.deployment.config.lint.external
    for name in names:
        der = found.made.certificate(name).public_bytes(Encoding.DER)
        said = at_or_above(await adapters.findings(zlint, der), "warning")
        assert {each.code for each in said} <= {"e_commonname_mailbox_validated"}, name  # no mailbox, but a CA


def mailbox(leaf: x509.Certificate) -> str:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.RFC822Name)[0]


def urls(leaf: x509.Certificate, issuer: str, *, short: bool) -> None:
    """G45, G5: OCSP, CRL and CA certificate of the very issuer; its one CRL is the full one."""
    access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    ocsp = [] if short else [f"http://ocsp.trustcor.ca/{issuer}"]
    assert [each.access_location.value for each in access] == [*ocsp, f"http://crl.trustcor.ca/{issuer}.cer"]
    points = [each for each in leaf.extensions if isinstance(each.value, x509.CRLDistributionPoints)]
    found = [point.full_name[0].value for each in points for point in each.value]
    assert found == ([] if short else [f"http://crl.trustcor.ca/{issuer}.crl"])


TUNISIAN = dict(TRUSTCOR) | {
    "tls-ov": (("services", "root"), make_csr(["www.example.tn"], subject=ORGANIZATION), "2.23.140.1.2.2"),
    "mail-organization": (("qualified", "root"), mail_csr("info@a.tn", subject=REGISTERED), "2.23.140.1.5.2.3"),
    "mail-sponsor": (("qualified", "root"), mail_csr("amel@a.tn", subject=PERSON), "2.23.140.1.5.3.3"),
}
FRENCH = ((NameOID.COUNTRY_NAME, "FR"), *REGISTERED[1:3], (NameOID.ORGANIZATION_IDENTIFIER, "NTRFR-1"))
REFUSED = {
    "a name outside .tn": ("tls-ov", make_csr(["www.example.org"], subject=ORGANIZATION), "name.outside_profile"),
    "a French organization": ("tls-ov", make_csr(["www.a.tn"], subject=FRENCH[:3]), "subject.outside_profile"),
    "no organization": ("tls-ov", make_csr(["www.a.tn"]), "subject.organization_missing"),
    "a mailbox elsewhere": ("mail-organization", mail_csr("a@a.fr", subject=REGISTERED), "name.outside_profile"),
    "a French person": ("mail-sponsor", mail_csr("a@a.tn", subject=(*FRENCH, *PERSON[4:])), "subject.outside_profile"),
    "TLS from the qualified CA": ("mail-organization", make_csr(["www.a.tn"], subject=REGISTERED), "san.type"),
    "a DV profile": ("tls-dv", make_csr(["www.a.tn"]), "profile.unknown"),
}


async def test_tuntrust_stays_in_tunisia(database: Any, clock: FakeClock, tmp_path: Path) -> None:
    """G18: OV below .tn for Tunisian organizations; S/MIME from a CA that technically cannot issue TLS."""
    async with shipped("tuntrust", database, clock, tmp_path) as found:
        for profile in ("tls-ov", "mail-organization", "mail-sponsor"):
            above, request, policy = TUNISIAN[profile]
            leaf, chain = await found.order(profile, request), chain_of(found, *above)
            assert policies_of(leaf) == [policy]
            purpose = PURPOSES[profile == "tls-ov"]
            assert openssl_says(leaf, chain, purpose, tmp_path) == "leaf.pem: OK"
            assert "Chain verification output: Verified" in gnutls_says(leaf, chain, tmp_path)
            if profile == "tls-ov":  # D16 wants a directory name, which pyca's verifier does not know and so refuses
                with pytest.raises(VerificationError, match="unsupported directoryName constraint"):
                    pyca_verifies(leaf, chain, "www.example.tn", int(clock.now()))
        before = await found.made.fetch("select count(*) from certificate")
        for case, (profile, request, code) in REFUSED.items():
            with pytest.raises(QuashError) as error:
                await found.order(profile, request)
            assert error.value.code == code, case
        assert await found.made.fetch("select count(*) from certificate") == before
        constraints(found)
        assert {each.name for each in found.made.deployment.config.issuers} == {"root", "services", "qualified"}
        await cas_linted_clean(found, ("root", "services", "qualified"))


def constraints(found: Shipped) -> None:
    """The services CA's certificate says `tn` and TN, and no address; the qualified CA's purpose is not TLS."""
    services, qualified = found.made.certificate("services"), found.made.certificate("qualified")
    said = services.extensions.get_extension_for_class(x509.NameConstraints)
    assert said.critical
    tunisia = x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "TN")]))
    assert said.value.permitted_subtrees == [x509.DNSName("tn"), tunisia]
    assert [str(each.value) for each in said.value.excluded_subtrees or []] == ["0.0.0.0/0", "::/0"]
    said = qualified.extensions.get_extension_for_class(x509.NameConstraints)
    assert said.value.permitted_subtrees == [x509.RFC822Name._init_without_validation(".tn"), tunisia]
    purposes = qualified.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION]
