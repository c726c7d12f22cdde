"""Who `make bench-ocsp` compares, each with the same certificates and, but for who signs, the same answers."""

from __future__ import annotations

import base64
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from loadtest.pki import BenchIssuer, fill
from loadtest.servers import VERIFIED, Contestant, fetch, running
from loadtest.system import REPOSITORY
from quash.pki.certid import CertIdHash
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_request import build_request
from quash.runtime.state import State

_NGINX = """
daemon off; worker_processes 1; worker_rlimit_nofile %(limit)d; %(user)s
pid %(folder)s/nginx.pid; error_log %(folder)s/nginx.log;
events { worker_connections 512; }
http {
  access_log off; default_type application/ocsp-response; sendfile off; tcp_nodelay on; keepalive_requests 1000;
  open_file_cache max=%(files)d inactive=1h; open_file_cache_valid 1h;
  client_body_temp_path %(folder)s/t1; proxy_temp_path %(folder)s/t2; fastcgi_temp_path %(folder)s/t3;
  uwsgi_temp_path %(folder)s/t4; scgi_temp_path %(folder)s/t5;
  server { listen 127.0.0.1:%(port)d; root %(folder)s/files; expires 30m; }
}
"""


def contestants(folder: Path, count: int) -> list[Contestant]:
    """All of them, on a new state with `count` certificates."""
    state = State(folder / "var")
    issuer = BenchIssuer(int(time.time()))
    serials = fill(state.cache, issuer, count)
    hashes = (CertIdHash.SHA1, CertIdHash.SHA256)
    asked = [build_request(issuer.cert_id(serial, random.choice(hashes))) for serial in serials]
    paths = ["/tls-dv/" + quote(base64.b64encode(der), safe="") for der in asked]
    common = ["--config", str(REPOSITORY / "config" / "demo.toml"), "--state", str(state.root)]
    common += ["--set", "responder.fresh_seconds=7200"]  # nobody writes heartbeats

    def worker(*more: str) -> Callable[[int], Sequence[str]]:
        command = [sys.executable, "-m", "quash.cli.main", "serve", "responder", *common]
        return lambda port: [*command, *(part for s in (*more, f"responder.port={port}") for part in ("--set", s))]

    fast = Contestant("fast", worker(), paths, [])
    with running(fast) as server:
        answers = [fetch(server.port, path) for path in paths]
    fast.bodies = [body for _, body in answers]
    for body, der in list(zip(fast.bodies, asked, strict=True))[:VERIFIED]:
        parsed = verify_response(body, issuer.row.certificate)
        assert parsed.cert_id is not None
        assert build_request(parsed.cert_id) == der
    full = Contestant("full", worker("responder.fast_path=false"), paths, fast.bodies)
    (folder / "constant").write_bytes(answers[0][0] + fast.bodies[0])
    constant = Contestant(
        "constant",
        lambda port: [sys.executable, "-m", "loadtest.constant", str(port), str(folder / "constant")],
        paths,
        [fast.bodies[0]] * count,
    )
    signing = openssl(folder, issuer, serials, asked[0])
    return [fast, nginx(folder, asked, fast.bodies), constant, full, signing, *cfssl(folder, asked, fast.bodies)]


def nginx(folder: Path, asked: Sequence[bytes], bodies: list[bytes]) -> Contestant:
    """Each answer a file, named so that requests are as long as the others."""
    files = len(asked) * 3 // 2 + 1024  # above its limit of open files it collapses, and we would look well
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < files:
        raise RuntimeError(f"nginx must be able to keep {len(asked)} files open: raise `ulimit -n` to {files}")
    names = ["tls-dv/" + base64.urlsafe_b64encode(der).decode().rstrip("=") for der in asked]
    (folder / "files" / "tls-dv").mkdir(parents=True)
    for name, body in zip(names, bodies, strict=True):
        (folder / "files" / name).write_bytes(body)

    def command(port: int) -> Sequence[str]:
        settings = {"folder": folder, "port": port, "files": len(names) + 100, "limit": files}
        settings["user"] = "user root;" if os.geteuid() == 0 else ""  # else its worker could not read our folder
        (folder / "nginx.conf").write_text(_NGINX % settings)
        return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "nginx.log")]

    return Contestant("nginx", command, [f"/{name}" for name in names], bodies)


def openssl(folder: Path, issuer: BenchIssuer, serials: Sequence[bytes], asked: bytes) -> Contestant:
    """With an index of all certificates, each of them good."""
    for name, der in (("ca", issuer.row.certificate), ("signer", issuer.signer_row.certificate)):
        (folder / f"{name}.pem").write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    (folder / "signer.key").write_bytes(issuer.signer_key())
    rows = (f"V\t491231235959Z\t\t{serial.hex().upper()}\tunknown\t/CN={serial.hex()}\n" for serial in serials)
    (folder / "index.txt").write_text("".join(rows))
    (folder / "asked.der").write_bytes(asked)
    files = {"index": "index.txt", "CA": "ca.pem", "rsigner": "signer.pem", "rkey": "signer.key"}
    options = " ".join(f"-{option} {folder / name}" for option, name in files.items())

    def command(port: int) -> Sequence[str]:
        serve = f"exec openssl ocsp -port {port} {options} -rmd sha256 -resp_key_id -ndays 2"
        return ["unshare", "-rn", "sh", "-c", f"ip link set lo up && {serve}"]

    return Contestant("openssl", command, [], [], folder / "asked.der")


def cfssl_version() -> tuple[int, ...]:
    """Of the one that is installed; empty when none is."""
    if not shutil.which("cfssl"):
        return ()
    said = subprocess.run(["cfssl", "version"], capture_output=True, text=True, check=True).stdout
    numbers = re.search(r"\d+(\.\d+)+", said)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def cfssl(folder: Path, asked: Sequence[bytes], bodies: list[bytes]) -> list[Contestant]:
    """None where it is not installed, or older than 1.6: Debian 12's 1.2 answers 400 to every GET.

    It is not asked what has two slashes in a row in base64: those it redirects to what it then cannot read.
    """
    if cfssl_version() < (1, 6):
        return []
    (folder / "responses").write_text("\n".join(base64.b64encode(body).decode() for body in bodies))
    serve = ["cfssl", "ocspserve", "-address", "127.0.0.1", "-loglevel", "5", "-responses", str(folder / "responses")]
    answered = {base64.b64encode(der): body for der, body in zip(asked, bodies, strict=True)}
    answered = {text: body for text, body in answered.items() if b"//" not in text}
    paths = ["/" + quote(text, safe="") for text in answered]
    return [Contestant("cfssl", lambda port: [*serve, "-port", str(port)], paths, list(answered.values()))]
