"""An officer's switch on the running system: another key signs, for strangers that ask, and nothing else changes."""

from __future__ import annotations

import base64
import time
import urllib.parse
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from loadtest.system import System, openssl_ocsp

ISSUER = "tls-ov"
SEEN_WITHIN = 60.0
ORGANIZATION = "/C=TN/L=Tunis/O=Example Organization"


def signer_of(system: System, certificate: Path) -> int:
    """The serial of the OCSP signer whose answer a relying party gets."""
    leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    issuer = x509.load_pem_x509_certificate((system.state / "certs" / f"{ISSUER}.pem").read_bytes())
    request = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA256()).build()
    path = urllib.parse.quote(base64.b64encode(request.public_bytes(Encoding.DER)).decode(), safe="")
    with urllib.request.urlopen(f"{system.ocsp}/{ISSUER}/{path}", timeout=10) as answer:
        (signer,) = ocsp.load_der_ocsp_response(answer.read()).certificates
    return signer.serial_number


def test_a_switch(system: System) -> None:
    """Operators may not; after an officer's order the answer comes from the new signer, which the list shows active."""
    certificate = system.issue("switched", profile=ISSUER, subject=ORGANIZATION)
    before = signer_of(system, certificate)
    assert system.quash("signer switch", "--issuer", ISSUER, "--as", "operator").status != 0
    ordered = system.quash("signer switch", "--issuer", ISSUER, "--json")
    assert ordered.status == 0, ordered.err
    assert system.quash("job watch", ordered.json["job"]).status == 0, "followed until every answer is by the new one"
    done = system.quash("job show", ordered.json["job"], "--json").json
    assert (done["state"], done["issuer"], done["done"]) == ("done", ISSUER, done["buckets"])
    deadline = time.monotonic() + SEEN_WITHIN
    while signer_of(system, certificate) == before:
        assert time.monotonic() < deadline, system.quash("signer list").out
        time.sleep(0.2)
    listed = [each for each in system.quash("signer list", "--json").lines if each["issuer"] == ISSUER]
    assert [each["state"] for each in listed] == ["retiring", "active"]
    assert int(listed[-1]["serial"], 16) == signer_of(system, certificate)
    assert openssl_ocsp(system, ISSUER, certificate) == "good"
    assert (system.state / "keys" / "ocsp" / f"{ISSUER}-r1.pem").stat().st_mode & 0o077 == 0
