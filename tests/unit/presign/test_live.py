"""Live signing: a response for one asker says what a record would say, or is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import ocsp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quash.errors import QuashError
from quash.pki.certid import CertId, CertIdHash, issuer_hashes
from quash.pki.ocsp_reading import verify_response
from quash.runtime import rpc
from responder.presign import live_socket
from responder.presign.agreement import ClockAgreement
from responder.presign.desk import SigningDesk
from responder.presign.live import LiveSigner

DAY = 86_400
VALIDITY = 2 * DAY - 1
NONCE = bytes(range(16))


@asynccontextmanager
async def signing(world: Any, *, queue: int = 256) -> AsyncIterator[LiveSigner]:
    """A live signer beside the world's first presigner, or a new one that leads."""
    if not world.presigners:
        await (await world.presigner()).step()

    async def database_time(_: Any) -> float:
        return float(world.clock.now()) - world.database_behind

    signer = LiveSigner(
        await world.database.pool("quash_presigner"),
        world.presigners[0],
        SigningDesk(world.open_key),
        ClockAgreement(world.clock, database_time),
        validity=VALIDITY,
        queue=queue,
    )
    task = asyncio.create_task(signer.run())
    try:
        yield signer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def database_behind(world: Any) -> None:
    """Seconds by which the database's clock is behind ours."""
    world.database_behind = 0.0


def cert_id(authority: Any, serial: bytes, h: CertIdHash = CertIdHash.SHA256) -> CertId:
    spki = authority.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    named = issuer_hashes(authority.certificate.subject.public_bytes(), spki, h)
    return CertId(h, named.name_hash, named.key_hash, serial)


async def code_of(signer: LiveSigner, *cert_ids: CertId) -> str:
    """The code of the refusal."""
    with pytest.raises(QuashError) as error:
        await signer.sign(cert_ids, NONCE)
    return error.value.code


@pytest.mark.parametrize("h", list(CertIdHash))
@pytest.mark.parametrize("size", [1, 16, 32, 128])
async def test_the_nonce_comes_back(world: Any, h: CertIdHash, size: int) -> None:
    """A27: the very nonce, in the only extension; all else as in a record: A5, A19, A24, A30."""
    authority = await world.authority()
    serial = await world.issue(authority)
    nonce = bytes(range(size))
    async with signing(world) as signer:
        signed = await signer.sign([cert_id(authority, serial, h)], nonce)
    parsed = verify_response(signed.response, authority.der)
    assert (parsed.cert_id, parsed.status) == (cert_id(authority, serial, h), (None, 0))
    assert (parsed.this_update, parsed.next_update) == (world.now, world.now + VALIDITY)
    assert parsed.produced_at == world.now
    assert signed.said == [(0, None)]
    (extension,) = ocsp.OCSPResponse.load(signed.response).response_data["response_extensions"]
    assert extension["extn_id"].native == "nonce"
    assert extension["critical"].native is False
    assert extension["extn_value"].parsed.native == nonce


async def test_several_in_one_response(world: Any) -> None:
    """A22: good and revoked, both CertID hashes, in the order asked, under one signature; no nonce without one."""
    authority = await world.authority()
    good, compromised = await world.issue(authority), await world.issue(authority)
    await world.revoke(authority, compromised, 1, at=world.now - 100)
    asked = [
        cert_id(authority, good),
        cert_id(authority, compromised, CertIdHash.SHA1),
        cert_id(authority, compromised),
    ]
    async with signing(world) as signer:
        signed = await signer.sign(asked, None)
    assert signed.said == [(0, None), (1, 1), (1, 1)]
    basic = ocsp.OCSPResponse.load(signed.response).basic_ocsp_response
    (signer_certificate,) = authority.signers.values()
    signer_certificate.public_key().verify(
        basic["signature"].native, basic["tbs_response_data"].dump(), ec.ECDSA(hashes.SHA256())
    )
    data = basic["tbs_response_data"]
    assert data["response_extensions"].native is None
    said = [
        (
            single["cert_id"]["hash_algorithm"]["algorithm"].native,
            single["cert_id"]["serial_number"].native,
            single["cert_status"].name,
        )
        for single in data["responses"]
    ]
    numbers = [int.from_bytes(serial, "big") for serial in (good, compromised)]
    assert said == [("sha256", numbers[0], "good"), ("sha1", numbers[1], "revoked"), ("sha256", numbers[1], "revoked")]
    assert data["responses"][1]["cert_status"].native["revocation_reason"] == "key_compromise"


async def test_a_revocation_is_told_before_any_record_of_it(world: Any) -> None:
    """The status is the database's, at the moment of asking: it is never behind the cache."""
    authority = await world.authority()
    serial = await world.issue(authority)
    async with signing(world) as signer:
        await world.presigners[0].step()
        await world.revoke(authority, serial, 4)
        signed = await signer.sign([cert_id(authority, serial)], NONCE)
    assert signed.said == [(1, 4)]
    assert verify_response(signed.response, authority.der).status == (4, world.now)
    assert (await world.cache())[authority.id, serial].version == 0


