"""Signing processes whose keys lie on a token (G43): each logs in for itself, loses it in a batch, and finds it again.

What they ask of SoftHSM2 is counted by OpenSC's spy, so that "once" and "in the middle" are the token's word.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from quash.cache.layout import decode_batch, decode_record
from quash.errors import QuashError
from quash.keys import KeyHandle, KeyKind, open_key
from quash.keys.library import RESTART_EVERY
from quash.keys.pin import Pin
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_response import ResponseTemplate, Status
from quash.pki.serials import new_serial
from quash.store.ocsp_signers import OcspSigner
from quash.store.statuses import CertificateStatus
from responder.presign.crew import SigningCrew
from responder.presign.desk import OpenKey
from responder.presign.signing import HASHES, Batch
from tests.support.ocsp_issuer import OcspIssuer
from tests.support.processes import gone
from tests.support.softhsm import MODULE, PIN, Spy, Token, make_token

NOW = 1_800_000_000
VALIDITY = 172_799
WORKERS = 2
EC, RSA = 1, 2
KINDS: dict[int, KeyKind] = {EC: "ec-p256", RSA: "rsa-2048"}
ISSUER = OcspIssuer()
ISSUER_DER = ISSUER.certificate.public_bytes(Encoding.DER)
LONG = 3000
"""Statuses whose RSA signatures take a process seconds."""


@pytest.fixture
def token() -> Token:
    made = make_token()
    for kind in KINDS.values():
        made.make_key(kind, kind)
    return made


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """The folder of the records of logins."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spy:
    made = Spy(tmp_path / "spy.log")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def signers(token: Token, spy: Spy, records: Path) -> dict[int, OcspSigner]:
    return {signer_id: _signer(token, spy, records, signer_id) for signer_id in KINDS}


def _signer(token: Token, spy: Spy, records: Path, signer_id: int) -> OcspSigner:
    """Certified by the issuer; the token's key is asked for by a reference through the spy."""
    ref = token.key(KINDS[signer_id])
    handle = open_key(ref, Path("/none"), None, logins=records)
    handle.close()
    public = load_der_public_key(handle.spki)
    assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    certificate = ISSUER.delegate(public).public_bytes(Encoding.DER)
    return OcspSigner(signer_id, 1, certificate, spy.ref(ref), handle.algorithm.name, 0, NOW + 30 * 86_400, "active", 0)


@pytest.fixture
def opener(records: Path) -> OpenKey:
    return partial(_open, records)


def _open(records: Path, ref: str) -> KeyHandle:
    return open_key(ref, Path("/none"), None, logins=records)


@pytest.fixture
async def crew(opener: OpenKey) -> AsyncIterator[SigningCrew]:
    made = SigningCrew(opener, WORKERS)
    yield made
    await made.close()


def statuses(count: int) -> list[CertificateStatus]:
    return [
        CertificateStatus(1, new_serial(), "issued", 0, 2**31, n % 2, 4 if n % 2 else None, NOW * (n % 2), proven=True)
        for n in range(count)
    ]


def sign(crew: SigningCrew, signer: OcspSigner, batch: Sequence[CertificateStatus]) -> asyncio.Future[Batch]:
    return asyncio.ensure_future(crew.sign(signer, ISSUER_DER, batch, NOW, VALIDITY))


def assert_verifies(made: Batch, signer: OcspSigner, batch: Sequence[CertificateStatus]) -> None:
    """Every record is of its status, and both its responses are good for a client."""
    template = ResponseTemplate(
        issuer_subject=ISSUER.row.subject,
        issuer_spki=ISSUER.row.spki,
        signer_certificate=signer.certificate,
        algorithm=SIGNATURE_ALGORITHMS[signer.signature_algorithm],
    )
    items = list(decode_batch(made.payload))
    assert [serial for _, serial, _ in items] == [status.serial for status in batch]
    for status, (_, serial, encoded) in zip(batch, items, strict=True):
        record, said = decode_record(encoded), Status(status.reason, status.revoked_at)
        for h, signature in zip(HASHES, record.signatures, strict=True):
            response = template.response(h, serial, said, NOW, NOW + VALIDITY, signature)
            assert verify_response(response, ISSUER_DER).status == said


