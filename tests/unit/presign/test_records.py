"""Signed records of every algorithm of A18: what a node assembles from them, a stranger reads and verifies."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from quash.cache.layout import Record, decode_batch, decode_record, encode_head, encode_record
from quash.keys.pem import PemKey
from quash.pki.certid import CertIdHash
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_response import ResponseTemplate, Status
from quash.store.ocsp_signers import OcspSigner
from quash.store.statuses import CertificateStatus
from responder.presign import measure
from responder.presign.signing import HASHES, RecordSigner
from tests.support.ocsp_issuer import OcspIssuer

NOW = 1_799_600_000
VALIDITY = 172_799
KEYS: dict[str, Callable[[], Any]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA-3072": lambda: rsa.generate_private_key(65537, 3072),
    "RSA-4096": lambda: rsa.generate_private_key(65537, 4096),
}
STATUSES = [(0, None, 0), (1, 0, NOW - 9), (1, 4, NOW - 9), (2, 1, NOW - 99), (1, 5, NOW + 3)]


def of(der: bytes, key: Any, not_after: int) -> OcspSigner:
    return OcspSigner(7, 1, der, "", PemKey(key).algorithm.name, 0, not_after, "active", 0)


@pytest.mark.parametrize("name", KEYS)
def test_every_algorithm(name: str) -> None:
    """Both CertIDs of good, revoked and upgraded certificates, serials of 1, 16 and 20 octets, in their order."""
    issuer, key = OcspIssuer(), KEYS[name]()
    delegated = issuer.delegate(key.public_key()).public_bytes(Encoding.DER)
    certificate = issuer.certificate.public_bytes(Encoding.DER)
    signer = RecordSigner(of(delegated, key, NOW + 10 * VALIDITY), certificate, PemKey(key))
    statuses = [
        CertificateStatus(1, b"\x11" + secrets.token_bytes(size - 1), "issued", 0, 2**31, *said, proven=True)
        for size in (1, 16, 20)
        for said in STATUSES
    ]
    batch = signer.sign(statuses, NOW, VALIDITY)
    items = list(decode_batch(batch.payload))
    assert batch.count == len(items)
    template = ResponseTemplate(
        issuer_subject=issuer.row.subject,
        issuer_spki=issuer.row.spki,
        signer_certificate=delegated,
        algorithm=PemKey(key).algorithm,
    )
    assert [serial for _, serial, _ in items] == [status.serial for status in statuses]
    for status, (_, serial, encoded) in zip(statuses, items, strict=True):
        record = decode_record(encoded)
        said = Status(status.reason, status.revoked_at)
        begins = max(NOW, status.revoked_at)
        assert record[:6] == (status.version, *said, begins, begins + VALIDITY, 7)
        for h, signature in zip(HASHES, record.signatures, strict=True):
            response = template.response(h, serial, said, begins, begins + VALIDITY, signature)
            read = verify_response(response, certificate)
            assert (read.status, read.this_update, read.next_update) == (said, begins, begins + VALIDITY)
            assert read.cert_id is not None
            assert (read.cert_id.hash, read.cert_id.serial) == (h, serial)


def test_never_past_the_signers_end() -> None:
    """A5: nextUpdate is cut to the end of the signer's certificate."""
    issuer = OcspIssuer()
    certificate = issuer.certificate.public_bytes(Encoding.DER)
    row = of(issuer.signer_certificate.public_bytes(Encoding.DER), issuer.signer_key, NOW + 40_000)
    signer = RecordSigner(row, certificate, PemKey(issuer.signer_key))
    batch = signer.sign([CertificateStatus(1, b"\x01", "issued", 0, 2**31, 0, None, 0, True)], NOW, VALIDITY)
    ((_, _, record),) = decode_batch(batch.payload)
    assert decode_record(record).next_update == NOW + 40_000


class NoPrivateKey:
    """A key whose signatures the test chooses, by hand: zero octets in front, and few of them."""

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded
        self.real = ec.generate_private_key(ec.SECP256R1())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def sign(self, *_: Any) -> bytes:
        return self.encoded


@given(r=st.integers(1, 2**256 - 1) | st.integers(1, 2**40), s=st.integers(1, 2**256 - 1) | st.integers(1, 2**40))
def test_a_raw_signature_is_cut_right(r: int, s: int) -> None:
    """Whatever sizes pyca gives to r and s, the raw form has 32 octets of each."""
    key = NoPrivateKey(encode_dss_signature(r, s))
    assert PemKey(key).sign(b"") == r.to_bytes(32, "big") + s.to_bytes(32, "big")  # type: ignore[arg-type]


def test_p521_signatures_are_cut_right() -> None:
    """Their outer length has two octets; the strict reader agrees."""
    key = ec.generate_private_key(ec.SECP521R1())
    handle = PemKey(key)
    for _ in range(50):
        raw = handle.sign(b"data")
        assert len(raw) == 132
        key.public_key().verify(handle.algorithm.encode(raw), b"data", ec.ECDSA(hashes.SHA512()))


@pytest.mark.parametrize("h", HASHES)
@pytest.mark.parametrize("said", [(None, 0), (0, NOW), (4, NOW)])
@pytest.mark.parametrize("size", [1, 16, 20, 64, 127])
def test_around_a_serial(h: CertIdHash, said: tuple[int | None, int], size: int) -> None:
    """What stands before and after the serial is that of the whole, whatever octets the serial has."""
    template, status = OcspIssuer().template, Status(*said)
    before, after = template.around_serial(h, size, status, NOW, NOW + VALIDITY)
    serial = bytes(range(1, size + 1))
    assert before + serial + after == template.tbs(h, serial, status, NOW, NOW + VALIDITY)


def test_a_head_and_two_signatures_are_a_record() -> None:
    """The signer's short way and the layout's encoder agree."""
    record = Record(3, 1, NOW, NOW, NOW + 9, 4, (b"a" * 64, b"b" * 64))
    assert encode_head(record) + b"a" * 64 + b"b" * 64 == encode_record(record)


def test_the_measurement_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """One line of JSON with as many rounds of both loops as were asked for."""
    measure.main("ec-p256", 20, 3)
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["count"], len(said["bare"]), len(said["records"])) == ("ec-p256", 20, 3, 3)
    assert min(said["bare"] + said["records"]) > 0
