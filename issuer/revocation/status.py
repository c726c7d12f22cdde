"""What a certificate's status is, as the database has it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from issuer.api import timestamp
from issuer.revocation.find import Found
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.store import crls, revocations
from quash.store.database import Connection

_ASSIGNED = ("precertificate", "issued", "imported")


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """In the names of the outside contract. `revoked_at`: RFC 3339; `crl_url`: the CRL that would list it."""

    serial: str
    issuer: str | None
    status: Literal["good", "revoked", "expired", "unknown"]
    reason: str | None = None
    revoked_at: str | None = None
    crl_url: str | None = None

    def json(self) -> dict[str, Any]:
        return asdict(self)


async def status_of(conn: Connection, found: Found, now: int) -> CertificateStatus:
    """The status of a certificate of ours; revoked wins over expired. A serial nothing was signed for is unknown."""
    certificate = found.certificate
    revocation = await revocations.latest(conn, certificate.issuer_id, certificate.serial)
    scope = await crls.find_scope(conn, certificate.issuer_id, certificate.shard)
    if revocation is not None:
        status: Literal["good", "revoked", "expired", "unknown"] = "revoked"
    elif certificate.not_after < now:
        status = "expired"
    else:
        status = "good" if certificate.state in _ASSIGNED else "unknown"
    return CertificateStatus(
        serial=format_serial(certificate.serial),
        issuer=found.issuer.name,
        status=status,
        reason=Reason(revocation.reason).name if revocation else None,
        revoked_at=timestamp(revocation.revoked_at) if revocation else None,
        crl_url=scope.url if scope else None,
    )


def unknown(issuer: str | None, serial: bytes) -> CertificateStatus:
    """Of a serial that we never committed to."""
    return CertificateStatus(serial=format_serial(serial), issuer=issuer, status="unknown")
