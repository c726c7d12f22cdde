"""Everything that the CA signer has to know of a reservation before it signs, of one moment and in one question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quash.store import certificates
from quash.store.certificates import Certificate, Reservation
from quash.store.database import Connection
from quash.store.issuers import REVOKED, SHOWN, SHOWN_OF, SHOWN_WIDTH, Issuer, IssuerCertificate, read_shown, stopped
from quash.store.signing_log import SignedCertificate


@dataclass(frozen=True, slots=True)
class Signable:
    """A reservation, what was signed for its serial before, and what stands against signing.

    `crl_url`: of the scope that shows it. `revoked`: the serial (E8). `blocked`: its key (C9). `stopped`: the issuer,
    by the kill switch (G21). `issuer_revoked`: the CA above has revoked every certificate that it ever gave it (C3).
    """

    reservation: Reservation
    precertificate: SignedCertificate | None
    certificate: SignedCertificate | None
    crl_url: str | None
    revoked: bool
    blocked: bool
    stopped: bool
    issuer_revoked: bool


_READ = f"""
select {SHOWN}, {", ".join(f"c.{column}" for column in certificates.COLUMNS.split(", "))},
    c.tbs, c.order_id, c.created_at as reserved_at, s.url,
    before.tbs_sha256 as precertificate_tbs, before.der as precertificate_der,
    done.tbs_sha256 as certificate_tbs, done.der as certificate_der,
    exists (select from revocation r where r.issuer_id = c.issuer_id and r.serial = c.serial) as revoked,
    exists (select from blocked_key b where b.spki_sha256 = c.spki_sha256) as blocked,
    {stopped("i.id")} as stopped,
    {REVOKED} as issuer_revoked
from issuer i {SHOWN_OF}
left join certificate c on c.issuer_id = i.id and c.serial = $2
left join crl_scope s on s.issuer_id = c.issuer_id and s.shard is not distinct from c.shard
left join signing_log before
    on before.issuer_id = c.issuer_id and before.serial = c.serial and before.kind = 'precertificate'
left join signing_log done on done.issuer_id = c.issuer_id and done.serial = c.serial and done.kind = 'certificate'
where i.id = $1
"""
_WIDTH = SHOWN_WIDTH + len(certificates.COLUMNS.split(", "))


async def read(
    conn: Connection, issuer_id: int, serial: bytes
) -> tuple[Issuer, IssuerCertificate | None, Signable | None] | None:
    """The issuer, its certificate, and what is reserved under the serial. None: there is no such issuer."""
    row = await conn.fetchrow(_READ, issuer_id, serial)
    return None if row is None else (*read_shown(row), _signable(row))


def _signable(row: Any) -> Signable | None:
    """None: nobody reserved this serial."""
    if row["reserved_at"] is None:
        return None
    return Signable(
        Reservation(Certificate(*row[SHOWN_WIDTH:_WIDTH]), row["tbs"], row["order_id"], row["reserved_at"]),
        _signed(row["precertificate_tbs"], row["precertificate_der"]),
        _signed(row["certificate_tbs"], row["certificate_der"]),
        row["url"],
        row["revoked"],
        row["blocked"],
        row["stopped"],
        bool(row["issuer_revoked"]),
    )


def _signed(tbs_sha256: bytes | None, der: bytes | None) -> SignedCertificate | None:
    return None if tbs_sha256 is None or der is None else SignedCertificate(tbs_sha256, der)
