"""What the presigner puts into the feed, judged by programs that are not ours (A18-A26)."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from quash.cache import layout
from quash.pki.certid import CertIdHash
from quash.runtime.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """The true time: openssl compares what it reads with its own clock."""
    return FakeClock(time.time())


def verify(response: ocsp.OCSPResponse, signer: x509.Certificate) -> None:
    key, algorithm = signer.public_key(), response.signature_hash_algorithm
    assert algorithm is not None
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), algorithm)
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(algorithm))


def ask_openssl(folder: Path, digest: str, serial: bytes) -> subprocess.CompletedProcess[str]:
    """What openssl says of `response.der` for the CertID of this serial."""
    command = ["openssl", "ocsp", "-issuer", "ca.pem", "-CAfile", "ca.pem", "-respin", "response.der"]
    return subprocess.run(
        [*command, f"-{digest}", "-serial", f"0x{serial.hex()}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )


@pytest.mark.parametrize("rsa_key", [False, True], ids=["p256", "rsa"])
@pytest.mark.parametrize("h", list(CertIdHash))
async def test_both_hashes_verify_for_pyca(world: Any, h: CertIdHash, rsa_key: bool) -> None:
    """A good and a revoked answer of each CertID hash carry the delegated signer's valid signature (A18, A19, A20)."""
    authority = await world.authority(rsa_key=rsa_key)
    good, revoked = await world.issue(authority), await world.issue(authority)
    await world.revoke(authority, revoked, 4)
    await (await world.presigner()).step()
    (signer,) = authority.signers.values()
    for serial, status in ((good, ocsp.OCSPCertStatus.GOOD), (revoked, ocsp.OCSPCertStatus.REVOKED)):
        response = ocsp.load_der_ocsp_response(await world.answer(authority, serial, h))
        verify(response, signer)
        assert response.certificate_status is status
        assert response.serial_number == int.from_bytes(serial, "big")
        assert response.hash_algorithm.name == h.name.lower()
        assert response.certificates == [signer]
        assert response.produced_at_utc == response.this_update_utc
        assert list(response.extensions) == []
        assert list(response.single_extensions) == []
    assert response.revocation_reason is x509.ReasonFlags.superseded


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
async def test_both_hashes_verify_for_openssl(world: Any, tmp_path: Path, digest: str) -> None:
    """`openssl ocsp`, given request, response and issuer, says verified and the right status for each hash."""
    authority = await world.authority()
    good, revoked = await world.issue(authority), await world.issue(authority)
    await world.revoke(authority, revoked, 1)
    await (await world.presigner()).step()
    h = CertIdHash[digest.upper()]
    (tmp_path / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    for serial, wanted in ((good, "good"), (revoked, "revoked")):
        response = await world.answer(authority, serial, h)
        (tmp_path / "response.der").write_bytes(response)
        said = ask_openssl(tmp_path, digest, serial)
        assert "Response verify OK" in said.stderr
        assert f"0x{serial.hex()}: {wanted}" in said.stdout
        assert ("Reason: keyCompromise" in said.stdout) == (wanted == "revoked")


async def test_versions_order_records(world: Any) -> None:
    """Each revocation and upgrade has a greater record, whatever order and how often the feed is applied in (B25)."""
    authority = await world.authority()
    serial = await world.issue(authority)
    presigner = await world.presigner()
    seen = []
    for change in (None, 4, 1):
        if change is not None:
            await world.revoke(authority, serial, change)
        await presigner.step()
        record = (await world.cache())[authority.id, serial]
        seen.append((record.version, record.reason))
    assert seen == [(0, None), (1, 4), (2, 1)]
    batches = [list(layout.decode_batch(payload)) for payload in await world.feed("records")]
    orders = [layout.record_order(record) for batch in batches for _, s, record in batch if s == serial]
    assert sorted({version for version, _ in orders}) == [0, 1, 2]


async def test_same_time_and_reason_as_the_revocation(world: Any) -> None:
    """revocationTime and reason are those of the row that the CRL shows too (A26); thisUpdate is not before (A30)."""
    authority = await world.authority()
    serial = await world.issue(authority)
    await world.revoke(authority, serial, 9, at=world.now + 3)
    await (await world.presigner()).step()
    record = (await world.cache())[authority.id, serial]
    assert (record.reason, record.revoked_at, record.this_update) == (9, world.now + 3, world.now + 3)
    assert record.next_update == record.this_update + 48 * 3600 - 1


async def test_reason_zero_is_not_encoded(world: Any) -> None:
    """An unspecified reason is said by saying nothing (A25, B10)."""
    authority = await world.authority()
    serial = await world.issue(authority)
    await world.revoke(authority, serial, 0)
    await (await world.presigner()).step()
    response = ocsp.load_der_ocsp_response(await world.answer(authority, serial))
    assert response.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert response.revocation_reason is None
