"""Signing certificates: what is reserved, once, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from typing import Any

import pytest
from cryptography import x509

from issuer.signer.tbs import tbs_of
from quash.errors import Kind, QuashError
from quash.keys import KeyUnavailable
from quash.store import blocked_keys, certificates, revocations, signing_log
from quash.store.issuers import Issuer
from quash.store.revocations import Revocation
from tests.support.issuing import DAY, SoftwareKey, private_key
from tests.support.reserving import LEAF_KEY, Desk, refused


@pytest.mark.parametrize("name", ["tls-dv", "tls-ov"])
async def test_signs_the_reserved_bytes(desk: Desk, name: str) -> None:
    """The certificate holds the reserved TBS byte for byte and verifies under the issuer for a stranger."""
    leaf = await desk.leaf(name)
    serial = await desk.reserve(leaf, name)
    made = await desk.signer.sign_certificate(desk.hierarchy[name].id, serial)
    assert tbs_of(made) == leaf.tbs
    issuer = x509.load_der_x509_certificate(await desk.certificate_of(name))
    x509.load_der_x509_certificate(made).verify_directly_issued_by(issuer)
    (row,) = await desk.fetch("select kind, issuer_id, serial, der, at from signing_log")
    assert tuple(row) == ("certificate", desk.hierarchy[name].id, serial, made, desk.now)


async def test_the_same_again_is_the_same(desk: Desk) -> None:
    """Asked again, by the same process, after a restart, and after T3: the same DER, signed once."""
    issuer_id = desk.hierarchy["tls-dv"].id
    serial = await desk.reserve(await desk.leaf())
    made = await desk.signer.sign_certificate(issuer_id, serial)
    assert await desk.signer.sign_certificate(issuer_id, serial) == made
    assert await desk.new_signer().sign_certificate(issuer_id, serial) == made
    async with desk.owner.acquire() as conn:
        await certificates.complete(conn, issuer_id, serial, made)
    assert await desk.new_signer().sign_certificate(issuer_id, serial) == made
    assert len(await desk.fetch("select from signing_log")) == 1


async def test_a_crash_before_the_log_leaves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was signed but not logged has left nobody's hands: the next request signs and logs the one certificate."""
    issuer_id, add = desk.hierarchy["tls-dv"].id, signing_log.add_certificate

    async def crash(*_: Any, **__: Any) -> bool:
        raise ConnectionResetError

    serial = await desk.reserve(await desk.leaf())
    monkeypatch.setattr(signing_log, "add_certificate", crash)
    with pytest.raises(ConnectionResetError):
        await desk.signer.sign_certificate(issuer_id, serial)
    assert await desk.fetch("select from signing_log") == []
    monkeypatch.setattr(signing_log, "add_certificate", add)
    made = await desk.new_signer().sign_certificate(issuer_id, serial)
    assert [row["der"] for row in await desk.fetch("select der from signing_log")] == [made]


async def test_two_processes_agree(desk: Desk) -> None:
    """Asked at the same moment, two signer processes hand out one certificate: the one that was logged."""
    serial = await desk.reserve(await desk.leaf())
    issuer_id, meet = desk.hierarchy["tls-dv"].id, threading.Barrier(2, timeout=10)

    class Together(SoftwareKey):
        def sign(self, tbs: bytes) -> bytes:
            meet.wait()  # neither has logged yet when both have signed
            return super().sign(tbs)

    signers = [desk.new_signer(lambda issuer: Together(private_key(issuer.name))) for _ in range(2)]
    one, other = await asyncio.gather(*(signer.sign_certificate(issuer_id, serial) for signer in signers))
    assert one == other
    assert len(await desk.fetch("select from signing_log")) == 1


async def test_one_at_a_time_per_key(desk: Desk) -> None:
    """A key signs for one request at a time, while another key signs beside it."""
    busy: dict[str, int] = {}
    overlaps: list[int] = []
    beside = threading.Barrier(2, timeout=60)  # which the first signatures of both keys pass together, or neither

    class Watched(SoftwareKey):
        def __init__(self, issuer: Issuer) -> None:
            super().__init__(private_key(issuer.name))
            self.name = issuer.name

        def sign(self, tbs: bytes) -> bytes:
            first = self.name not in busy
            busy[self.name] = busy.get(self.name, 0) + 1
            if first:
                beside.wait()
            time.sleep(0.02)
            overlaps.append(busy[self.name])
            busy[self.name] -= 1
            return super().sign(tbs)

    signer = desk.new_signer(Watched)
    work = []
    for name in ("tls-dv", "tls-ov") * 3:
        serial = await desk.reserve(await desk.leaf(name), name)
        work.append(signer.sign_certificate(desk.hierarchy[name].id, serial))
    assert len(set(await asyncio.gather(*work))) == 6
    assert set(overlaps) == {1}


