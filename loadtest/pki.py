"""An issuer with an OCSP signer and a cache full of signed records, made without a database: for benchmarks."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quash.cache.layout import IssuerRow, Record, TemplateRow, encode_record
from quash.cache.writer import Changes, LmdbWriter
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.certid import CertId, CertIdHash, issuer_hashes
from quash.pki.ocsp_response import GOOD, ResponseTemplate

VALIDITY = 172_799
_ALGORITHM = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"]
_AT_ONCE = 10_000


class BenchIssuer:
    """P-256 for CA and signer, names as long as usual ones. `now`: thisUpdate of every record, Unix seconds."""

    def __init__(self, now: int) -> None:
        self.now = now
        key, self._signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca = _certificate("Benchmark DV TLS CA 1", key, key, now)
        signer = _certificate("Benchmark DV TLS CA 1 OCSP 1", self._signer, key, now)
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        subject, der = ca.subject.public_bytes(), ca.public_bytes(Encoding.DER)
        self.row = IssuerRow(1, "tls-dv", subject, spki, der, "tls-dv", 1800, VALIDITY)
        self.signer_row = TemplateRow(1, 1, _ALGORITHM.name, signer.public_bytes(Encoding.DER))
        self._template = ResponseTemplate(
            issuer_subject=subject,
            issuer_spki=spki,
            signer_certificate=self.signer_row.certificate,
            algorithm=_ALGORITHM,
        )

    def signer_key(self) -> bytes:
        """PEM of the OCSP signer's key, unencrypted, for the peers that sign while they are asked."""
        return self._signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def cert_id(self, serial: bytes, algorithm: CertIdHash) -> CertId:
        named = issuer_hashes(self.row.subject, self.row.spki, algorithm)
        return CertId(algorithm, named.name_hash, named.key_hash, serial)

    def record(self, serial: bytes) -> bytes:
        """A signed, encoded `good`."""
        first, second = (self._sign(algorithm, serial) for algorithm in (CertIdHash.SHA1, CertIdHash.SHA256))
        return encode_record(Record(0, None, 0, self.now, self.now + VALIDITY, 1, (first, second)))

    def _sign(self, algorithm: CertIdHash, serial: bytes) -> bytes:
        tbs = self._template.tbs(algorithm, serial, GOOD, self.now, self.now + VALIDITY)
        return _ALGORITHM.decode(self._signer.sign(tbs, ec.ECDSA(hashes.SHA256())))


def fill(folder: Path, issuer: BenchIssuer, count: int) -> list[bytes]:
    """Writes a complete cache into `folder`; returns the serials."""
    serials = [b"\x41" + os.urandom(15) for _ in range(count)]
    writer = LmdbWriter(folder)
    writer.apply(Changes(issuers=[issuer.row], templates=[issuer.signer_row], heartbeat=issuer.now, complete=True))
    for part in _parts(serials):
        writer.apply(Changes(records=[(1, serial, issuer.record(serial)) for serial in part]))
    writer.close()
    return serials


def _parts(serials: list[bytes]) -> Iterator[list[bytes]]:
    return (serials[at : at + _AT_ONCE] for at in range(0, len(serials), _AT_ONCE))


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, now: int
) -> x509.Certificate:
    ends = [dt.datetime.fromtimestamp(at, dt.UTC) for at in (now - 3600, now + 30 * 86_400)]
    names = [
        x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "TN"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Quash Benchmark"),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )
        for common_name in ("Benchmark DV TLS CA 1", name)
    ]
    builder = x509.CertificateBuilder(
        issuer_name=names[0],
        subject_name=names[1],
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=ends[0],
        not_valid_after=ends[1],
    )
    if key is by:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    else:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
        builder = builder.add_extension(usage, critical=False).add_extension(x509.OCSPNoCheck(), critical=False)
    return builder.sign(by, hashes.SHA256())
