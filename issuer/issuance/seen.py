"""Certificates that others saw, in logs or on crt.sh, against our own record: all that our keys signed is there (G16).

What our key signed and nobody here knows of is the worst that a CA can hear of itself: a serial without an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from quash.errors import Kind, QuashError
from quash.pki.certificate import CertificateFields, read_certificate
from quash.store import certificates, issuers, signing_log
from quash.store.database import Connection
from quash.store.issuers import Issuer

Verdict = Literal["ours", "unknown", "other", "foreign"]
"""ours: as we recorded it. unknown: our key signed it, and nobody here knows its serial. other: a serial of ours with
other octets. foreign: no key of ours signed it, whatever name it bears."""
BAD: Final = ("unknown", "other")


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one certificate; `issuer` is empty when it is foreign."""

    issuer: str
    serial: bytes
    verdict: Verdict


async def compare(conn: Connection, der: bytes) -> Seen:
    """One certificate or precertificate (DER). Raises `seen.malformed`."""
    try:
        fields, loaded = read_certificate(der), x509.load_der_x509_certificate(der)
    except (QuashError, ValueError) as error:
        raise QuashError("seen.malformed", f"this is no certificate: {error}", Kind.INPUT) from None
    for issuer in await issuers.all_issuers(conn):
        own = await issuers.certificate(conn, issuer.id)
        if own is not None and fields.issuer == issuer.subject and _signed(loaded, own.der):
            return Seen(issuer.name, fields.serial, await _verdict(conn, issuer, fields, der, own.der))
    return Seen("", fields.serial, "foreign")


async def _verdict(conn: Connection, issuer: Issuer, fields: CertificateFields, der: bytes, own: bytes) -> Verdict:
    if der == own:
        return "ours"  # a root
    known = await certificates.get(conn, issuer.id, fields.serial)
    if known is None:
        return "unknown"
    if known.der is None or known.der == der:  # an import may know no more than its serial
        return "ours"
    logged = await signing_log.find_certificate(conn, issuer.id, fields.serial, "precertificate")
    return "ours" if logged is not None and logged.der == der else "other"


def _signed(certificate: x509.Certificate, issuer: bytes) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_der_x509_certificate(issuer))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
