"""The process `ca-signer`: ready with its keys, serving on its socket, within its own database role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from issuer.signer.main import SOCKET, main
from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.crl import tbs_cert_list
from quash.runtime import rpc
from quash.runtime.process import Process
from quash.store.passwords import password_file
from quash.store.roles import CA_SIGNER
from tests.support.initialising import Made


@pytest.fixture
async def process(deployment: Made, database: Any, no_lint: None) -> Process:
    """A process of an initialised deployment, not started yet."""
    await deployment.make()
    password = password_file(database.state, CA_SIGNER).read_bytes()
    deployment.state.write_secret(password_file(deployment.state, CA_SIGNER), password)
    config = deployment.deployment.config
    return Process("ca-signer", config, deployment.state, clock=deployment.clock)


@asynccontextmanager
async def running(process: Process) -> AsyncIterator[None]:
    task = asyncio.create_task(main(process))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nothing signals health
            await asyncio.sleep(0.01)


async def sign_crl(made: Made, number: int) -> tuple[bytes, bytes, bytes]:
    """Asks the process for shard 0's CRL; returns signature, TBS and the issuer's SPKI."""
    ((issuer_id, subject, spki),) = await made.fetch("select id, subject, spki from issuer where name = 'tls-dv'")
    own = made.certificate("tls-dv")
    tbs = tbs_cert_list(
        algorithm=SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"],
        issuer=subject,
        this_update=int(made.clock.now()),
        next_update=int(made.clock.now()) + 86_400,
        entries=[],
        authority_key_id=next(each.value.digest for each in own.extensions if each.oid.dotted_string == "2.5.29.14"),
        number=number,
        idp_urls=("http://127.0.0.1:8081/tls-dv/0.crl",),
        only="user",
    )
    request = {"type": "crl", "issuer_id": issuer_id, "scope": "0"}
    _, raw = await rpc.call(made.state.run / SOCKET, request, tbs, timeout=10)
    return raw, tbs, spki


async def test_signs_with_the_keys_that_init_made(process: Process, deployment: Made) -> None:
    """Ready once its keys are open; what it signs verifies; the root's key is not its own."""
    async with running(process):
        await until(lambda: process.health.ready)
        raw, tbs, spki = await sign_crl(deployment, 1)
        verify(spki, SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"], raw, tbs)
        ((root, ref),) = await deployment.fetch("select id, key_ref from issuer where name = 'root'")
        assert ref is None
        with pytest.raises(QuashError) as caught:
            await rpc.call(
                deployment.state.run / SOCKET, {"type": "crl", "issuer_id": root, "scope": "full"}, timeout=10
            )
        assert caught.value.code == "crl.malformed"


async def test_not_ready_without_its_keys(process: Process, deployment: Made) -> None:
    """Without a key it says which one, stays up, and is ready when the key is back."""
    key = deployment.state.keys / "ca" / "tls-dv.pem"
    key.rename(key.with_suffix(".away"))
    async with running(process):
        await until(lambda: "tls-dv.pem" in str(process.health.report()))
        assert not process.health.ready
        with pytest.raises(QuashError, match=r"key\.unavailable"):
            await sign_crl(deployment, 1)
        key.with_suffix(".away").rename(key)
        assert await sign_crl(deployment, 1)
        await deployment.clock.advance(5)
        await until(lambda: process.health.ready)
