"""Makes tests/golden/pki with OpenSSL and pyca alone; nothing of Quash takes part. Run by hand, when a case is added.

    python tests/golden/make_pki.py

`cases.json` says of every file what the octets were made from. The test feeds those values to Quash and expects the
very same octets. Keys are thrown away: a signature is one of the values.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import ocsp

FOLDER = Path(__file__).parent / "pki"
SERIALS = {"good": "5B0E4F1A2C3D4E5F60718293A4B5C6D7", "revoked": "7F", "compromised": "C0FFEE"}
# OpenSSL's index knows two times in UTCTime; reasons by their RFC 5280 names.
INDEX = (
    "V\t301231235959Z\t\t5B0E4F1A2C3D4E5F60718293A4B5C6D7\tunknown\t/CN=good.example\n"
    "R\t301231235959Z\t261101083000Z\t7F\tunknown\t/CN=revoked.example\n"
    "R\t301231235959Z\t261115235959Z,keyCompromise\tC0FFEE\tunknown\t/CN=compromised.example\n"
)
CONFIG = """
[ca]
default_ca = here
[here]
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 4
crl_extensions = extensions
unique_subject = no
[extensions]
authorityKeyIdentifier = keyid:always
[subject]
prompt = no
distinguished_name = subject
"""
SIGNER = """
[signer]
keyUsage = critical, digitalSignature
extendedKeyUsage = OCSPSigning
noCheck = ignored
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
"""
KEYS = {
    "ecdsa-p256-sha256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ecdsa-p384-sha384": ["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "ecdsa-p521-sha512": ["EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "rsa-sha256": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
}
SUBJECT = "/C=TN/ST=Tunis/L=Tunis/O=Agence d'essai/CN=Essai CA 1"
REASONS = {
    "affiliationChanged": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessationOfOperation": x509.ReasonFlags.cessation_of_operation,
    "privilegeWithdrawn": x509.ReasonFlags.privilege_withdrawn,
}
URL = "http://crl.example/essai/3.crl"

cases: dict[str, dict[str, object]] = {}


def keep(name: str, octets: bytes, **values: object) -> None:
    """One golden file with what it was made from."""
    (FOLDER / name).write_bytes(octets)
    cases[name] = values


def openssl(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def make_ca(folder: Path, algorithm: str) -> None:
    """ca.pem, ca.key, signer.pem, signer.key, index.txt, crlnumber."""
    digest = "-" + algorithm.rpartition("-")[2]
    (folder / "index.txt").write_text(INDEX)
    (folder / "crlnumber").write_text("0A7F\n")
    (folder / "ca.cnf").write_text(CONFIG + SIGNER)
    for name in ("ca", "signer"):
        openssl(folder, "genpkey", "-algorithm", *KEYS[algorithm], "-out", f"{name}.key")
    openssl(folder, "req", "-x509", "-new", "-key", "ca.key", digest, "-utf8", "-subj", SUBJECT, "-days", "3650",
            "-set_serial", "1", "-out", "ca.pem")  # fmt: skip
    openssl(folder, "req", "-new", "-key", "signer.key", "-utf8", "-subj", "/C=TN/O=Agence d'essai/CN=Essai OCSP",
            "-out", "signer.csr")  # fmt: skip
    openssl(folder, "x509", "-req", "-in", "signer.csr", "-CA", "ca.pem", "-CAkey", "ca.key", digest,
            "-set_serial", "2", "-days", "30", "-extfile", "ca.cnf", "-extensions", "signer",
            "-out", "signer.der", "-outform", "DER")  # fmt: skip
    openssl(folder, "x509", "-inform", "DER", "-in", "signer.der", "-out", "signer.pem")
    openssl(folder, "x509", "-in", "ca.pem", "-outform", "DER", "-out", "ca.der")


def requests(folder: Path) -> None:
    """OpenSSL's requests: two hashes, with and without a nonce, two certificates."""
    for digest in ("sha1", "sha256"):
        for nonce in (False, True):
            name = f"request-{digest}{'-nonce' if nonce else ''}.der"
            openssl(folder, "ocsp", "-issuer", "ca.pem", f"-{digest}", "-serial", "0x" + SERIALS["good"],
                    "-nonce" if nonce else "-no_nonce", "-reqout", name)  # fmt: skip
            octets = (folder / name).read_bytes()
            # OpenSSL's nonce is 16 octets at the very end.
            keep(
                name, octets, kind="request", hash=digest, serials=["good"], nonce=octets[-16:].hex() if nonce else None
            )
    openssl(folder, "ocsp", "-issuer", "ca.pem", "-sha256", "-serial", "0x" + SERIALS["good"], "-serial", "0x7F",
            "-no_nonce", "-reqout", "two.der")  # fmt: skip
    keep("request-two.der", (folder / "two.der").read_bytes(), kind="request", hash="sha256",
         serials=["good", "revoked"], nonce=None)  # fmt: skip


def seconds(moment: datetime | None) -> int:
    assert moment is not None
    return int(moment.timestamp())


def response(folder: Path, algorithm: str, digest: str, which: str) -> None:
    """OpenSSL's response, by the index."""
    openssl(folder, "ocsp", "-index", "index.txt", "-CA", "ca.pem", "-issuer", "ca.pem", "-rsigner", "signer.pem",
            "-rkey", "signer.key", "-rmd", algorithm.rpartition("-")[2], "-resp_key_id", f"-{digest}",
            "-serial", "0x" + SERIALS[which], "-no_nonce", "-ndays", "4",
            "-respout", "out.der", "-noverify")  # fmt: skip
    octets = (folder / "out.der").read_bytes()
    found = ocsp.load_der_ocsp_response(octets)
    assert found.produced_at_utc == found.this_update_utc  # else a second passed between: run again
    revoked = {"good": None, "revoked": [0, "2026-11-01T08:30:00Z"], "compromised": [1, "2026-11-15T23:59:59Z"]}
    keep(
        f"response-{algorithm}-{digest}-{which}.der", octets, kind="response", by="openssl", algorithm=algorithm,
        hash=digest, serial=SERIALS[which], revoked=revoked[which], this_update=seconds(found.this_update_utc),
        next_update=seconds(found.next_update_utc), signature=found.signature.hex(),
    )  # fmt: skip


