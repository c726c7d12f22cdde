"""Leases: one holder at a time, and a holder that was paused writes nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from quash.errors import QuashError
from quash.store import leases, roles
from quash.store.leases import Holder, Lease

NAME = "presigner"


async def held(conn: Any) -> Lease:
    lease = await Lease.acquire(conn, NAME)
    assert lease is not None
    return lease


async def cut(conn: Any, cluster: Any) -> None:
    """Ends a session on the server, as a lost network does; its client learns nothing until it asks."""
    admin = await cluster.admin()
    try:
        await admin.execute("select pg_terminate_backend($1, 5000)", conn.get_server_pid())
    finally:
        await admin.close()


async def test_only_one_holds_it(database: Any) -> None:
    """A second one is told at once, and gets it when the first lets go; other names are free."""
    one, two = await database.connection(roles.PRESIGNER), await database.connection(roles.PRESIGNER)
    first = await held(one)
    assert await Lease.acquire(two, NAME) is None
    assert await Lease.acquire(two, "another") is not None
    await first.release()
    second = await held(two)
    assert second.fence > first.fence


@pytest.mark.parametrize("role", [roles.PRESIGNER, roles.CRL_BUILDER, roles.JOBS])
async def test_the_roles_that_need_leases_may_hold_them(database: Any, role: str) -> None:
    """Taking and checking needs only the rights that the role has."""
    conn = await database.connection(role)
    lease = await held(conn)
    async with conn.transaction():
        await lease.check(conn)


async def test_a_paused_holder_is_fenced(database: Any, cluster: Any) -> None:
    """Its session was lost and another took over while it slept: its next transaction fails and writes nothing."""
    session, writing, other = [await database.connection() for _ in range(3)]
    paused = await held(session)
    await cut(session, cluster)
    new = await held(other)

    async def wake_up_and_write() -> None:
        async with writing.transaction():
            await writing.execute("insert into act (at, actor, action, subject) values (1, 'paused', 'x', '{}')")
            await paused.check(writing)

    with pytest.raises(QuashError) as lost:
        await wake_up_and_write()
    assert lost.value.code == "lease.lost"
    async with writing.transaction():
        await new.check(writing)
    assert await writing.fetchval("select count(*) from act") == 0


async def test_a_new_holder_waits_for_what_was_checked(database: Any, cluster: Any) -> None:
    """A transaction that was checked before the session got lost commits before the next holder begins."""
    session, writing, other = [await database.connection() for _ in range(3)]
    old = await held(session)
    transaction = writing.transaction()
    await transaction.start()
    await old.check(writing)
    await cut(session, cluster)
    taking = asyncio.create_task(Lease.acquire(other, NAME))
    await asyncio.sleep(0.1)
    assert not taking.done()
    await writing.execute("insert into act (at, actor, action, subject) values (1, 'old', 'x', '{}')")
    await transaction.commit()
    new = await taking
    assert new is not None
    assert await other.fetchval("select count(*) from act") == 1


async def test_checking_outside_of_a_transaction_is_a_mistake(database: Any) -> None:
    """It would prove nothing about the statement after it."""
    conn = await database.connection()
    lease = await held(conn)
    with pytest.raises(RuntimeError):
        await lease.check(conn)


async def test_a_holder_takes_the_lease_again_after_its_session_was_lost(database: Any, cluster: Any) -> None:
    """A component asks before each step: it keeps its lease, and gets a new one with a higher fence."""
    pool = await database.pool(roles.PRESIGNER)
    holder = Holder(pool, NAME)
    first = await holder.hold()
    assert first is not None
    assert await holder.hold() is first
    assert await Holder(pool, NAME).hold() is None
    ended = asyncio.Event()
    first._session.add_termination_listener(lambda _: ended.set())
    await cut(first._session, cluster)
    async with asyncio.timeout(5):
        await ended.wait()
    assert first.lost
    second = await holder.hold()
    assert second is not None
    assert second.fence > first.fence
    await holder.let_go()
    third = await Holder(pool, NAME).hold()
    assert third is not None


async def test_a_silent_holder_loses_the_lease_and_a_keeping_one_does_not(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself ends a session that says nothing, though its connection stands; nobody else has to notice."""
    monkeypatch.setattr(leases, "SILENCE", 1.0)
    monkeypatch.setattr(leases, "_BEAT", 0.2)
    one, two = await database.connection(), await database.connection()
    first = await held(one)
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(2.5)
    assert await Lease.acquire(two, NAME) is None
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    async with asyncio.timeout(30):
        while (second := await Lease.acquire(two, NAME)) is None:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.05)
    assert second.fence > first.fence
    async with asyncio.timeout(30):
        while not first.lost:  # noqa: ASYNC110 - nor for this
            await asyncio.sleep(0.05)


async def test_what_a_holder_left_open_is_ended(database: Any, monkeypatch: pytest.MonkeyPatch, cluster: Any) -> None:
    """Stopped while it copies rows under its fence, which no time-out of the server's ends, it holds up nobody."""
    monkeypatch.setattr(leases, "STRAGGLING", 0.3)
    session, writing, other = [await database.connection() for _ in range(3)]
    old = await held(session)
    begun = asyncio.Event()

    async def stops() -> AsyncIterator[bytes]:
        yield b"1\told\tx\t{}\n"
        begun.set()
        await asyncio.Event().wait()

    async def write() -> None:
        async with writing.transaction():
            await old.check(writing)
            columns = ("at", "actor", "action", "subject")
            await writing.copy_to_table("act", schema_name="quash", columns=columns, source=stops(), timeout=60)

    copying = asyncio.create_task(write())
    await begun.wait()
    await cut(session, cluster)
    async with asyncio.timeout(10):
        new = await held(other)
    assert new.fence > old.fence
    assert await other.fetchval("select count(*) from act") == 0
    copying.cancel()
    await asyncio.gather(copying, return_exceptions=True)


async def test_a_holder_keeps_its_lease_as_long_as_it_runs(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while one step of its component takes longer than the server waits for a silent one."""
    monkeypatch.setattr(leases, "SILENCE", 1.0)
    monkeypatch.setattr(leases, "_BEAT", 0.2)
    pool = await database.pool(roles.CRL_BUILDER)
    holder = Holder(pool, NAME)
    lease = await holder.hold()
    await asyncio.sleep(2.5)
    assert await holder.hold() is lease
    assert await Holder(pool, NAME).hold() is None
    await holder.let_go()
    async with pool.acquire() as conn:
        assert await conn.fetchval("show idle_session_timeout") == "0"
