"""What a relying party sees, through programs and libraries that are not ours: openssl, ocsptool, pyca, pkilint."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from loadtest.system import openssl

HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}


def load(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file."""
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def ocsp_request(certificate: x509.Certificate, issuer: x509.Certificate, digest: str) -> bytes:
    """pyca's request for one certificate."""
    built = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, HASHES[digest]).build()
    return built.public_bytes(Encoding.DER)


def get(url: str) -> tuple[int, dict[str, str], bytes]:
    """A plain GET."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, dict(answer.headers), answer.read()


def ocsp_by_get(url: str, certificate: Path, issuer: Path, digest: str) -> ocsp.OCSPResponse:
    """The answer to a GET (A31), as pyca reads it, for the CertID asked for."""
    asked = ocsp_request(load(certificate), load(issuer), digest)
    path = urllib.parse.quote(base64.b64encode(asked).decode(), safe="")
    status, headers, body = get(f"{url}/{path}")
    assert status == 200
    assert headers["Content-Type"] == "application/ocsp-response"
    response = ocsp.load_der_ocsp_response(body)
    if response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
        assert response.serial_number == load(certificate).serial_number
        assert response.hash_algorithm.name == digest
        assert headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'
    return response


def status_by_get(url: str, certificate: Path, issuer: Path, digest: str) -> str:
    """good, revoked, or the name of the error."""
    response = ocsp_by_get(url, certificate, issuer, digest)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return response.response_status.name.lower()
    return response.certificate_status.name.lower()


def status_by_ocsptool(url: str, certificate: Path, issuer: Path) -> str:
    """What GnuTLS says after it checked the answer."""
    done = subprocess.run(
        ["ocsptool", f"--ask={url}", "--load-cert", certificate, "--load-issuer", issuer, "--load-trust", issuer],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "Verifying OCSP Response: Success" in said, said
    found = [line for line in said.splitlines() if "Certificate Status:" in line]
    assert found, said
    return found[0].rpartition(" ")[2]


def crl_url(certificate: Path) -> str:
    """The one URL of the certificate's CRLDP (B17)."""
    points = load(certificate).extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert len(points) == 1
    names = points[0].full_name
    assert names is not None
    assert len(names) == 1
    return str(names[0].value)


def revoked_by_crl(certificate: Path, chain: Path, folder: Path, *, url: str | None = None) -> bool:
    """Whether openssl finds the certificate revoked in the CRL that its own CRLDP names; any other failure is one."""
    der = folder / "fetched.crl"
    der.write_bytes(get(url or crl_url(certificate))[2])
    said = openssl("verify", "-crl_check", "-CAfile", str(chain), "-CRLfile", str(der), str(certificate), status=None)
    if "certificate revoked" in said:
        return True
    assert f"{certificate}: OK" in said, said
    return False


def pkilint(linter: str, der: bytes, folder: Path, *arguments: str) -> str:
    """What a pkilint program says above notice; empty: nothing."""
    path = folder / "to-lint.der"
    path.write_bytes(der)
    command = [
        sys.executable,
        "-m",
        f"pkilint.bin.{linter}",
        "lint",
        *arguments,
        "-s",
        "WARNING",
        "--document-format",
        "DER",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def lint_crl(der: bytes, folder: Path, *, of_cas: bool = False) -> str:
    """Findings above notice on a CRL, by the Baseline Requirements."""
    return pkilint("lint_crl", der, folder, "-t", "ARL" if of_cas else "CRL", "-p", "BR")


def lint_ocsp(der: bytes, folder: Path) -> str:
    """Findings above notice on an OCSP response."""
    return pkilint("lint_ocsp_response", der, folder)
