"""Connections: settings that the rest relies on, types, and what a lost database looks like."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import re
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from quash.errors import QuashError
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store import issuing, roles
from quash.store.database import acquire, connect, owe
from quash.store.locks import kill_switch_lock, locks_to_sign, signing_locks, spki_lock, try_order_lock
from quash.store.passwords import ensure_password


async def test_every_session_commits_durably_and_looks_up_names_in_our_schema(database: Any) -> None:
    """The proof of "new since" needs synchronous commits; nobody may put a table in front of ours."""
    pool = await database.pool(roles.ADMIN)
    assert await pool.fetchval("show synchronous_commit") == "on"
    assert await pool.fetchval("show search_path") == "quash, pg_temp"
    assert await pool.fetchval("show idle_in_transaction_session_timeout") == "1min"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute("create temp table act (id bigint)")


async def test_types_come_as_python_values(database: Any) -> None:
    """jsonb, transaction numbers, snapshots and big numbers, both ways."""
    subject = {"serial": "00ff", "list": [1, None, True]}
    row = await database.owner.fetchrow(
        "select $1::jsonb as a, $2::xid8 as b, '5:9:6,8'::pg_snapshot as c, (2::numeric ^ 150) as d", subject, 2**40
    )
    assert tuple(row) == (subject, 2**40, (5, 9, (6, 8)), Decimal(2**150))


async def test_a_lost_connection_is_unavailable_and_the_next_one_is_new(database: Any, cluster: Any) -> None:
    """`store.unavailable` when the server ends our session in the middle; the pool gives a new one."""
    pool = await database.pool(roles.ADMIN)

    async def work_on_a_session_that_ends() -> None:
        async with acquire(pool) as conn:
            admin = await cluster.admin()
            await admin.execute("select pg_terminate_backend($1, 5000)", conn.get_server_pid())
            await admin.close()
            await conn.fetchval("select 1")

    with pytest.raises(QuashError) as lost:
        await work_on_a_session_that_ends()
    assert lost.value.code == "store.unavailable"
    async with acquire(pool) as conn:
        assert await conn.fetchval("select 1") == 1


async def test_no_server_is_unavailable(tmp_path: Any) -> None:
    """Nobody listens: the same code, so that callers wait and try again."""
    state = State(tmp_path)
    ensure_password(state, roles.ADMIN)
    with pytest.raises(QuashError) as lost:
        await connect(Config(), state, roles.ADMIN)
    assert lost.value.code == "store.unavailable"


async def test_errors_of_the_statement_and_of_the_caller_pass_unchanged(database: Any) -> None:
    """Only a lost database is unavailable: a wrong statement or a failed file stays what it is."""
    pool = await database.pool(roles.ADMIN)

    async def work(statement: str, error: Exception | None = None) -> None:
        async with acquire(pool) as conn:
            await conn.execute(statement)
            if error is not None:
                raise error

    with pytest.raises(asyncpg.UndefinedTableError):
        await work("select * from nothing_of_that_name")
    with pytest.raises(FileNotFoundError):
        await work("select 1", FileNotFoundError())


class _LostOnReturn:
    """A pool whose server dies while a connection is given back."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def acquire(self) -> str:
        return "connection"

    async def release(self, _conn: str) -> None:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    ],
)
async def test_a_database_lost_behind_the_work_does_not_undo_it(error: Exception) -> None:
    """What was committed is answered as done; and what went wrong before keeps its own error."""
    pool: Any = _LostOnReturn(error)
    async with acquire(pool) as conn:
        assert conn == "connection"
    with pytest.raises(QuashError, match="mine"):
        async with acquire(pool):
            raise QuashError("work.failed", "mine")


async def test_a_fault_of_ours_on_return_is_raised() -> None:
    """Only a lost database is passed over."""
    pool: Any = _LostOnReturn(asyncpg.InterfaceError("a mistake"))
    with pytest.raises(asyncpg.InterfaceError):
        async with acquire(pool):
            pass


async def test_a_pool_that_is_closed_is_unavailable(database: Any) -> None:
    """A request that outlives its process's pool is told to come again, not that something broke."""
    pool = await database.pool(roles.ADMIN)
    pool.terminate()
    with pytest.raises(QuashError) as ended:
        async with acquire(pool):
            raise AssertionError
    assert ended.value.code == "store.unavailable"


