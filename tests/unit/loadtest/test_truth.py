"""What the users of a load test take for a wrong answer, lie by lie; the truth is not one."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from loadtest.traffic.truth import UNAUTHORIZED, Population, Truth, WrongAnswerError
from quash.cache.layout import decode_record
from quash.pki.certid import CertId, CertIdHash
from quash.pki.ocsp_response import Status
from tests.support.ocsp_issuer import OcspIssuer

NOW = int(time.time())
ISSUER = OcspIssuer(starts=NOW - 3 * 86_400)
GOOD, REVOKED, REVOKING = b"\x10\x01", b"\x10\x02", b"\x10\x03"


@pytest.fixture
def truth() -> Truth:
    """One certificate good, one revoked for superseded, one about to be."""
    ca = ISSUER.row.certificate
    serials, reasons = [GOOD, REVOKED, REVOKING], {REVOKED: 4}
    truth = Truth(Population("tls-dv", "", "http://crl", "", Path(), ca, serials, reasons))
    truth.revoking.add(REVOKING)
    return truth


def said(
    serial: bytes,
    *,
    age: int = 3600,
    revoked: tuple[int, int] | None = None,
    spoil: bool = False,
    by: OcspIssuer = ISSUER,
) -> bytes:
    """A response over the SHA-256 CertID."""
    record = decode_record(by.record(serial, NOW - age, revoked=revoked, spoil=spoil))
    status = Status(record.reason, record.revoked_at)
    times = (record.this_update, record.next_update)
    return by.template.response(CertIdHash.SHA256, serial, status, *times, record.signatures[1])


def asked(serial: bytes) -> CertId:
    return ISSUER.cert_id(serial, CertIdHash.SHA256)


SUPERSEDED = (4, NOW - 7200)
RIGHT = [
    (GOOD, said(GOOD), False),
    (REVOKED, said(REVOKED, revoked=SUPERSEDED), True),
    (REVOKING, said(REVOKING), False),
    (REVOKING, said(REVOKING, revoked=SUPERSEDED), False),
]
WRONG = {
    "good after the revocation was visible": (REVOKED, said(REVOKED), True, "is revoked"),
    "another reason": (REVOKED, said(REVOKED, revoked=(1, NOW - 7200)), True, "is revoked"),
    "revoked by nobody": (GOOD, said(GOOD, revoked=SUPERSEDED), False, "nobody did"),
    "about another certificate": (GOOD, said(REVOKING), False, "asked about"),
    "spoilt signature": (GOOD, said(GOOD, spoil=True), False, "ocsp.not_trusted"),
    "another issuer's": (GOOD, said(GOOD, by=OcspIssuer(starts=NOW - 86_400)), False, "ocsp.not_trusted"),
    "older than a day": (GOOD, said(GOOD, age=86_400 + 60), False, "and it is"),
    "past its nextUpdate": (GOOD, said(GOOD, age=172_800), False, "and it is"),
    "from the future": (GOOD, said(GOOD, age=-86_400), False, "and it is"),
    "denied": (GOOD, UNAUTHORIZED, False, "ocsp.not_successful"),
    "nonsense": (GOOD, b"nonsense", False, "ocsp.malformed_response"),
}


@pytest.mark.parametrize(("serial", "body", "revoked_before"), RIGHT)
def test_right_answers(truth: Truth, serial: bytes, body: bytes, revoked_before: bool) -> None:
    """What is so; of a certificate that is being revoked, either."""
    truth.check_ocsp(asked(serial), body, revoked_before)
    assert truth.tally["OCSP answers verified"] == 1


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(truth: Truth, name: str) -> None:
    """What is not so, each by itself."""
    serial, body, revoked_before, says = WRONG[name]
    with pytest.raises(WrongAnswerError, match=says):
        truth.check_ocsp(asked(serial), body, revoked_before)
    assert not truth.tally


def crl(number: int, *serials: bytes, age: int = 60, spoil: bool = False) -> bytes:
    """A CRL of the issuer, of four days."""
    begins = dt.datetime.fromtimestamp(NOW - age, dt.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ISSUER.certificate.subject)
        .last_update(begins)
        .next_update(begins + dt.timedelta(days=4))
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(int.from_bytes(serial)).revocation_date(begins)
        builder = builder.add_revoked_certificate(entry.build())
    signed = builder.sign(ISSUER.signer_key if spoil else ISSUER.key, hashes.SHA256())
    return signed.public_bytes(Encoding.DER)


def test_right_crls(truth: Truth) -> None:
    """All revoked are listed; the same CRL again, and a later one."""
    for body in (crl(7, REVOKED), crl(7, REVOKED), crl(8, REVOKED, REVOKING)):
        truth.check_crl("http://crl", body, {REVOKED})
    assert truth.tally["CRLs verified"] == 3


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (crl(7), "lacks 1 revoked"),
        (crl(7, GOOD), "lacks 1 revoked"),
        (crl(5, REVOKED), "CRL 5 after 6"),
        (crl(7, REVOKED, spoil=True), "does not verify"),
        (crl(7, REVOKED, age=5 * 86_400), "until"),
        (crl(7, REVOKED, age=-86_400), "until"),
        (b"nonsense", "http://crl"),
    ],
    ids=["empty", "another serial", "number back", "another key", "expired", "future", "nonsense"],
)
def test_wrong_crls(truth: Truth, body: bytes, says: str) -> None:
    """A revocation that is missing, a number that goes back, and what no stranger would believe."""
    truth.check_crl("http://crl", crl(6, REVOKED), {REVOKED})
    with pytest.raises(WrongAnswerError, match=says):
        truth.check_crl("http://crl", body, {REVOKED})


def test_not_modified_is_wrong_of_a_crl_that_lacks_a_revocation(truth: Truth) -> None:
    """A 304 is an answer too: an origin that keeps saying it hides what was revoked since."""
    entries = truth.check_crl("http://crl", crl(7, REVOKED), {REVOKED})
    truth.check_unmodified("http://crl", entries, {REVOKED})
    with pytest.raises(WrongAnswerError, match="newest lacks 1 revoked"):
        truth.check_unmodified("http://crl", entries, {REVOKED, REVOKING})
    assert truth.tally["CRLs not modified"] == 1


def test_what_is_known_is_kept(truth: Truth, tmp_path: Path) -> None:
    """A later run begins with what this one has seen, without what nobody knows."""
    truth.reasons[GOOD] = 1
    truth.known().save(tmp_path / "population.json")
    kept = Population.load(tmp_path / "population.json")
    assert (kept.serials, kept.reasons) == ([GOOD, REVOKED], {REVOKED: 4, GOOD: 1})
    assert kept.ca == ISSUER.row.certificate
