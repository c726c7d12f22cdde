"""What an import makes of odd dates: rows are append-only, so each must be one that signers can publish."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.signer.import_plan import Plan, Source, make_plan
from quash.errors import QuashError

NOW = 1_795_000_000  # 2026-11-18T11:06:40Z
_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Old CA")])


def _plan(index: bytes, *, crl_date: datetime | None = None, certs: Path | None = None) -> Plan:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.fromtimestamp(NOW, UTC)
    ca = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=365))
        .not_valid_after(now + timedelta(days=365))
        .sign(key, hashes.SHA256())
    )
    crl = None
    if crl_date is not None:
        entry = x509.RevokedCertificateBuilder().serial_number(0x77).revocation_date(crl_date).build()
        crl = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_NAME)
            .last_update(now - timedelta(days=1))
            .next_update(now + timedelta(days=1))
            .add_revoked_certificate(entry)
            .sign(key, hashes.SHA256())
            .public_bytes(Encoding.DER)
        )
    source = Source("old", index, ca, certs, crl)
    return make_plan(source, skip_bad=False, now=NOW, progress=lambda *_: None)


@pytest.mark.parametrize(
    ("text", "published", "warned"),
    [
        ("261118110640Z", NOW, False),
        ("261118110641Z", NOW, True),
        ("20990101000000Z", NOW, True),
        ("700101000000Z", 0, False),
        ("691231235959Z", 0, True),
        ("19010101000000Z", 0, True),
    ],
)
def test_revocation_dates_that_signers_cannot_say_are_moved(text: str, published: int, warned: bool) -> None:
    """The future becomes now, else no follower took the answer up; before 1970 becomes 1970; both are listed."""
    plan = _plan(f"R\t270101000000Z\t{text},superseded\t42\tunknown\t/CN=a\n".encode())
    assert [row.revoked_at for row in plan.rows] == [published]
    assert (plan.bad, len(plan.warnings)) == ([], int(warned))
    assert all("revocation date" in warning for warning in plan.warnings)


def test_entries_of_the_old_crl_are_moved_alike() -> None:
    """What only the old CRL revokes goes through the same gate."""
    plan = _plan(b"", crl_date=datetime.fromtimestamp(NOW, UTC) + timedelta(days=30))
    assert [(row.serial, row.revoked_at) for row in plan.rows] == [(b"\x77", NOW)]
    assert [warning for warning in plan.warnings if "in the future" in warning] == [
        "serial 77: the revocation date is in the future, taken as now"
    ]


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    """`--certs` is read like every other file: a wrong path has a code of its own."""
    with pytest.raises(QuashError, match=r"import\.unreadable") as refused:
        _plan(b"", certs=tmp_path / "missing")
    assert str(tmp_path / "missing") in refused.value.message
