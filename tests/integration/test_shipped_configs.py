"""The two hierarchies beside the demo as whole systems: validate, issue, sign a CA of others, revoke, refuse."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from loadtest.system import System, openssl, openssl_ocsp
from tests.support.postgres import folder_for_servers
from tests.support.strangers import load, ocsp_by_get

pytestmark = pytest.mark.long


def running(config: str) -> Iterator[System]:
    """A configuration as it ships, with local logs, and its public responder on loopback."""
    with folder_for_servers() as folder:
        demonstration = ("ct_log.enabled=true", "ct_log.demonstration=true", "names.max_age_days=366")
        system = System(folder, *demonstration, config=config)
        system.arguments += ["--set", f'issuance.visible_at=["{system.ocsp}"]']
        with system:
            yield system


@pytest.fixture(scope="module")
def trustcor() -> Iterator[System]:
    yield from running("config/trustcor.toml")


@pytest.fixture(scope="module")
def tuntrust() -> Iterator[System]:
    yield from running("config/tuntrust.toml")


def request(system: System, name: str, subject: str, names: str | None) -> str:
    """The path of a request by openssl; `names` as openssl writes a subjectAltName."""
    csr, key = system.folder / f"{name}.csr", system.folder / f"{name}.key"
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key))
    san = ("-addext", f"subjectAltName={names}") if names else ()
    openssl("req", "-new", "-utf8", *new, "-subj", subject, *san, "-out", str(csr))
    return str(csr)


def issued(system: System, profile: str, csr: str) -> Path:
    out = Path(csr).with_suffix(".pem")
    done = system.quash("issue", "--profile", profile, "--csr", csr, "--out", str(out))
    assert done.status == 0, done.err
    return out


def refused(system: System, profile: str, csr: str) -> str:
    """The code of the refusal."""
    done = system.quash("issue", "--profile", profile, "--csr", csr)
    assert done.status in (2, 3), done
    return done.err.split()[1].rstrip(":")


def validated(system: System, kind: str, value: str, method: str) -> None:
    who = ("--for", "operator:operator", "--method", method, "--as", "officer")
    done = system.quash("validation add", kind, value, *who)
    assert done.status == 0, done.err


ORGANIZATION = "/C=TN/L=Tunis/O=Essai"


def test_trustcor(trustcor: System) -> None:
    """Nothing without validation; then TLS with SCTs and S/MIME; an external CA is signed, answered for and revoked."""
    system = trustcor
    csr = request(system, "www", "/", "DNS:www.example.org")
    assert refused(system, "tls-dv", csr) == "validation.required"
    validated(system, "dns", "example.org", "3.2.2.4.7")
    tls = issued(system, "tls-dv", csr)
    leaf = x509.load_pem_x509_certificates(tls.read_bytes())[0]
    scts = leaf.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps).value
    assert len(scts) >= 3  # E1: more than 180 days
    mail = issued(system, "mail-dv", request(system, "mail", "/", "email:amel@example.org"))
    assert refused(system, "mail-organization", request(system, "org", ORGANIZATION, "email:a@example.org")).startswith(
        "subject."
    )
    for pem, issuer in ((tls, "ca1-tls"), (mail, "ca1-mail")):
        assert openssl_ocsp(system, issuer, pem, url=f"{system.ocsp}/{issuer}") == "good"
        answered_by_the_rules(system, issuer, pem)

    outside = request(system, "external", "/C=DE/O=Example GmbH/CN=Example TLS CA 1", None)
    name, made = ("--permitted-dns", "example.org"), system.folder / "external.pem"
    bound = ("--policy", "ov", "--permitted-directory", "C=DE", "--out", str(made))
    sign = ("--csr", outside, *bound, "--by", "Ann Smith", "--by", "Bob Jones")
    done = system.quash("ca sign-sub-ca", "--issuer", "ca1-tls", *sign, *name)
    assert (done.status, "external.parent" in done.err) == (3, True)
    done = system.quash("ca sign-sub-ca", "--issuer", "eca1-tls", *sign)
    assert (done.status, "(D16, D17)" in done.err) == (3, True)
    done = system.quash("ca sign-sub-ca", "--issuer", "eca1-tls", *sign, *name)
    assert done.status == 0, done.err
    assert len(x509.load_pem_x509_certificates(made.read_bytes())) == 3
    strict = ("verify", "-x509_strict", "-CAfile", str(system.state / "certs" / "root.pem"))
    openssl(*strict, "-untrusted", str(made), str(made))

    # Nobody revokes a CA alone. Not --wait: that asks at the public URLs, which nobody here resolves.
    alone = system.quash("revoke", "--cert", str(made), "--reason", "cessationOfOperation")
    assert (alone.status, "revocation.two_officers" in alone.err) == (3, True)
    serial = x509.load_pem_x509_certificate(made.read_bytes()).serial_number
    (system.folder / "gone.txt").write_text(f"{serial:X}\n")
    listed_in = ("--file", str(system.folder / "gone.txt"), "--reason", "cessationOfOperation")
    job = system.quash("revoke --preview --json --as officer", *listed_in).json
    assert (job["certificates"], job["needs_approval"]) == (1, True)
    proposal = system.quash("job start --json --as officer", str(job["id"])).json
    done = system.quash("approve", str(proposal["id"]), "--sha256", proposal["sha256"], "--as", "officer2")
    assert done.status == 0, done.err
    deadline = time.monotonic() + 30
    while not (
        listed(system, "eca1-tls", serial)
        and openssl_ocsp(system, "eca1-tls", made, url=f"{system.ocsp}/eca1-tls") == "revoked"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def listed(system: System, issuer: str, serial: int) -> bool:
    with urllib.request.urlopen(f"{system.crl}/{issuer}.crl", timeout=5) as answer:
        return x509.load_der_x509_crl(answer.read()).get_revoked_certificate_by_serial_number(serial) is not None


def answered_by_the_rules(system: System, issuer: str, pem: Path) -> None:
    """S/MIME is answered for as TLS is (A44): by GET, for 8 hours to 10 days, by a delegated signer with nocheck."""
    certificate = system.state / "certs" / f"{issuer}.pem"
    answer = ocsp_by_get(f"{system.ocsp}/{issuer}", pem, certificate, "sha256")
    (signer,) = answer.certificates
    usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert signer.extensions.get_extension_for_class(x509.OCSPNoCheck)
    signer.verify_directly_issued_by(load(certificate))
    assert answer.next_update_utc is not None
    assert timedelta(hours=8) <= answer.next_update_utc - answer.this_update_utc <= timedelta(days=10)


def test_tuntrust(tuntrust: System) -> None:
    """G18: OV below .tn for Tunisian organizations; no TLS from the qualified CA, nothing for anybody else."""
    system = tuntrust
    validated(system, "dns", "essai.tn", "3.2.2.4.7")
    validated(system, "dns", "essai.fr", "3.2.2.4.7")
    csr = request(system, "www", ORGANIZATION, "DNS:www.essai.tn")
    assert refused(system, "tls-ov", csr) == "validation.required"
    validated(system, "organization", "TN/Essai", "3.2.2.1")
    assert refused(system, "tls-ov", csr) == "validation.required"  # where it is, nobody said
    validated(system, "organization", "TN/Essai/L=Tunis", "3.2.2.1")
    pem = issued(system, "tls-ov", csr)
    assert openssl_ocsp(system, "services", pem, url=f"{system.ocsp}/services") == "good"
    certs = system.state / "certs"
    chain = ("verify", "-x509_strict", "-CAfile", str(certs / "root.pem"), "-untrusted", str(certs / "services.pem"))
    openssl(*chain, "-purpose", "sslserver", str(pem))
    register = "/C=TN/O=Essai/organizationIdentifier=NTRTN-B2412342"
    validated(system, "organization", "TN/Essai/organizationIdentifier=NTRTN-B2412342", "3.2.3")
    issued(system, "mail-organization", request(system, "mail", register, "email:info@essai.tn"))
    person = request(system, "person", f"{register}/GN=Amel/SN=Ben Salah", "email:amel@essai.tn")
    assert refused(system, "mail-sponsor", person) == "validation.required"
    validated(system, "person", "TN/Essai/GN=Amel/SN=Ben Salah", "3.2.4")
    issued(system, "mail-sponsor", person)
    elsewhere = {
        ("tls-ov", ORGANIZATION, "DNS:www.essai.fr"): "name.outside_profile",
        ("tls-ov", "/C=FR/L=Paris/O=Essai", "DNS:www.essai.tn"): "subject.outside_profile",
        ("mail-organization", register, "DNS:www.essai.tn"): "san.type",
        ("mail-organization", register, "email:info@essai.fr"): "name.outside_profile",
        ("tls-dv", "/", "DNS:www.essai.tn"): "profile.unknown",
    }
    for number, ((profile, subject, names), code) in enumerate(elsewhere.items()):
        assert refused(system, profile, request(system, f"no{number}", subject, names)) == code
