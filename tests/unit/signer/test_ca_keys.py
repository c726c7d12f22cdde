"""Keys of CAs and OCSP signers are refused for what subscribers' keys are refused for (D40-D45, G9)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuer.checks.blocklist import Blocklist, write_blocklist
from issuer.checks.keys import PwnedKeysClient, check_once
from issuer.signer.key_files import Group, KeyFiles, online_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.rotation import Rotation
from issuer.signer.service import CaSigner
from quash.errors import QuashError
from quash.runtime.config import Checks, Config
from quash.store import acts, blocked_keys, signer_requests
from quash.store.database import acquire
from quash.store.roles import CA_SIGNER, PRESIGNER
from tests.support.initialising import Made
from tests.unit.signer.test_rotation import csr_of

DAY = 86_400
KEYS: tuple[tuple[Group, str], ...] = (("offline", "root"), ("ocsp", "root-1"), ("ca", "tls-dv"), ("ocsp", "tls-dv-1"))


def with_checks(made: Made, checks: dict[str, Any]) -> Config:
    return made.deployment.config.model_copy(update={"checks": Checks.model_validate(checks)})


@pytest.mark.usefixtures("no_lint")
@pytest.mark.parametrize(("group", "name"), KEYS)
async def test_a_listed_key_gets_no_certificate(deployment: Made, group: Group, name: str) -> None:
    """D42, D45: whichever key of the hierarchy a blocklist has, init ends there, and no certificate names it."""
    spki = deployment.deployment.files.ensure(group, name, "ec-p256")
    listed = deployment.state.root / "listed"
    write_blocklist(listed, [spki])
    checks = {"blocklists": [{"name": "debian", "file": str(listed)}]}
    with pytest.raises(QuashError) as error:
        await deployment.make(with_checks(deployment, checks))
    assert error.value.code == "key.listed"
    digest = hashlib.sha256(spki).digest()
    assert await deployment.fetch("select count(*) from certificate where spki_sha256 = $1", digest) == [(0,)]
    assert await deployment.fetch("select count(*) from issuer where spki = $1", spki) == [(0,)]


@pytest.mark.usefixtures("no_lint")
@pytest.mark.parametrize(("group", "name"), KEYS[:3])
async def test_a_blocked_key_gets_no_certificate(deployment: Made, group: Group, name: str) -> None:
    """C9: also a root's, which signs itself."""
    spki = deployment.deployment.files.ensure(group, name, "ec-p256")
    async with deployment.deployment.pool.acquire() as conn, conn.transaction():
        act = await acts.record(conn, at=0, actor="test", action="test", subject={})
        await blocked_keys.block(conn, hashlib.sha256(spki).digest(), reason="test", added_at=0, act_id=act)
    with pytest.raises(QuashError) as error:
        await deployment.make()
    assert error.value.code == "key.blocked"
    assert await deployment.fetch("select count(*) from issuer where spki = $1", spki) == [(0,)]


@pytest.mark.usefixtures("no_lint")
async def test_no_stranger_hears_of_the_keys_that_we_make(deployment: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """G9: nobody knows one yet, and a machine with CA keys may have no way out."""

    async def check(_: PwnedKeysClient, spki_sha256: bytes) -> None:
        pytest.fail(f"asked about {spki_sha256.hex()}")

    monkeypatch.setattr(PwnedKeysClient, "check", check)
    await deployment.make(with_checks(deployment, {"pwnedkeys": {"url": "http://127.0.0.1:9"}}))
    assert await deployment.fetch("select count(*) from issuer_certificate") == [(2,)]


@pytest.mark.usefixtures("no_lint")
async def test_a_listed_key_signs_no_answers(deployment: Made, database: Any) -> None:
    """A17, D45: the rotation refuses it; the service, which is away here, is not asked by the process with the keys."""
    await deployment.make()
    key, listed = ec.generate_private_key(ec.SECP256R1()), deployment.state.root / "listed"
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    write_blocklist(listed, [spki])
    checks = {
        "blocklists": [{"name": "debian", "file": str(listed)}],
        "pwnedkeys": {"url": "http://127.0.0.1:9", "timeout": 0.1},
    }
    pool = await database.pool(CA_SIGNER)
    keys = KeyRing(online_opener(KeyFiles(deployment.deployment.config, deployment.state)))
    signer = CaSigner(pool, keys, deployment.clock)
    rotation = Rotation(pool, signer, with_checks(deployment, checks), deployment.clock)
    deployment.clock.step(15 * DAY)
    ((issuer_id,),) = await deployment.fetch("select id from issuer where name = 'tls-dv'")
    for number, each in enumerate((key, ec.generate_private_key(ec.SECP256R1()))):
        async with acquire(await database.pool(PRESIGNER)) as conn:
            await signer_requests.add(
                conn,
                issuer_id=issuer_id,
                switch_id=None,
                key_ref="pem:ocsp/new.pem",
                csr=csr_of(each),
                created_at=int(deployment.clock.now()),
            )
        assert await rotation.step() == number
    decided = await deployment.fetch("select state, code from signer_request order by id")
    assert decided == [("refused", "key.listed"), ("done", None)]
    await keys.close()


async def test_keys_of_private_pkis(tmp_path: Any) -> None:
    """Ed25519 is for them alone (D40); lists of both kinds know such keys."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    value = int.from_bytes(key.public_bytes_raw(), "big")
    digest = hashlib.sha256(value.to_bytes((value.bit_length() + 7) // 8, "big")).digest()
    (tmp_path / "empty").write_bytes(b"\0" * 16)
    (tmp_path / "list").write_bytes(digest[:15] + b"\1")
    assert spki in Blocklist(tmp_path / "list", "badkeys")

    def checks(file: str) -> Checks:
        return Checks.model_validate({"blocklists": [{"name": file, "file": tmp_path / file, "kind": "badkeys"}]})

    await check_once(checks("empty"), spki, private=True)
    with pytest.raises(QuashError, match=r"key\.listed"):
        await check_once(checks("list"), spki, private=True)
    with pytest.raises(QuashError, match=r"key\."):
        await check_once(checks("empty"), spki)
