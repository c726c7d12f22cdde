"""What a signer made is read as a stranger reads it before it goes out: all of a few, of many each kind."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from quash.errors import QuashError
from quash.keys.pem import PemKey
from quash.pki.ocsp_response import ResponseTemplate, Status
from quash.store.statuses import CertificateStatus
from responder.presign.signing import CHECK_EVERY, SMALL, RecordSigner
from tests.support.ocsp_issuer import OcspIssuer
from tests.unit.presign.test_records import NOW, VALIDITY, of


class Faulty(PemKey):
    """A key whose signatures of the given numbers are wrong."""

    wrong: frozenset[int] = frozenset()

    def sign_many(self, many: Any) -> list[bytes]:
        made = super().sign_many(many)
        return [one[:-1] + bytes([one[-1] ^ 1]) if n in self.wrong else one for n, one in enumerate(made)]


@pytest.fixture
def key() -> Faulty:
    return Faulty(_ISSUER.signer_key)


@pytest.fixture
def signer(key: Faulty) -> RecordSigner:
    row = of(_ISSUER.signer_certificate.public_bytes(Encoding.DER), _ISSUER.signer_key, NOW + 10 * VALIDITY)
    return RecordSigner(row, _ISSUER.certificate.public_bytes(Encoding.DER), key)


_ISSUER = OcspIssuer()


def certificates(
    count: int, reason: int | None = None, since: int = NOW - 9, size: int = 16
) -> list[CertificateStatus]:
    said = (0, None, 0) if reason is None else (1, reason, since)
    return [
        CertificateStatus(1, b"\x11" + secrets.token_bytes(size - 1), "issued", 0, 2**31, *said, proven=True)
        for _ in range(count)
    ]


def refused(signer: RecordSigner, statuses: list[CertificateStatus]) -> str:
    with pytest.raises(QuashError) as error:
        signer.sign(statuses, NOW, VALIDITY)
    assert error.value.code == "presign.self_check_failed"
    return error.value.message


@pytest.mark.parametrize("wrong", [0, 1, 2, 3, 2 * SMALL - 1])
def test_one_wrong_signature_among_few(signer: RecordSigner, key: Faulty, wrong: int) -> None:
    """A node would refuse that record alone, and it would not be signed again before its refresh."""
    statuses = certificates(SMALL, 1)
    signer.sign(statuses, NOW, VALIDITY)
    key.wrong = frozenset([wrong])
    assert statuses[wrong // 2].serial.hex() in refused(signer, statuses)


@pytest.mark.parametrize(
    "said",
    [
        lambda status: Status(status.reason, status.revoked_at + 1),
        lambda status: Status(5, status.revoked_at),
        lambda status: Status(None, 0),
    ],
    ids=["another moment", "another reason", "good"],
)
@pytest.mark.parametrize("good", [1, 700])
def test_what_reads_differently_behind_what_is_right(
    signer: RecordSigner, monkeypatch: pytest.MonkeyPatch, said: Any, good: int
) -> None:
    """Its signature is right and so is what stands first; what it says is not what was to be said."""
    real = ResponseTemplate.tbs

    def tbs(template: ResponseTemplate, h: Any, serial: bytes, status: Status, *times: int) -> bytes:
        return real(template, h, serial, said(status) if status.reason is not None else status, *times)

    monkeypatch.setattr(ResponseTemplate, "tbs", tbs)
    statuses = [*certificates(good), *certificates(999 - good, 1)]
    refused(signer, statuses)


def test_each_reason_and_size_of_many(signer: RecordSigner, key: Faulty) -> None:
    """The first of each, wherever it stands; and every so many records of whatever they are."""
    kinds = [(None, 16), (1, 16), (4, 16), (1, 20)]
    statuses = [one for reason, size in kinds for one in certificates(300, reason, size=size)]
    statuses += certificates(CHECK_EVERY + 1)
    signer.sign(statuses, NOW, VALIDITY)
    for number in (0, 300, 600, 900, CHECK_EVERY, 2 * CHECK_EVERY):
        for wrong in (2 * number, 2 * number + 1):
            key.wrong = frozenset([wrong])
            assert statuses[number].serial.hex() in refused(signer, statuses)


def test_what_the_check_of_many_costs_is_bounded(signer: RecordSigner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revocations of one moment each are no reason to read them all."""
    checked: list[bytes] = []
    monkeypatch.setattr(RecordSigner, "_check", lambda _signer, serial, _record: checked.append(serial))
    signer.sign([one for n in range(CHECK_EVERY * 3) for one in certificates(1, 4, NOW - n)], NOW, VALIDITY)
    assert len(checked) == 3 + 3


def test_a_key_is_tried(signer: RecordSigner, key: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that makes wrong signatures is found before an answer needs it."""
    signer.try_key()
    real = key.sign
    monkeypatch.setattr(key, "sign", lambda tbs: real(tbs + b"!"))
    with pytest.raises(QuashError, match="makes wrong signatures"):
        signer.try_key()
