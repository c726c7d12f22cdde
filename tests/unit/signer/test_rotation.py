"""Requests for new OCSP signers: which are granted, which are refused, and what a crash leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from issuer.signer.key_files import KeyFiles, online_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.rotation import Rotation
from issuer.signer.service import CaSigner
from quash.keys.pem import PemKey, PrivateKey
from quash.pki.csr import certification_request, request_info
from quash.pki.names import build_name
from quash.store import acts, issuers, signer_requests
from quash.store.database import acquire
from quash.store.roles import ADMIN, CA_SIGNER, PRESIGNER
from tests.support.initialising import Made

DAY = 86_400
Ask = Callable[..., Awaitable[int]]
SIGNERS = (
    "select s.state, s.key_ref from ocsp_signer s join issuer i on i.id = s.issuer_id where i.name = $1 order by s.id"
)


def csr_of(key: PrivateKey, *, by: PrivateKey | None = None) -> bytes:
    """A request for a key; signed by another one where the test says so."""
    handle, signer = PemKey(key), PemKey(by or key)
    info = request_info(build_name({"CN": "anything"}), handle.spki)
    return certification_request(info, signer.algorithm, signer.sign(info))


@pytest.fixture
async def rotation(deployment: Made, database: Any, no_lint: None) -> Rotation:
    """The CA signer's part of an initialised deployment, with its own role's rights."""
    await deployment.make()
    pool = await database.pool(CA_SIGNER)
    keys = KeyRing(online_opener(KeyFiles(deployment.deployment.config, deployment.state)))
    signer = CaSigner(pool, keys, deployment.clock)
    return Rotation(pool, signer, deployment.deployment.config, deployment.clock)


@pytest.fixture
def ask(deployment: Made, database: Any) -> Ask:
    """Inserts a request as the presigner does; returns its id."""

    async def insert(name: str = "tls-dv", *, csr: bytes | None = None, switch: int | None = None) -> int:
        ((issuer_id,),) = await deployment.fetch("select id from issuer where name = $1", name)
        async with acquire(await database.pool(PRESIGNER)) as conn:
            await signer_requests.add(
                conn,
                issuer_id=issuer_id,
                switch_id=switch,
                key_ref="pem:ocsp/new.pem",
                csr=csr or csr_of(ec.generate_private_key(ec.SECP256R1())),
                created_at=int(deployment.clock.now()),
            )
        ((made,),) = await deployment.fetch("select max(id) from signer_request")
        return int(made)

    return insert


async def state_of(made: Made, request: int) -> tuple[str, str | None]:
    ((state, code),) = await made.fetch("select state, code from signer_request where id = $1", request)
    return state, code


async def test_a_renewal_at_half_life(deployment: Made, rotation: Rotation, ask: Ask) -> None:
    """Refused a day before half of the life, granted then; the certificate is the profile's, for as long as before."""
    early = await ask()
    assert await rotation.step() == 0
    assert await state_of(deployment, early) == ("refused", "rotation.not_due")
    deployment.clock.step(15 * DAY)
    key = ec.generate_private_key(ec.SECP256R1())
    granted = await ask(csr=csr_of(key))
    assert await rotation.step() == 1
    assert await state_of(deployment, granted) == ("done", None)
    assert await deployment.fetch(SIGNERS, "tls-dv") == [
        ("retiring", "pem:ocsp/tls-dv-1.pem"),
        ("active", "pem:ocsp/new.pem"),
    ]
    ((der, not_before, not_after),) = await deployment.fetch(
        "select certificate, not_before, not_after from ocsp_signer order by id desc limit 1"
    )
    made = x509.load_der_x509_certificate(der)
    made.verify_directly_issued_by(deployment.certificate("tls-dv"))
    assert made.public_key() == key.public_key()
    assert (not_before, not_after + 1 - not_before) == (deployment.clock.now(), 30 * DAY)
    assert (made.not_valid_before_utc.timestamp(), made.not_valid_after_utc.timestamp()) == (not_before, not_after)
    news = await deployment.fetch("select kind, lane from outbox order by id desc limit 2")
    assert set(news) == {("certificate", 0), ("signer", 0)}
    assert await deployment.fetch("select state, tbs from certificate where der = $1", der) == [("issued", None)]
    assert await deployment.fetch("select count(*) from act where action = 'signer.renewed'") == [(1,)]
    assert await rotation.step() == 0


async def test_an_operators_switch(deployment: Made, database: Any, rotation: Rotation, ask: Ask) -> None:
    """Granted at any age, and every bucket of the issuer is due in the bulk lane: all is signed anew."""
    async with acquire(await database.pool(ADMIN)) as conn, conn.transaction():
        issuer_ = await issuers.find_by_name(conn, "tls-dv")
        assert issuer_ is not None
        await signer_requests.order_switch(conn, issuer_.id, "tls-dv", actor="operator:o", at=1)
    ((switch,),) = await deployment.fetch("select id from signer_switch")
    await ask(switch=switch)
    assert await rotation.step() == 1
    assert [state for state, _ in await deployment.fetch(SIGNERS, "tls-dv")] == ["retiring", "active"]
    query = "select count(distinct bucket), min(lane) from outbox where kind = 'bucket' and issuer_id = $1"
    assert await deployment.fetch(query, issuer_.id) == [(issuer_.bucket_count, 1)]
    async with acquire(await database.pool(PRESIGNER)) as conn:
        assert (await signer_requests.asked(conn, [issuer_.id]))[issuer_.id].switch_id is None
    deployment.clock.step(31 * DAY)
    await rotation.step()
    assert [state for state, _ in await deployment.fetch(SIGNERS, "tls-dv")] == ["retired", "active"]


