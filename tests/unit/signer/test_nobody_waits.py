"""Who throws the kill switch, or blocks a key, waits for no linter and no stranger of a ceremony (G21, C9)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import issuer.signer.ceremony
import issuer.signer.rotation
from issuer.checks.keys import PwnedKeysClient
from issuer.revocation import kill_switch
from issuer.signer.external import sign_sub_ca
from issuer.signer.rotation import Rotation
from quash.errors import QuashError
from quash.runtime.config import Checks
from quash.store import acts, blocked_keys
from quash.store.database import acquire
from quash.store.locks import spki_lock
from quash.store.operators import Operator
from tests.support.initialising import Made
from tests.support.issuing import spki_of
from tests.unit.signer import test_external, test_rotation
from tests.unit.signer.test_external import asked

eca, clock = test_external.eca, test_external.clock
rotation, ask = test_rotation.rotation, test_rotation.ask
ANN = Operator(b"\1" * 32, "ann", "Ann Smith", "officer", "active")
AT_ONCE = 2
"""Seconds; a linter may take sixty."""


class Slow:
    """A linter or a stranger that takes as long as the test wants."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def __call__(self, *_: object, **__: object) -> None:
        self.begun.set()
        await self.may_end.wait()

    @asynccontextmanager
    async def meanwhile(self, work: Awaitable[Any]) -> AsyncIterator[asyncio.Task[Any]]:
        """The block runs while it is at work; the task goes on afterwards."""
        task = asyncio.ensure_future(work)
        await asyncio.wait_for(self.begun.wait(), 20)
        try:
            async with asyncio.timeout(AT_ONCE):
                yield task
        finally:
            self.may_end.set()
            await asyncio.wait([task])


def a_linter(patch: pytest.MonkeyPatch, slow: Slow) -> None:
    patch.setattr(issuer.signer.ceremony, "lint_before_signing", slow)


def a_stranger(patch: pytest.MonkeyPatch, slow: Slow) -> None:
    patch.setattr(PwnedKeysClient, "check", slow)


@pytest.mark.parametrize("who", [a_linter, a_stranger])
async def test_a_ceremony_s_kill_switch(
    eca: Made, monkeypatch: pytest.MonkeyPatch, who: Callable[[pytest.MonkeyPatch, Slow], None]
) -> None:
    """It is thrown at once while a linter or a service of strangers is asked, and then nothing is signed."""
    slow = Slow()
    who(monkeypatch, slow)
    checks = Checks.model_validate({"pwnedkeys": {"url": "http://127.0.0.1:9"}} if who is a_stranger else {})
    asking = replace(eca.deployment, config=eca.deployment.config.model_copy(update={"checks": checks}))
    async with slow.meanwhile(sign_sub_ca(asking, asked())) as signing, acquire(eca.deployment.pool) as conn:
        await kill_switch.stop(conn, ANN, None, "intrusion", eca.deployment.now())
    with pytest.raises(QuashError, match=r"signer\.stopped"):
        await signing


async def test_a_ceremony_s_key_that_is_blocked_meanwhile(eca: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock is free while linters look; under it the key is looked at again, and no serial is reserved."""
    slow, key = Slow(), ec.generate_private_key(ec.SECP384R1())
    a_linter(monkeypatch, slow)
    before = await eca.fetch("select count(*) from certificate")
    digest = hashlib.sha256(spki_of(key)).digest()
    async with (
        slow.meanwhile(sign_sub_ca(eca.deployment, asked(key))) as signing,
        acquire(eca.deployment.pool) as conn,
        spki_lock(conn, digest),
        conn.transaction(),
    ):
        now = eca.deployment.now()
        act_id = await acts.record(conn, at=now, actor="test", action="test", subject={})
        await blocked_keys.block(conn, digest, reason="keyCompromise", added_at=now, act_id=act_id)
    with pytest.raises(QuashError, match=r"key\.blocked"):
        await signing
    assert await eca.fetch("select count(*) from certificate") == before


async def test_an_ocsp_signer_s_renewal(
    deployment: Made, rotation: Rotation, ask: test_rotation.Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Likewise; answers go on when issuance stops, so it is granted all the same."""
    slow = Slow()
    monkeypatch.setattr(issuer.signer.rotation, "lint_before_signing", slow)
    deployment.clock.step(15 * test_rotation.DAY)
    request = await ask()
    async with slow.meanwhile(rotation.step()) as step, acquire(deployment.deployment.pool) as conn:
        await kill_switch.stop(conn, ANN, None, "intrusion", deployment.deployment.now())
    assert await step == 1
    assert await test_rotation.state_of(deployment, request) == ("done", None)
