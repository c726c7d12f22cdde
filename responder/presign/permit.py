"""What may be signed: a first `good` only for a certificate that the issuer demonstrably signed, or an imported one.

This keeps a writer of the database from having arbitrary serials called good. What was proven once is remembered, since
a serial that the issuer signed stays issued for ever; refreshes then read no DER.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from quash.store.statuses import CertificateStatus
from responder.presign.metrics import alarm

Key = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Permitted:
    """What may be signed now, and which certificates of it (issuer id, serial) were proven just now."""

    statuses: list[CertificateStatus]
    proven: list[Key]

    def proven_of(self, unsigned: Collection[CertificateStatus]) -> list[Key]:
        """Those that were signed: no proof is remembered without the record that rests on it."""
        without = {(status.issuer_id, status.serial) for status in unsigned}
        return [key for key in self.proven if key not in without]


def needs_proof(status: CertificateStatus) -> bool:
    """Revoked is true whatever the DER says, an import vouches for its rows, and a proof lasts."""
    return status.version == 0 and not status.proven and status.state != "imported"


def permit(
    statuses: Collection[CertificateStatus],
    certificates: Mapping[Key, bytes],
    issuers: Mapping[int, Sequence[x509.Certificate]],
) -> Permitted:
    """Sorts out what must not be called good.

    `certificates`: the DER of those that need proof and have one; `issuers`: each issuer's certificates. A serial
    without DER is reserved: it is answered once it is signed or revoked. One whose DER does not verify: alarm.
    """
    if not any(map(needs_proof, statuses)):  # nearly always: a proof lasts
        return Permitted(list(statuses), [])
    permitted, proven = [], []
    for status in statuses:
        if needs_proof(status):
            key = (status.issuer_id, status.serial)
            der = certificates.get(key)
            if der is None:
                continue
            if not issued_by(der, status.serial, issuers.get(status.issuer_id, ())):
                alarm(
                    "presign.certificate_not_issued",
                    "the stored certificate does not verify under its issuer: no good answer is signed for it",
                    issuer_id=status.issuer_id,
                    serial=status.serial.hex(),
                )
                continue
            proven.append(key)
        permitted.append(status)
    return Permitted(permitted, proven)


def issued_by(der: bytes, serial: bytes, issuers: Sequence[x509.Certificate]) -> bool:
    """Whether a (pre)certificate carries this serial and the signature of one of the issuer's certificates' keys."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        if certificate.serial_number != int.from_bytes(serial, "big", signed=True):
            return False
        return any(_signed_by(certificate, issuer) for issuer in issuers)
    except (ValueError, x509.InvalidVersion):
        return False


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