async def test_what_is_refused(deployment: Made, rotation: Rotation, ask: Ask) -> None:
    """An offline issuer's, an unproven key, the CA's own key, the old signer's: each with its code, none signed."""
    deployment.clock.step(20 * DAY)
    files = KeyFiles(deployment.deployment.config, deployment.state)
    new, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def stored(group: Any, ref: str) -> bytes:
        key = files.open(group, ref)
        info = request_info(build_name({"CN": "x"}), key.spki)
        return certification_request(info, key.algorithm, key.sign(info))

    requests = {
        "rotation.offline": ("root", csr_of(new)),
        "csr.not_proven": ("tls-dv", csr_of(new, by=other)),
        "csr.malformed": ("tls-dv", b"\0"),
    }
    reused = ("tls-dv", stored("ca", "pem:ca/tls-dv.pem")), ("tls-dv", stored("ocsp", "pem:ocsp/tls-dv-1.pem"))
    for code, (name, csr) in [*requests.items(), *(("rotation.key_reused", each) for each in reused)]:
        request = await ask(name, csr=csr)
        assert await rotation.step() == 0
        assert await state_of(deployment, request) == ("refused", code)
    assert await deployment.fetch("select count(*) from ocsp_signer") == [(2,)]
    assert await deployment.fetch("select count(*) from certificate where state = 'reserved'") == [(0,)]


async def test_no_certificate_that_does_not_outlive_the_old(deployment: Made, rotation: Rotation, ask: Ask) -> None:
    """At the end of the issuer's own certificate renewals would come ever faster: refused instead."""
    await deployment.fetch(
        "update issuer_certificate c set not_after = s.not_after from ocsp_signer s, issuer i"
        " where i.id = s.issuer_id and i.name = 'tls-dv' and c.issuer_id = i.id returning 1"
    )
    deployment.clock.step(16 * DAY)
    request = await ask()
    await rotation.step()
    assert await state_of(deployment, request) == ("refused", "rotation.no_gain")


class Crash(Exception):  # noqa: N818 - the process ends
    """Of the CA signer."""


async def test_a_crash_between_steps(
    deployment: Made, rotation: Rotation, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After T1 and after signing: the next step goes on with the same serial and the same certificate."""
    deployment.clock.step(16 * DAY)
    request = await ask()
    sign, finish = CaSigner.sign_certificate, signer_requests.finish

    async def crash(*_: Any, **__: Any) -> Any:
        raise Crash

    for owner, name in ((CaSigner, "sign_certificate"), (signer_requests, "finish")):
        monkeypatch.setattr(owner, name, crash)
        with pytest.raises(Crash):
            await rotation.step()
        monkeypatch.setattr(CaSigner, "sign_certificate", sign)
        monkeypatch.setattr(signer_requests, "finish", finish)
    assert await rotation.step() == 1
    rows = await deployment.fetch("select c.state from certificate c join signer_request r using (serial)")
    assert rows == [("issued",)]
    assert await state_of(deployment, request) == ("done", None)


async def test_a_key_that_is_away_is_waited_for_and_then_given_up(
    deployment: Made, rotation: Rotation, ask: Ask
) -> None:
    """The CA's key is missing: the request stays open; after a day its serial is revoked, not lost (A8)."""
    deployment.clock.step(16 * DAY)
    request = await ask()
    path = deployment.state.keys / "ca" / "tls-dv.pem"
    path.rename(path.with_suffix(".away"))
    assert await rotation.step() == 0
    assert (await state_of(deployment, request))[0] == "open"
    deployment.clock.step(DAY)
    assert await rotation.step() == 0
    assert await state_of(deployment, request) == ("refused", "rotation.too_old")
    query = (
        "select v.reason, c.state from signer_request r join certificate c using (issuer_id, serial)"
        " join revocation v using (issuer_id, serial)"
    )
    assert await deployment.fetch(query) == [(4, "reserved")]


async def test_a_blocked_key(deployment: Made, rotation: Rotation, ask: Ask) -> None:
    """C9: a key that is known to be compromised never signs answers; its reservation is revoked."""
    deployment.clock.step(16 * DAY)
    key = ec.generate_private_key(ec.SECP256R1())
    async with deployment.deployment.pool.acquire() as conn, conn.transaction():
        act = await acts.record(conn, at=1, actor="test", action="block", subject={})
        await conn.execute(
            "insert into blocked_key (spki_sha256, reason, added_at, act_id) values ($1, 'x', 1, $2)",
            hashlib.sha256(PemKey(key).spki).digest(),
            act,
        )
    request = await ask(csr=csr_of(key))
    assert await rotation.step() == 0
    assert await state_of(deployment, request) == ("refused", "key.blocked")


async def test_one_open_request_at_a_time(deployment: Made, ask: Ask, rotation: Rotation) -> None:
    """Two presigners that ask at once leave one request."""
    deployment.clock.step(16 * DAY)
    assert await ask() == await ask()
    assert await rotation.step() == 1


async def test_the_functions_do_nothing_for_a_decided_request(
    deployment: Made, database: Any, rotation: Rotation, ask: Ask
) -> None:
    """Neither a second T3 nor a late refusal changes what was decided."""
    deployment.clock.step(16 * DAY)
    request = await ask()
    await rotation.step()
    async with acquire(await database.pool(CA_SIGNER)) as conn:
        assert not await signer_requests.refuse(conn, request, "late", 1)
        assert not await signer_requests.finish(conn, request, der=b"", algorithm="x", not_before=1, not_after=2, at=1)
        assert not await signer_requests.refuse(conn, 999, "unknown", 1)
    assert await state_of(deployment, request) == ("done", None)
