"""Migrations: applied once, in order, each whole or not at all, and never edited afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from quash.errors import QuashError
from quash.store import operators
from quash.store.migrate import Migration, migrate, shipped
from quash.store.operators import Operator

NEW = Migration(9000, "more", "create table more (id bigint primary key)")
BROKEN = Migration(9001, "broken", "create table half (id bigint); select 1 / 0")


def test_the_files_are_numbered_once_each() -> None:
    """No two files share a number, and the first makes the foundation."""
    versions = [migration.version for migration in shipped()]
    assert versions == sorted(set(versions))
    assert versions[0] == 1


LANDED = {1, 2, 3, 4, 5, 6, 10, 11, 20, 30, 31, 32, 33, 34, 40, 41}
"""What the states of the first release have. Later files must come after these, or those states cannot be upgraded."""


def test_no_file_was_slipped_in_below_those_of_the_first_release() -> None:
    """A new file has a higher number than every released one (`store.migration_out_of_order`)."""
    versions = {migration.version for migration in shipped()}
    assert {version for version in versions if version <= max(LANDED)} == LANDED


async def test_a_second_run_changes_nothing(database: Any) -> None:
    """All that this release ships is applied by `init`; again there is nothing to do."""
    conn = await database.connection()
    assert await migrate(conn, 1) == []
    rows = await conn.fetch("select version, sha256 from schema_migration order by version")
    assert [tuple(row) for row in rows] == [(migration.version, migration.sha256) for migration in shipped()]


async def test_a_new_file_is_applied_once(database: Any) -> None:
    """The next release's file comes on top, with its time from the caller's clock."""
    conn = await database.connection()
    assert await migrate(conn, 1234, migrations=[*shipped(), NEW]) == [NEW]
    assert await migrate(conn, 5678, migrations=[*shipped(), NEW]) == []
    assert await conn.fetchval("select applied_at from schema_migration where version = 9000") == 1234


async def test_two_runs_at_once_wait_for_each_other(database: Any) -> None:
    """Two machines that start a new release together apply each file once."""
    runs = [migrate(await database.connection(), 1, migrations=[*shipped(), NEW]) for _ in range(3)]
    assert sorted(await asyncio.gather(*runs), key=len) == [[], [], [NEW]]


async def test_an_edited_file_is_refused(database: Any) -> None:
    """The SHA-256 of an applied file counts, down to its comments."""
    first, *rest = shipped()
    edited = Migration(first.version, first.name, first.sql + "-- harmless\n")
    with pytest.raises(QuashError) as refused:
        await migrate(await database.connection(), 1, migrations=[edited, *rest, NEW])
    assert refused.value.code == "store.migration_changed"
    assert await database.owner.fetchval("select to_regclass('more')") is None


async def test_a_newer_schema_is_refused(database: Any) -> None:
    """An older release does not touch the schema of a newer one."""
    conn = await database.connection()
    await migrate(conn, 1, migrations=[*shipped(), NEW])
    with pytest.raises(QuashError) as refused:
        await migrate(conn, 2)
    assert refused.value.code == "store.schema_newer"


async def test_a_file_that_comes_late_with_a_low_number_is_refused(database: Any) -> None:
    """Machines that applied the later one first would differ from all others."""
    conn = await database.connection()
    await migrate(conn, 1, migrations=[*shipped(), NEW])
    between = Migration(8999, "between", "select 1")
    with pytest.raises(QuashError) as refused:
        await migrate(conn, 2, migrations=[*shipped(), between, NEW])
    assert refused.value.code == "store.migration_out_of_order"


async def test_a_file_that_fails_leaves_nothing_and_can_be_applied_later(database: Any) -> None:
    """One transaction each: those before it stay, of itself nothing stays, and the lock is free again."""
    conn = await database.connection()
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(conn, 1, migrations=[*shipped(), NEW, BROKEN])
    assert await conn.fetchval("select to_regclass('half')") is None
    mended = Migration(9001, "broken", "create table half (id bigint)")
    assert await migrate(await database.connection(), 2, migrations=[*shipped(), NEW, mended]) == [mended]


async def test_the_first_operators_of_an_older_release_become_persons_of_their_own(database: Any) -> None:
    """Migration 74: what `init` wrote for four of them, and nobody else's name."""
    conn = await database.connection()
    held = {"operator": "made by quash init", "officer": "made by quash init", "auditor": "Ann Example"}
    for number, (role, person) in enumerate(held.items()):
        await operators.add(conn, Operator(bytes([number] * 32), role, person, role, "active"), 0)
    (sql,) = (migration.sql for migration in shipped() if migration.version == 74)
    await conn.execute(sql)
    assert {each.name: each.person for each in await operators.everyone(conn)} == {
        "operator": "made by quash init as the operator",
        "officer": "made by quash init as the officer",
        "auditor": "Ann Example",
    }
