"""Real processes, real sockets, strangers that ask: issue, compromise one of three, and see all three revoked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from loadtest.system import System, openssl_ocsp
from tests.support import strangers

ORGANIZATION = "/C=TN/L=Tunis/O=Example Organization"


def test_three_certificates_with_one_key(system: System, tmp_path: Path) -> None:
    """keyCompromise of one certificate revokes its siblings of both issuers, for OCSP and CRL clients alike."""
    first = system.issue("first")
    key = system.folder / "first.key"
    second = system.issue("second", key=key)
    third = system.issue("third", profile="tls-ov", key=key, subject=ORGANIZATION)
    other = system.issue("other")
    certificates = {first: "tls-dv", second: "tls-dv", third: "tls-ov"}
    for certificate, issuer in certificates.items():
        assert openssl_ocsp(system, issuer, certificate) == "good"
        assert not strangers.revoked_by_crl(certificate, _chain(system), tmp_path)

    revoked = system.quash("revoke --wait --json", "--cert", str(first), "--reason", "keyCompromise")

    assert revoked.status == 0, revoked.err
    assert revoked.json["changed"] is True
    assert {s["issuer"] for s in revoked.json["siblings"]} == {"tls-dv", "tls-ov"}
    assert len(revoked.json["siblings"]) == 2
    assert revoked.json["ocsp_visible_ms"] > 0
    assert revoked.json["crl_published_ms"] > 0
    for certificate, issuer in certificates.items():
        _assert_status(system, certificate, issuer, "revoked")
        assert strangers.revoked_by_crl(certificate, _chain(system), tmp_path)
    _assert_status(system, other, "tls-dv", "good")
    assert not strangers.revoked_by_crl(other, _chain(system), tmp_path)

    again = system.quash("issue", "--profile", "tls-dv", "--csr", str(system.folder / "first.csr"))
    assert again.status == 3
    assert again.err.startswith("error: key.blocked:")


def _assert_status(system: System, certificate: Path, issuer: str, expected: str) -> None:
    """POST by openssl and ocsptool, GET by pyca, both CertID hashes, under the issuer's path and at the root."""
    issuer_pem = system.state / "certs" / f"{issuer}.pem"
    for digest in ("sha1", "sha256"):
        for url in (f"{system.ocsp}/{issuer}", system.ocsp):
            assert openssl_ocsp(system, issuer, certificate, digest=digest, url=url) == expected
            assert strangers.status_by_get(url, certificate, issuer_pem, digest) == expected
    single = system.folder / "single.pem"
    shutil.copyfile(certificate, single)
    assert strangers.status_by_ocsptool(f"{system.ocsp}/{issuer}", single, issuer_pem) == expected


def _chain(system: System) -> Path:
    return system.state / "certs" / "chain.pem"


@pytest.mark.parametrize("issuer", ["tls-dv", "tls-ov"])
def test_an_issuer_answers_only_under_its_own_path(system: System, issuer: str) -> None:
    """A CertID of one of our issuers under another one's path is unauthorized."""
    other = {"tls-dv": "tls-ov", "tls-ov": "tls-dv"}[issuer]
    certificate = system.issue(f"path-{issuer}", profile=issuer, subject=ORGANIZATION if issuer == "tls-ov" else "/")
    issuer_pem = system.state / "certs" / f"{issuer}.pem"
    assert strangers.status_by_get(f"{system.ocsp}/{issuer}", certificate, issuer_pem, "sha256") == "good"
    assert strangers.status_by_get(f"{system.ocsp}/{other}", certificate, issuer_pem, "sha256") == "unauthorized"


def test_the_hierarchy_itself_is_answered_and_listed(system: System) -> None:
    """The sub-CA certificates have answers of the root's own OCSP signer (A6), and the root's CRL is served."""
    certs = system.state / "certs"
    for name in ("tls-dv", "tls-ov"):
        for digest in ("sha1", "sha256"):
            assert openssl_ocsp(system, "root", certs / f"{name}.pem", digest=digest) == "good"
    assert strangers.get(f"{system.crl}/root.crl")[0] == 200
    assert strangers.get(f"{system.crl}/root.cer")[0] == 200


def test_database_ocsp_and_crls_agree(system: System) -> None:
    """`quash crl verify --whole`: every revocation is on its CRL, and both OCSP answers of all certificates agree."""
    certificate = system.issue("agreeing", profile="tls-ov", subject=ORGANIZATION)
    assert system.quash("revoke --wait", "--cert", str(certificate), "--reason", "superseded").status == 0
    said = system.quash("crl verify --whole --json --issuer tls-ov")
    assert said.status == 0, said.out + said.err
    assert all(line["ok"] for line in said.lines)
    assert said.lines[-1]["revoked"] >= 1
    assert said.lines[-1]["asked"] >= 2


MAY_BE_ABSENT = {  # of what `quash doctor` looks at; on the demo all else is there
    "certlint": "a program of others, and the demo configures no external linter (D48)",
    "cablint": "likewise",
    "x509lint": "likewise",
    "pkimetal": "likewise",
    "zlint": "audits alone, and only where Debian's is installed (F12)",
    "names": "the lists that come with Quash grow old, which matters where names are validated (G48)",
    "blocklists": "checks.blocklists is empty: Debian's weak keys pass, in a demonstration (D42)",
}


def test_the_doctor_is_content(system: System) -> None:
    """`quash doctor` on the demo that runs: status 0, nothing bad, nothing absent but what a demo can do without."""
    said = system.quash("doctor --json")
    assert said.status == 0, said.out + said.err
    states = {each["what"]: each["state"] for each in said.lines}
    assert {what: state for what, state in states.items() if what not in MAY_BE_ABSENT} == {
        "pkilint": "ok",
        "badkeys": "ok",
        "publicsuffixlist": "ok",
        "ct logs": "ok",
    }
    assert {states[what] for what in MAY_BE_ABSENT} <= {"ok", "absent"}


def test_linters_find_nothing(system: System, tmp_path: Path) -> None:
    """pkilint reports nothing above notice on any CRL and on good and revoked answers of both issuers."""
    for issuer, subject in (("tls-dv", "/"), ("tls-ov", ORGANIZATION)):
        issuer_pem = system.state / "certs" / f"{issuer}.pem"
        certificate = system.issue(f"lint-{issuer}", profile=issuer, subject=subject)
        _assert_answers_lint_clean(system, certificate, issuer_pem, tmp_path)
        assert system.quash("revoke --wait", "--cert", str(certificate), "--reason", "superseded").status == 0
        _assert_answers_lint_clean(system, certificate, issuer_pem, tmp_path)
    ours = ("root", "tls-dv", "tls-ov")  # what other tests import may have serials that no linter likes
    for crl in (crl for crl in system.quash("crl list --json").lines if crl["issuer"] in ours):
        assert strangers.lint_crl(strangers.get(crl["url"])[2], tmp_path, of_cas=crl["issuer"] == "root") == ""


def _assert_answers_lint_clean(system: System, certificate: Path, issuer_pem: Path, folder: Path) -> None:
    for digest in ("sha1", "sha256"):
        answer = strangers.ocsp_by_get(f"{system.ocsp}/{issuer_pem.stem}", certificate, issuer_pem, digest)
        assert strangers.lint_ocsp(answer.public_bytes(Encoding.DER), folder) == ""