async def test_a_session_goes_back_without_its_locks(database: Any) -> None:
    """Whoever leaves an advisory lock behind, by a crash between taking and giving up, blocks nobody."""
    pool = await database.pool(roles.ADMIN)
    async with acquire(pool) as conn:
        owe(conn)
        await conn.execute("select pg_advisory_lock(7), set_config('idle_session_timeout', '30000', false)")
        session = conn.get_server_pid()
    async with database.owner.acquire() as other:
        assert await other.fetchval("select pg_try_advisory_lock(7)")
    async with acquire(pool) as conn:
        assert conn.get_server_pid() == session
        assert await conn.fetchval("show idle_session_timeout") == "0"


@pytest.mark.parametrize("looks", [True, False])
async def test_whoever_is_cut_off_at_a_lock_leaves_none(database: Any, looks: bool) -> None:
    """Cancelled while it waits for the second of two, or while it gives a lock up: the pool sees to the rest."""
    pool, other = await database.pool(roles.ISSUING), await database.connection()
    digest = bytes(32)

    async def sign(inside: asyncio.Event) -> None:
        taking = locks_to_sign if looks else signing_locks
        async with acquire(pool) as conn, taking(conn, digest) as locks:
            if locks is not None:
                await issuing.obstacles(conn, locks, 1, digest, None)
            inside.set()
            await asyncio.sleep(60)

    for ahead in (True, False):
        inside = asyncio.Event()
        async with spki_lock(other, digest) if ahead else contextlib.nullcontext():
            task = asyncio.create_task(sign(inside))
            await asyncio.sleep(0.2) if ahead else await inside.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(10):
            async with kill_switch_lock(other, stop=True), spki_lock(other, digest):
                pass


async def test_a_session_that_owes_nothing_goes_back_without_a_question(database: Any) -> None:
    """Also after a lock that was given up: each question would be one of some twenty that an order asks."""
    pool = await database.pool(roles.ISSUING)
    queries: list[str] = []
    async with acquire(pool) as conn:
        conn.add_query_logger(lambda record: queries.append(record.query))
        async with try_order_lock(conn, UUID(int=1)):
            pass
    assert [query for query in queries if "unlock_all" in query] == []
    assert len(queries) == 2


# Advisory locks and settings that a transaction does not end; `set local` is none.
TAKING = re.compile(
    r"pg_(try_)?advisory_lock|set_config\(|\blisten \"|\bset (session|role) |\breset role\b|\bwith hold\b"
    r"|\bset (synchronous_commit|search_path|\w+_timeout|work_mem|enable_\w+) *(=|to) ",
    re.IGNORECASE,
)


def functions_that_take(file: Path) -> dict[str, str]:
    """Functions, innermost, that take something of a session by what they ask, with their text."""
    text = file.read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = ast.get_source_segment(text, node) or ""
            if TAKING.search(body):
                found[node.name] = body
    return found


def test_whoever_takes_what_outlives_a_transaction_says_so() -> None:
    """A pool puts in order those sessions alone that are said to owe it; who locks for a transaction owes nothing."""
    root = Path(__file__).parents[3]
    files = [file for package in ("quash", "issuer", "crlgen", "responder") for file in (root / package).rglob("*.py")]
    takers = {file for file in files if TAKING.search(file.read_text(encoding="utf-8"))}
    # The last has a connection of its own, outside of any pool.
    assert {str(file.relative_to(root)) for file in takers} == {
        f"quash/store/{name}.py" for name in ("leases", "locks", "reports", "migrate")
    }
    taking = {
        name: body for file in takers if file.name != "migrate.py" for name, body in functions_that_take(file).items()
    }
    assert len(taking) >= 6
    assert {name for name, body in taking.items() if "owe(" not in body and "_having(" not in body} == set()
    # Nor does a function of the database take something behind our backs, but the one that `locks_to_sign` is for.
    migrations = (root / "quash/store/migrations").glob("*.sql")
    assert {file.name for file in migrations if re.search(r"advisory_lock|set_config\(", file.read_text())} == {
        "0076_locks_to_sign.sql"
    }
    callers = [file.name for file in files if "obstacles_under_locks(" in file.read_text(encoding="utf-8")]
    assert callers == ["issuing.py"]
