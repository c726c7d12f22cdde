"""Issuing against blocking the key and against the kill switch: never neither, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any

import pytest

from issuer.revocation.find import Target
from issuer.revocation.revoke import Request, revoke
from quash.errors import QuashError
from quash.pki.reasons import Reason
from quash.store import acts, blocked_keys, issuers
from quash.store.database import Pool, acquire
from quash.store.locks import kill_switch_lock, spki_lock
from quash.store.orders import Order
from quash.store.roles import ADMIN
from tests.support.issuing import World, make_csr, private_key, spki_of

ROUNDS = 25


@pytest.fixture
async def admin(database: Any) -> Pool:
    return await database.pool(ADMIN)


async def _issue(world: World, key: str) -> Order:
    issuance = world.issuance()
    order = await issuance.submit("operator:ann", "tls-dv", make_csr(key=private_key(key)))
    return await issuance.finish(order.id, timeout=0)


async def _compromise(world: World, admin: Pool, order: Order) -> None:
    """Flow 2 for an issued certificate, with reason keyCompromise."""
    async with acquire(admin) as conn:
        request = Request(Target("tls-dv", order.serial), Reason.keyCompromise)
        await revoke(conn, world.clock, request, actor="operator:bob", batch=1000)


async def test_no_certificate_escapes_the_block_of_its_key(world: World, admin: Pool) -> None:
    """Orders for one key race its compromise: in the end each serial of the key is revoked for keyCompromise."""
    seen = set()
    for seed in range(ROUNDS):
        seen |= await _race(world, admin, seed)
    assert seen >= {"issued", "key.blocked"}  # the rounds reached both ways in which it can end


async def _race(world: World, admin: Pool, seed: int) -> set[str]:
    chance = random.Random(seed)
    key = f"race {seed}"
    first = await _issue(world, key)
    refused = set()

    async def order() -> None:
        await asyncio.sleep(chance.random() * 0.03)
        try:
            refused.add((await _issue(world, key)).code)
        except QuashError as error:
            refused.add(error.code)

    async def compromise() -> None:
        await asyncio.sleep(chance.random() * 0.05)
        await _compromise(world, admin, first)

    await asyncio.gather(compromise(), *(order() for _ in range(6)))

    # The last: as a sibling, between T3 and its release.
    assert refused <= {None, "key.blocked", "certificate.revoked"}
    rows = await world.fetch(
        "select c.state, r.reason from certificate c left join revocation r using (issuer_id, serial)"
        " where c.spki_sha256 = $1",
        hashlib.sha256(spki_of(private_key(key))).digest(),
    )
    assert {row["reason"] for row in rows} == {Reason.keyCompromise}
    return {row["state"] for row in rows} | {code for code in refused if code}


async def test_blocking_waits_for_a_certificate_under_way_and_then_revokes_it(world: World, admin: Pool) -> None:
    """While the CA signer works, the compromise of the key waits; after T3 it finds the certificate as a sibling."""
    first = await _issue(world, "under way")
    compromise: list[asyncio.Task[None]] = []

    async def sign(issuer_id: int, serial: bytes) -> bytes:
        compromise.append(asyncio.create_task(_compromise(world, admin, first)))
        await _until_waiting(world)
        return await world.signer.sign_certificate(issuer_id, serial)

    issuance = world.issuance(sign=sign)
    order = await issuance.submit("operator:ann", "tls-dv", make_csr(key=private_key("under way")))
    order = await issuance.advance(order.id)
    await compromise[0]
    rows = await world.fetch("select reason from revocation where serial = $1", order.serial)
    assert [row["reason"] for row in rows] == [Reason.keyCompromise]


async def test_issuing_waits_for_a_block_under_way_and_then_refuses(world: World) -> None:
    """Blocking holds the lock, T1 is done: the re-check sees the blocked key, nothing is signed, the serial revoked."""
    key = private_key("blocked")
    digest = hashlib.sha256(spki_of(key)).digest()
    issuance = world.issuance()
    order = await issuance.submit("operator:ann", "tls-dv", make_csr(key=key))
    async with world.owner.acquire() as conn:
        async with spki_lock(conn, digest):
            under_way = asyncio.create_task(issuance.advance(order.id))
            await _until_waiting(world)
            async with conn.transaction():
                act = await acts.record(conn, at=1, actor="operator:bob", action="test", subject={})
                await blocked_keys.block(conn, digest, reason="keyCompromise", added_at=1, act_id=act)
        order = await under_way
    assert (order.state, order.code) == ("refused", "key.blocked")
    assert await world.fetch("select from signing_log") == []
    (row,) = await world.fetch(
        "select r.reason, c.state from revocation r join certificate c using (issuer_id, serial)"
    )
    assert tuple(row) == (Reason.keyCompromise, "reserved")


async def test_nothing_is_signed_after_the_kill_switch(world: World) -> None:
    """G21: when a stop has committed under its lock, an order at its last check is refused and its serial revoked."""
    issuance = world.issuance()
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    async with world.owner.acquire() as conn:
        async with kill_switch_lock(conn, stop=True):
            under_way = asyncio.create_task(issuance.advance(order.id))
            await _until_waiting(world)
            async with conn.transaction():
                act = await acts.record(conn, at=1, actor="operator:bob", action="test", subject={})
                await issuers.set_stopped(conn, None, stopped=True, at=1, act_id=act)
        order = await under_way
    assert (order.state, order.code) == ("refused", "issuance.stopped")
    assert await world.fetch("select from signing_log") == []
    (row,) = await world.fetch("select reason from revocation")
    assert row["reason"] == Reason.superseded


async def test_orders_do_not_wait_for_each_other_at_the_kill_switch(world: World) -> None:
    """Signing holds the kill switch's lock shared: one order passes another that waits for its signer."""
    inner: list[Order] = []

    async def sign(issuer_id: int, serial: bytes) -> bytes:
        inner.append(await asyncio.wait_for(_issue(world, "another"), 20))
        return await world.signer.sign_certificate(issuer_id, serial)

    issuance = world.issuance(sign=sign)
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    assert (await issuance.advance(order.id)).state == "issued"
    assert inner[0].state == "issued"


async def _until_waiting(world: World) -> None:
    """Until some session waits for an advisory lock."""
    async with asyncio.timeout(20):
        while not await world.fetch("select from pg_locks where locktype = 'advisory' and not granted"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