def pyca_response(folder: Path, reason: str) -> None:
    """pyca's response, for the reasons that OpenSSL's index would need more lines for, and times far away."""
    ca, signer = (x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes()) for name in ("ca", "signer"))
    key = load_pem_private_key((folder / "signer.key").read_bytes(), None)
    this_update, next_update = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2050, 1, 4, tzinfo=UTC)
    revoked_at = datetime(2026, 2, 28, 1, 2, 3, tzinfo=UTC)
    built = (
        ocsp.OCSPResponseBuilder()
        .add_response(signer, ca, hashes.SHA256(), ocsp.OCSPCertStatus.REVOKED, this_update, next_update, revoked_at,
                      REASONS[reason])
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer)
        .certificates([signer])
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    # pyca takes producedAt from the machine's clock, and we say producedAt = thisUpdate: only SingleResponse is golden.
    number = {"affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5, "privilegeWithdrawn": 9}[reason]
    keep(
        f"response-pyca-{reason}.der", built.public_bytes(Encoding.DER), kind="single", by="pyca",
        algorithm="ecdsa-p256-sha256", hash="sha256", serial=f"{signer.serial_number:X}",
        revoked=[number, "2026-02-28T01:02:03Z"], this_update=seconds(this_update), next_update=seconds(next_update),
    )  # fmt: skip


def crl(folder: Path, algorithm: str) -> None:
    """`openssl ca -gencrl`: authorityKeyIdentifier, then the number."""
    openssl(folder, "ca", "-config", "ca.cnf", "-gencrl", "-cert", "ca.pem", "-keyfile", "ca.key",
            "-md", algorithm.rpartition("-")[2], "-crl_lastupdate", "20261121120000Z",
            "-crl_nextupdate", "20261125115959Z", "-out", "crl.pem")  # fmt: skip
    openssl(folder, "crl", "-in", "crl.pem", "-outform", "DER", "-out", "crl.der")
    octets = (folder / "crl.der").read_bytes()
    keep(
        f"crl-{algorithm}.der", octets, kind="crl", by="openssl", algorithm=algorithm, number=0x0A7F,
        this_update="2026-11-21T12:00:00Z", next_update="2026-11-25T11:59:59Z", url=None, only=None,
        entries=[["7F", 0, "2026-11-01T08:30:00Z"], ["C0FFEE", 1, "2026-11-15T23:59:59Z"]],
        signature=x509.load_der_x509_crl(octets).signature.hex(),
    )  # fmt: skip


def pyca_crl(folder: Path, only: str | None, entries: list[list[object]]) -> None:
    """pyca's shard, with every reason and times from 2050 on."""
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC))
        .next_update(datetime(2050, 1, 1, tzinfo=UTC))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)
        .add_extension(x509.CRLNumber((1 << 159) - 1), critical=False)
        .add_extension(
            x509.IssuingDistributionPoint(
                [x509.UniformResourceIdentifier(URL)], None, only == "user", only == "ca", None, False, False
            ),
            critical=True,
        )
    )
    names = {
        1: "keyCompromise",
        3: "affiliationChanged",
        4: "superseded",
        5: "cessationOfOperation",
        9: "privilegeWithdrawn",
    }
    for serial, reason, moment in entries:
        revoked = (
            x509.RevokedCertificateBuilder()
            .serial_number(int(str(serial), 16))
            .revocation_date(datetime.fromisoformat(str(moment)))
        )
        if reason:
            revoked = revoked.add_extension(x509.CRLReason(x509.ReasonFlags(names[reason])), critical=False)
        builder = builder.add_revoked_certificate(revoked.build())
    octets = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    keep(
        f"crl-pyca-{only or 'any'}.der", octets, kind="crl", by="pyca", algorithm="ecdsa-p256-sha256",
        number=(1 << 159) - 1, this_update="2049-12-31T23:59:59Z", next_update="2050-01-01T00:00:00Z", url=URL,
        only=only, entries=entries, signature=x509.load_der_x509_crl(octets).signature.hex(),
    )  # fmt: skip


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    every = [
        [serial, reason, f"2026-0{1 + number}-28T00:00:00Z"]
        for number, (serial, reason) in enumerate(
            [("01", 0), ("80", 1), ("7F" * 20, 3), ("FF" * 16, 4), ("0100", 5), ("8000", 9)]
        )
    ]
    for algorithm in KEYS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_ca(folder, algorithm)
            for kind in ("ca", "signer"):
                keep(f"{kind}-{algorithm}.der", (folder / f"{kind}.der").read_bytes(), kind="certificate")
            for digest in ("sha1", "sha256"):
                for which in SERIALS:
                    response(folder, algorithm, digest, which)
            crl(folder, algorithm)
            if algorithm == "ecdsa-p256-sha256":
                requests(folder)
                for reason in REASONS:
                    pyca_response(folder, reason)
                pyca_crl(folder, "user", every)
                pyca_crl(folder, "ca", every[1:])
                pyca_crl(folder, None, [])
    (FOLDER / "cases.json").write_text(json.dumps(cases, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
