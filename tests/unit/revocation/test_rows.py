"""Rows that flow 2 leaves to others: demands for CRLs, operators, and what no role may change."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from quash.pki.reasons import Reason
from quash.runtime.clock import FakeClock
from quash.store import crl_demands, crls, operators
from quash.store.database import acquire
from quash.store.operators import Operator
from quash.store.roles import ADMIN, CRL_BUILDER, FOLLOWER, ISSUING, JOBS, OWNER, PRESIGNER
from tests.support.public import Public
from tests.support.revoking import World, key_hash


async def test_demand_makes_a_scope_due_until_a_crl_covers_it(world: World, database: Any, clock: FakeClock) -> None:
    """A demand counts as dirty for the builder's role until a CRL that began after it is published."""
    public = Public(world)
    builder = await database.pool(CRL_BUILDER)

    async def dirty() -> dict[str, int | None]:
        async with acquire(builder) as conn:
            return {state.scope.issuer: state.dirty_since for state in await crls.states(conn)}

    for issuer in ("alpha", "beta"):
        await public.publish(issuer, 1, [])
    assert await dirty() == {"alpha": None, "beta": None}
    async with acquire(world.pool) as conn:
        scope = await crls.find_scope(conn, world.authorities["alpha"].id, None)
        assert scope is not None
        async with conn.transaction():
            await crl_demands.add(conn, [scope], actor="operator:test", at=world.now)
    assert await dirty() == {"alpha": world.now, "beta": None}
    key = await world.certificate("beta")
    clock.step(10)
    await world.revoke(key)
    assert await dirty() == {"alpha": world.now - 10, "beta": world.now}
    await public.publish("alpha", 2, [])
    assert await dirty() == {"alpha": None, "beta": world.now}


async def test_operators_are_registered_once_and_disabled(world: World) -> None:
    """A fingerprint has one row; disabling is visible at once, and nobody else can be disabled."""
    operator = Operator(bytes(32), "anna", "Anna Example", "officer", "active")
    async with acquire(world.owner) as conn:
        await operators.add(conn, operator, world.now)
        await operators.add(conn, Operator(bytes(32), "other", "Other", "viewer", "active"), world.now)
        assert await operators.everyone(conn) == [operator]
        assert await operators.set_state(conn, bytes(32), "disabled")
        assert not await operators.set_state(conn, b"\x01" * 32, "disabled")
        found = await operators.find(conn, bytes(32))
    assert found is not None
    assert not found.active


async def test_no_role_changes_what_is_recorded(world: World, database: Any) -> None:
    """Neither any process's role nor the owner can update, delete or truncate revocations, acts and blocked keys."""
    key = await world.certificate(spki=key_hash())
    await world.revoke(key, Reason.keyCompromise)
    before = await world.counts()
    for role in (ADMIN, JOBS, ISSUING, CRL_BUILDER, PRESIGNER, FOLLOWER, OWNER):
        conn = await database.connection(role)
        for table, column in (("revocation", "reason"), ("act", "actor"), ("blocked_key", "reason")):
            for statement in (
                f"update {table} set {column} = {column}",
                f"delete from {table}",
                f"truncate {table} cascade",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.execute(statement)
    assert await world.counts() == before