async def test_bytes_changed_after_signing(desk: Desk) -> None:
    """A reservation whose bytes changed since they were signed gets neither a second signature nor the first."""
    serial = await desk.reserve(await desk.leaf())
    issuer_id = desk.hierarchy["tls-dv"].id
    await desk.signer.sign_certificate(issuer_id, serial)
    await desk.fetch("update certificate set tbs = tbs || '\\x00'::bytea where serial = $1", serial)
    with pytest.raises(QuashError, match=r"signer\.reservation_changed"):
        await desk.signer.sign_certificate(issuer_id, serial)
    assert len(await desk.fetch("select from signing_log")) == 1


async def test_a_revoked_serial(desk: Desk) -> None:
    """Nothing more is signed for a serial that the world is told is revoked, though its bytes still lie there (E8)."""
    serial, act_id = await desk.reserve(await desk.leaf()), await desk.act()
    issuer_id = desk.hierarchy["tls-dv"].id
    async with desk.owner.acquire() as conn:
        await revocations.add(conn, [Revocation(issuer_id, serial, 1, 4, desk.now, desk.now, None, act_id)])
    assert (await refused(desk, serial)).code == "signer.revoked"
    assert await desk.fetch("select from signing_log") == []


async def test_a_blocked_key(desk: Desk) -> None:
    """A key that was blocked after the reservation is not certified (C9)."""
    leaf = await desk.leaf()
    serial, act_id = await desk.reserve(leaf), await desk.act()
    async with desk.owner.acquire() as conn:
        await blocked_keys.block(
            conn, leaf.columns["spki_sha256"], reason="keyCompromise", added_at=desk.now, act_id=act_id
        )
    error = await refused(desk, serial)
    assert (error.code, error.kind) == ("key.blocked", Kind.REFUSED)


@pytest.mark.parametrize("scope", ["tls-dv", None])
async def test_the_kill_switch(desk: Desk, scope: str | None) -> None:
    """Stopped alone or with all others, an issuer signs nothing (G21); the newest row of each scope counts."""
    serial = await desk.reserve(await desk.leaf())
    await desk.stop(scope)
    assert (await refused(desk, serial)).code == "signer.stopped"
    other_scope = None if scope else "tls-dv"
    await desk.stop(other_scope, stopped=False)
    assert (await refused(desk, serial)).code == "signer.stopped"
    await desk.stop("tls-ov")
    await desk.stop(scope, stopped=False)
    assert await desk.signer.sign_certificate(desk.hierarchy["tls-dv"].id, serial)


async def test_the_kill_switch_spares_ocsp_signers(desk: Desk) -> None:
    """A reservation of that profile passes the switch, and is then judged as every other one."""
    leaf = await desk.leaf()
    leaf.profile = "ocsp-signer"
    serial = await desk.reserve(leaf)
    await desk.stop(None)
    assert (await refused(desk, serial)).code == "tbs.extension"


async def test_what_was_signed_is_handed_out_when_stopped(desk: Desk) -> None:
    """The kill switch stops signing; it does not hide what was signed before, which must be revocable."""
    serial = await desk.reserve(await desk.leaf())
    made = await desk.signer.sign_certificate(desk.hierarchy["tls-dv"].id, serial)
    await desk.stop(None)
    assert await desk.signer.sign_certificate(desk.hierarchy["tls-dv"].id, serial) == made


async def test_keys_that_fail(desk: Desk) -> None:
    """A key of somebody else is never used; a key that comes back is opened again."""
    issuer_id, serial = desk.hierarchy["tls-dv"].id, await desk.reserve(await desk.leaf())
    answers: list[object] = []
    opened: list[str] = []

    def opener(issuer: Issuer) -> SoftwareKey:
        opened.append(issuer.name)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, SoftwareKey)
        return answer

    right = SoftwareKey(private_key("tls-dv"))
    signer = desk.new_signer(opener)
    for answer, code in (
        (SoftwareKey(private_key(LEAF_KEY)), "key.mismatch"),
        (KeyUnavailable("gone"), "key.unavailable"),
    ):
        answers.append(answer)
        with pytest.raises(QuashError) as caught:
            await signer.sign_certificate(issuer_id, serial)
        assert caught.value.code == code
    answers.append(right)
    assert await signer.sign_certificate(issuer_id, serial)
    assert len(opened) == 3