async def test_never_about_what_nobody_vouches_for(world: Any) -> None:
    """A9: not for a serial that is unknown, only reserved, expired, another issuer's, or signed by another key."""
    authority, other = await world.authority(), await world.authority("tls-ov")
    good, reserved = await world.issue(authority), await world.reserve(authority)
    forged = await world.reserve(authority)
    await world.complete(authority, forged, by=other)
    short = await world.issue(authority, days=1)
    await world.clock.advance(DAY)
    elsewhere = await world.issue(other)
    async with signing(world) as signer:
        for serial in (b"\x01", reserved, forged, short, elsewhere):
            assert await code_of(signer, cert_id(authority, serial)) == "live.not_vouched_for"
            assert await code_of(signer, cert_id(authority, good), cert_id(authority, serial)) == "live.not_vouched_for"
        mixed = (cert_id(authority, good), cert_id(other, elsewhere))
        assert await code_of(signer, *mixed) == "live.not_vouched_for"
        stranger = CertId(CertIdHash.SHA1, bytes(20), bytes(20), good)
        assert await code_of(signer, stranger) == "live.not_vouched_for"
        assert (await signer.sign([cert_id(authority, good)], NONCE)).said == [(0, None)]


async def test_a_reserved_serial_that_was_revoked_is_revoked(world: Any) -> None:
    """A8: revoked is true whatever became of the certificate."""
    authority = await world.authority()
    serial = await world.reserve(authority)
    await world.revoke(authority, serial)
    async with signing(world) as signer:
        assert (await signer.sign([cert_id(authority, serial)], NONCE)).said == [(1, 1)]


async def test_no_answer_outlives_its_signer(world: Any) -> None:
    """A5: nextUpdate ends with the signer's certificate; with less than 8 hours left nothing is signed (A1)."""
    authority = await world.authority(signer_days=1)
    serial = await world.issue(authority)
    async with signing(world) as signer:
        signed = await signer.sign([cert_id(authority, serial)], NONCE)
        assert verify_response(signed.response, authority.der).next_update == world.now + DAY - 1
        await world.clock.advance(17 * 3600)
        assert await code_of(signer, cert_id(authority, serial)) == "presign.no_signer"


async def test_only_with_the_lease_and_a_clock_that_agrees(world: Any) -> None:
    """Nothing is signed by one who stands by, who lost the lease, or whose clock is off."""
    authority = await world.authority()
    serial = await world.issue(authority)
    first, second = await world.presigner(), await world.presigner()
    asked = cert_id(authority, serial)
    async with signing(world) as signer:
        assert await code_of(signer, asked) == "live.not_leading"
        await first.step()
        await signer.sign([asked], NONCE)
        world.database_behind = 6.0
        assert await code_of(signer, asked) == "presign.clock_disagrees"
        world.database_behind = 0.0
        executioner = await world.database.connection("quash_presigner")
        await executioner.execute(
            "select pg_terminate_backend(pid, 5000) from pg_locks where locktype = 'advisory'"
            " and database = (select oid from pg_database where datname = current_database())"
        )
        await second.step()
        assert second.leading
        assert await code_of(signer, asked) == "lease.lost"


@pytest.mark.parametrize(("fault", "code"), [("away", "key.unavailable"), ("lies", "presign.self_check_failed")])
async def test_a_key_that_fails_is_the_askers_to_hear(world: Any, fault: str, code: str) -> None:
    """What a token signs wrongly goes nowhere; when it is back, signing goes on."""
    authority = await world.authority()
    serial = await world.issue(authority)
    async with signing(world) as signer:
        world.key_fault = fault
        assert await code_of(signer, cert_id(authority, serial)) == code
        world.key_fault = ""
        assert (await signer.sign([cert_id(authority, serial)], NONCE)).said == [(0, None)]


async def test_no_more_wait_than_may(world: Any) -> None:
    """The queue is bounded: one more is refused at once, and those that wait are all answered."""
    authority = await world.authority()
    serial = await world.issue(authority)
    asked = [cert_id(authority, serial)]
    async with signing(world, queue=8) as signer:
        results = await asyncio.gather(*(signer.sign(asked, bytes([n])) for n in range(1, 21)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, QuashError)]
        assert len(refused) == 12
        assert {error.code for error in refused} == {"live.busy"}
        assert len({result.response for result in results if not isinstance(result, BaseException)}) == 8


async def test_the_socket_takes_certids_and_a_nonce_alone(world: Any, tmp_path: Path) -> None:
    """Anything else is refused unread; what is right is answered."""
    authority = await world.authority()
    serial = await world.issue(authority)
    asked = cert_id(authority, serial)
    right = ["sha256", asked.name_hash.hex(), asked.key_hash.hex(), serial.hex()]
    wrong: list[dict[str, Any]] = [
        {},
        {"cert_ids": [], "nonce": None},
        {"cert_ids": [right] * 251, "nonce": None},
        {"cert_ids": [["md5", *right[1:]]], "nonce": None},
        {"cert_ids": [[*right[:3], ""]], "nonce": None},
        {"cert_ids": [[*right[:3], "zz"]], "nonce": None},
        {"cert_ids": [right], "nonce": ""},
        {"cert_ids": [right], "nonce": "00" * 129},
        {"cert_ids": [right], "nonce": None, "tbs": "00"},
        {"cert_ids": [right], "nonce": None, "status": "good"},
    ]
    path = tmp_path / "live.sock"
    async with signing(world) as signer:
        server = await live_socket.serve(path, signer)
        for header in wrong:
            with pytest.raises(QuashError) as error:
                await rpc.call(path, header, timeout=10)
            assert error.value.code == "live.malformed_request"
        with pytest.raises(QuashError) as error:
            await rpc.call(path, {"cert_ids": [right], "nonce": None}, b"tbs", timeout=10)
        assert error.value.code == "rpc.too_large"
        header, body = await rpc.call(path, {"cert_ids": [right], "nonce": "00" * 128}, timeout=10)
        assert header == {"said": [[0, None]], "this_update": world.now}
        assert verify_response(body, authority.der).cert_id == asked
        server.close()
