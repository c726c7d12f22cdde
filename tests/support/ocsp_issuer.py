"""A CA with a delegated OCSP signer, made by pyca, that signs records: what a presigner would put into the feed."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quash.cache.layout import IssuerRow, Record, TemplateRow, encode_record
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.certid import CertId, CertIdHash, issuer_hashes
from quash.pki.ocsp_response import ResponseTemplate, Status

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
VALIDITY = 172_799
_ALGORITHM = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"]


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _time(at: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at, dt.UTC)


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class OcspIssuer:
    """P-256 throughout. `starts`: notBefore of its certificates, which last 400 days."""

    issuer_id: int = 1
    name: str = "tls-dv"
    signer_id: int = 1
    starts: int = 1_799_000_000
    max_age: int = 1800
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    signer_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.certificate = (
            self._certificate(f"Test CA {self.name}", self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.signer_certificate = self.delegate(self.signer_key.public_key())
        self.template = ResponseTemplate(
            issuer_subject=self.certificate.subject.public_bytes(),
            issuer_spki=_spki(self.key),
            signer_certificate=self.signer_certificate.public_bytes(Encoding.DER),
            algorithm=_ALGORITHM,
        )

    def delegate(self, key: PublicKey, *usages: x509.ObjectIdentifier) -> x509.Certificate:
        """A certificate by this CA; for OCSP signing unless `usages` say otherwise."""
        builder = self._certificate(f"OCSP {self.name}", key)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage(usages or (ExtendedKeyUsageOID.OCSP_SIGNING,)), critical=False
        ).add_extension(x509.OCSPNoCheck(), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def leaf(self, serial: int) -> x509.Certificate:
        """An end-entity certificate by this CA."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._certificate(f"leaf {serial}", key.public_key()).serial_number(serial)
        return builder.sign(self.key, hashes.SHA256())

    def _certificate(self, common_name: str, key: PublicKey) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            issuer_name=_name(f"Test CA {self.name}"),
            subject_name=_name(common_name),
            public_key=key,
            serial_number=None if common_name.startswith("leaf") else x509.random_serial_number(),
            not_valid_before=_time(self.starts),
            not_valid_after=_time(self.starts + 400 * 86_400),
        )

    @property
    def row(self) -> IssuerRow:
        return IssuerRow(
            self.issuer_id,
            self.name,
            self.certificate.subject.public_bytes(),
            _spki(self.key),
            self.certificate.public_bytes(Encoding.DER),
            self.name,
            self.max_age,
            4 * 86_400 - 1,
        )

    @property
    def template_row(self) -> TemplateRow:
        return TemplateRow(
            self.signer_id, self.issuer_id, _ALGORITHM.name, self.signer_certificate.public_bytes(Encoding.DER)
        )

    def cert_id(self, serial: bytes, algorithm: CertIdHash = CertIdHash.SHA256) -> CertId:
        hashed = issuer_hashes(self.row.subject, self.row.spki, algorithm)
        return CertId(algorithm, hashed.name_hash, hashed.key_hash, serial)

    def record(
        self,
        serial: bytes,
        this_update: int,
        *,
        revoked: tuple[int, int] | None = None,
        version: int | None = None,
        validity: int = VALIDITY,
        spoil: bool = False,
    ) -> bytes:
        """An encoded, signed record; `revoked`: (reason, time); `spoil`: with a signature over something else."""
        status = Status(None, 0) if revoked is None else Status(*revoked)
        next_update = this_update + validity
        signatures = [
            self._sign(self.template.tbs(algorithm, serial, status, this_update, next_update) + b"!" * spoil)
            for algorithm in (CertIdHash.SHA1, CertIdHash.SHA256)
        ]
        return encode_record(
            Record(
                version if version is not None else int(revoked is not None),
                status.reason,
                status.revoked_at,
                this_update,
                next_update,
                self.signer_id,
                (signatures[0], signatures[1]),
            )
        )

    def _sign(self, tbs: bytes) -> bytes:
        return _ALGORITHM.decode(self.signer_key.sign(tbs, ec.ECDSA(hashes.SHA256())))