async def test_a_key_that_fails_while_signing_is_opened_again(desk: Desk) -> None:
    """A token that went away spends its handle; the next request opens a new one."""

    class Flaky(SoftwareKey):
        closed = False

        def sign(self, tbs: bytes) -> bytes:
            if not handles[1:]:
                raise KeyUnavailable("token removed")
            return super().sign(tbs)

        def close(self) -> None:
            self.closed = True

    handles: list[Flaky] = []

    def opener(issuer: Issuer) -> Flaky:
        handles.append(Flaky(private_key(issuer.name)))
        return handles[-1]

    signer, serial = desk.new_signer(opener), await desk.reserve(await desk.leaf())
    with pytest.raises(KeyUnavailable, match="token removed"):
        await signer.sign_certificate(desk.hierarchy["tls-dv"].id, serial)
    assert await signer.sign_certificate(desk.hierarchy["tls-dv"].id, serial)
    assert [handle.closed for handle in handles] == [True, False]


async def test_a_faulty_signature_is_not_handed_out(desk: Desk) -> None:
    """A signature that does not verify is neither logged nor returned: it may tell the key."""

    class Faulty(SoftwareKey):
        def sign(self, tbs: bytes) -> bytes:
            raw = super().sign(tbs)
            return raw[:-1] + bytes([raw[-1] ^ 1])

    signer = desk.new_signer(lambda issuer: Faulty(private_key(issuer.name)))
    serial = await desk.reserve(await desk.leaf())
    with pytest.raises(QuashError, match=r"signature\.invalid"):
        await signer.sign_certificate(desk.hierarchy["tls-dv"].id, serial)
    assert await desk.fetch("select from signing_log") == []


async def test_an_issuer_without_certificate(desk: Desk) -> None:
    """An issuer that has no certificate yet signs nothing."""
    serial = await desk.reserve(await desk.leaf())
    await desk.fetch("alter table issuer_certificate disable trigger kept")
    await desk.fetch("delete from issuer_certificate where issuer_id = $1", desk.hierarchy["tls-dv"].id)
    assert (await refused(desk, serial)).code == "signer.issuer_certificate"


async def test_revoked_issuer_issues_nothing_but_answers_and_lists(desk: Desk) -> None:
    """C3: no leaf below a revoked CA; its CRLs go on, since relying parties may not know of it yet (B6, C10)."""
    own, root = desk.hierarchy["tls-dv"], desk.hierarchy["root"]
    serial = await desk.reserve(await desk.leaf())
    crl = await desk.crl(number=1)
    async with desk.owner.acquire() as conn:
        await conn.execute("update issuer set parent = $2 where id = $1", own.id, root.id)
        await conn.execute(
            "insert into certificate"
            " (issuer_id, serial, state, profile, der, not_after, bucket, created_at, spki_sha256)"
            " values ($1, '\\x05', 'issued', 'sub-ca', $2, $3, 0, 0, $4)",
            root.id, await desk.certificate_of("tls-dv"), desk.now + 1000 * DAY, hashlib.sha256(own.spki).digest(),
        )  # fmt: skip
        act = await conn.fetchval(
            "insert into act (at, actor, action, subject) values (0, 'test', 'revoke', '{}') returning id"
        )
        await conn.execute(
            "insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id)"
            " values ($1, '\\x05', 1, 1, $2, $2, $3)", root.id, desk.now, act,
        )  # fmt: skip
    with pytest.raises(QuashError) as caught:
        await desk.signer.sign_certificate(own.id, serial)
    assert (caught.value.code, caught.value.kind) == ("signer.issuer_revoked", Kind.REFUSED)
    assert await desk.signer.sign_crl(own.id, "1", crl)
    other = await desk.reserve(await desk.leaf("tls-ov"), "tls-ov")
    assert await desk.signer.sign_certificate(desk.hierarchy["tls-ov"].id, other)