async def until(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def processes(crew: SigningCrew) -> list[int]:
    return list(crew._pool._processes) if crew._pool is not None else []


@asynccontextmanager
async def beginning_together(token: Token, spy: Spy, records: Path) -> AsyncIterator[None]:
    """What is asked for inside has every worker wait for its turn to log in; then they may."""
    (serial,) = (each.serial for each in pkcs11.lib(MODULE).get_tokens() if each.label == token.label)
    with Pin(token.pin_file, records).turn(serial, token.label):
        yield
        await until(lambda: spy.calls("C_Initialize") == WORKERS)
        await asyncio.sleep(0.1)  # from the library's start to the wait


async def test_two_workers_log_in_at_once(
    token: Token, spy: Spy, records: Path, signers: dict[int, OcspSigner], crew: SigningCrew
) -> None:
    """Both wait for their turn at the same moment, and both get it; one login each, whatever they sign after it."""
    batches = [statuses(40) for _ in range(3 * WORKERS)]
    async with beginning_together(token, spy, records):
        first = [sign(crew, signers[EC], batch) for batch in batches]
    assert spy.calls("C_Login") == 0
    for made, batch in zip(await asyncio.gather(*first), batches, strict=True):
        assert_verifies(made, signers[EC], batch)
    second = [sign(crew, signers[RSA], batch) for batch in batches]
    for made, batch in zip(await asyncio.gather(*second), batches, strict=True):
        assert_verifies(made, signers[RSA], batch)
    assert spy.calls("C_Login") == WORKERS


async def test_the_token_goes_in_the_middle_of_a_batch(
    token: Token, spy: Spy, signers: dict[int, OcspSigner], crew: SigningCrew
) -> None:
    """No batch of it comes back, whole or in part; with the token there again, the same processes log in anew, once."""
    signing = [sign(crew, signers[RSA], statuses(LONG)) for _ in range(crew.at_once)]
    await until(lambda: spy.calls("C_Sign") > 100 and spy.calls("C_Login") == WORKERS)
    pids = processes(crew)
    with token.away():
        came = await asyncio.gather(*signing, return_exceptions=True)
        assert [each.code for each in came if isinstance(each, QuashError)] == ["key.unavailable"] * len(signing)
        assert 100 < spy.calls("C_Sign") < 2 * LONG
        with pytest.raises(QuashError, match=r"key\.unavailable"):
            await sign(crew, signers[EC], statuses(3))
        assert spy.calls("C_Login") == WORKERS
    batch, deadline = statuses(40), time.monotonic() + 20 * RESTART_EVERY
    while spy.calls("C_Login") < 2 * WORKERS:
        assert time.monotonic() < deadline
        for made in await asyncio.gather(
            *(sign(crew, signers[RSA], batch) for _ in range(crew.at_once)), return_exceptions=True
        ):
            if isinstance(made, Batch):
                assert_verifies(made, signers[RSA], batch)
            else:
                assert isinstance(made, QuashError)
                assert made.code == "key.unavailable"
    for number in KINDS:
        assert_verifies(await sign(crew, signers[number], batch), signers[number], batch)
    assert processes(crew) == pids
    assert spy.calls("C_Login") == 2 * WORKERS


async def test_a_wrong_pin_is_tried_by_one_worker_once(
    token: Token, spy: Spy, records: Path, signers: dict[int, OcspSigner], crew: SigningCrew
) -> None:
    """The other is told what became of it, and what to do; the right PIN is taken as soon as it is there."""
    token.put_pin("1234")
    async with beginning_together(token, spy, records):
        asked = [sign(crew, signers[number], statuses(2)) for number in KINDS for _ in range(WORKERS)]
    for error in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(error, QuashError)
        assert error.code == "key.login_failed"
        assert str(token.pin_file) in error.message
        assert "put the right one there" in error.message
        assert "1234" not in error.message
    assert spy.calls("C_Login") == 1
    token.put_pin(PIN)
    batch = statuses(40)
    for made in await asyncio.gather(*(sign(crew, signers[EC], batch) for _ in range(4 * WORKERS))):
        assert_verifies(made, signers[EC], batch)
    assert 1 < spy.calls("C_Login") <= 1 + WORKERS


_PRESIGNER = """
import asyncio, pickle, sys
from responder.presign.crew import SigningCrew

async def main():
    open_key, size, batch = pickle.load(sys.stdin.buffer)
    crew = SigningCrew(open_key, size)
    signing = [asyncio.ensure_future(crew.sign(*batch)) for _ in range(8 * size)]
    while len(crew._pool._processes if crew._pool else ()) < size:
        await asyncio.sleep(0.02)
    print(*crew._pool._processes, flush=True)
    await asyncio.gather(*signing)

asyncio.run(main())
"""


async def test_workers_end_with_a_presigner_that_is_killed(
    token: Token, spy: Spy, signers: dict[int, OcspSigner], opener: OpenKey
) -> None:
    """Inside a batch, with nobody left to take it; and they leave the token to the next, who logs in at once."""
    presigner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PRESIGNER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert presigner.stdin is not None
    assert presigner.stdout is not None
    presigner.stdin.write(pickle.dumps((opener, WORKERS, (signers[RSA], ISSUER_DER, statuses(LONG), NOW, VALIDITY))))
    presigner.stdin.write_eof()
    pids = list(map(int, (await presigner.stdout.readline()).split()))
    try:
        await until(lambda: spy.calls("C_Login") == WORKERS and spy.calls("C_Sign") > 100)
        assert not any(map(gone, pids))
        presigner.kill()
        await until(lambda: all(map(gone, pids)), 3)
    finally:
        for pid in [pid for pid in pids if not gone(pid)]:
            os.kill(pid, signal.SIGKILL)
    await presigner.wait()
    began = time.monotonic()
    handle = opener(token.key(KINDS[RSA]))
    assert time.monotonic() - began < 3
    assert handle.sign(b"x")
    handle.close()
