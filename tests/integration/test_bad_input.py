"""What a person does wrong at the command line, and a stranger at the public port: a code each, and nothing changes."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.x509 import ocsp

from loadtest.system import System, make_csr, openssl
from tests.support import strangers


def _csr(
    folder: Path, *names: str, subject: str = "/", key: tuple[str, ...] = ("rsa:2048",), more: tuple[str, ...] = ()
) -> Path:
    path = folder / "bad.csr"
    san = ("-addext", "subjectAltName=" + ",".join(names)) if names else ()
    new = ("req", "-new", "-newkey", *key, "-nodes", "-keyout", str(folder / "bad.key"), "-subj", subject)
    openssl(*new, *san, *more, "-out", str(path))
    return path


def _broken_signature(folder: Path) -> Path:
    path = _csr(folder, "DNS:broken.example.org")
    der = bytearray(base64.b64decode("".join(path.read_text().splitlines()[1:-1])))
    der[-1] ^= 1
    path.write_text(
        f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE REQUEST-----\n"
    )
    return path


def _text(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "bad.csr"
        path.write_text(text)
        return path

    return write


BAD_REQUESTS: dict[str, tuple[Callable[[Path], Path], str, str, int]] = {
    "signature": (_broken_signature, "tls-dv", "csr.bad_signature", 2),
    "rsa-1024": (lambda f: _csr(f, "DNS:a.example.org", key=("rsa:1024",)), "tls-dv", "key.too_small", 3),
    "sha-1": (lambda f: _csr(f, "DNS:a.example.org", more=("-sha1",)), "tls-dv", "csr.weak_digest", 3),
    "underscore": (lambda f: _csr(f, "DNS:a_b.example.org"), "tls-dv", "name.underscore", 3),
    "wildcard": (lambda f: _csr(f, "DNS:*.example.org"), "tls-dv", "name.wildcard", 3),
    "ip-address": (lambda f: _csr(f, "IP:192.0.2.1"), "tls-dv", "name.ip_address", 3),
    "no-names": (_csr, "tls-dv", "san.missing", 2),
    "ov-without-organization": (lambda f: _csr(f, "DNS:a.example.org"), "tls-ov", "subject.organization_missing", 2),
    "profile": (lambda f: _csr(f, "DNS:a.example.org"), "no-such-profile", "profile.unknown", 2),
    "garbage": (_text("garbage"), "tls-dv", "csr.malformed", 2),
    "oversized": (_text("x" * 3_000_000), "tls-dv", "request.too_large", 2),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_is_refused_with_its_code(system: System, tmp_path: Path, case: str) -> None:
    """`quash issue` says what is wrong, exits 2 or 3, and writes no certificate."""
    make, profile, code, status = BAD_REQUESTS[case]
    out = tmp_path / "out.pem"
    refused = system.quash("issue", "--profile", profile, "--csr", str(make(tmp_path)), "--out", str(out))
    assert refused.err.startswith(f"error: {code}:"), refused.err
    assert refused.status == status
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (["abcdef", "--reason", "superseded"], "certificate.unknown", 2),
        (["{serial}", "--issuer", "no-such-issuer"], "issuer.unknown", 2),
        (["{serial}", "--reason", "becauseISaySo"], "revocation.reason_unknown", 2),
        (["{serial}", "--reason", "certificateHold"], "revocation.reason_not_allowed", 3),
        (["{serial}", "--as", "viewer"], "operator.role", 3),
        (["{serial}", "--as", "auditor"], "operator.role", 3),
        (["not-hex"], "serial.malformed", 2),
        ([], "certificate.unnamed", 2),
    ],
)
def test_a_bad_revocation_changes_nothing(system: System, arguments: list[str], code: str, status: int) -> None:
    """`quash revoke` says what is wrong, and the certificate is as good as before."""
    certificate = system.issue("stays-good")
    serial = f"{strangers.load(certificate).serial_number:X}"
    refused = system.quash("revoke", *(argument.format(serial=serial) for argument in arguments))
    assert refused.err.startswith(f"error: {code}:"), refused.err
    assert refused.status == status
    assert system.quash("status --json", "--cert", str(certificate)).json["status"] == "good"


def test_only_a_known_client_certificate_opens_the_apis(system: System, tmp_path: Path) -> None:
    """Without a certificate, with a foreign one, or with a certificate of our own public CA, there is no way in."""
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=foreign"),
        *("-keyout", str(tmp_path / "foreign.key"), "-out", str(tmp_path / "foreign.pem")),
    )
    leaf = system.issue("not-an-operator")
    for pair in (None, (tmp_path / "foreign.pem", tmp_path / "foreign.key"), (leaf, leaf.with_suffix(".key"))):
        for api in ("issuer", "admin"):
            context = ssl.create_default_context(cafile=str(system.state / "operators" / "ca.pem"))
            if pair is not None:
                context.load_cert_chain(*pair)
            with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
                urllib.request.urlopen(f"https://127.0.0.1:{system.ports[api]}/v1/crls", context=context, timeout=10)


def _post(url: str, body: bytes) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/ocsp-request"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("body", [b"", b"garbage", b"\x30\x03\x02\x01", b"\x30\x80" * 100])
def test_malformed_posts_are_malformed(system: System, body: bytes) -> None:
    """OCSP requests that are none get malformedRequest in an HTTP 200 (A11, A38)."""
    status, answer = _post(system.ocsp, body)
    assert status == 200
    assert ocsp.load_der_ocsp_response(answer).response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


@pytest.mark.parametrize("path", ["!!!!", "MEUwQ", "MEUwQzBBMD8wPTAJBgUrDgMCGgUABBS", "tls-dv/%00%ff"])
def test_malformed_gets_are_malformed(system: System, path: str) -> None:
    """The same for what is no base64, or base64 of no request."""
    with urllib.request.urlopen(f"{system.ocsp}/{path}", timeout=10) as answer:
        assert answer.status == 200
        response = ocsp.load_der_ocsp_response(answer.read())
    assert response.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


def test_megabytes_are_turned_away(system: System) -> None:
    """A body of several megabytes, and a request line of one, end early and harm nobody."""
    try:
        status, _ = _post(system.ocsp, bytes(5_000_000))
        assert status == 413
    except (urllib.error.URLError, ConnectionError):
        pass  # it may close while we are still sending
    with socket.create_connection(("127.0.0.1", system.ports["responder"]), timeout=10) as sock:
        try:
            sock.sendall(b"GET /" + b"M" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = sock.recv(1000)
        except ConnectionError:
            answer = b""
    assert answer == b"" or answer.split()[1] in (b"400", b"414", b"431")
    assert system.ready()


def test_unissued_serials_are_never_good(system: System, tmp_path: Path) -> None:
    """A certificate that only looks like ours has no good answer (A9)."""
    key, forged = tmp_path / "forged.key", tmp_path / "forged.pem"
    make_csr(tmp_path / "forged.csr", key, ["forged.example.org"])
    issuer = system.state / "certs" / "tls-dv.pem"
    name = (
        openssl("x509", "-in", str(issuer), "-noout", "-subject", "-nameopt", "compat").strip().removeprefix("subject=")
    )
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", name),
        *("-keyout", str(tmp_path / "ca.key"), "-out", str(tmp_path / "ca.pem")),
    )
    openssl(
        *("x509", "-req", "-in", str(tmp_path / "forged.csr"), "-CA", str(tmp_path / "ca.pem")),
        *("-CAkey", str(tmp_path / "ca.key"), "-set_serial", "0x1234", "-out", str(forged)),
    )
    for digest in ("sha1", "sha256"):
        assert strangers.status_by_get(system.ocsp, forged, issuer, digest) == "unauthorized"
    done = subprocess.run(
        ["openssl", "ocsp", "-issuer", str(issuer), "-cert", str(forged), "-url", system.ocsp],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "unauthorized" in done.stdout + done.stderr
