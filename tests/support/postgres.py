"""One PostgreSQL for a test run, and empty databases for its tests.

Making a database costs a third of a second, emptying one a hundredth. So a database is emptied after its test and used
again, unless the test changed its schema or rights: then it is dropped.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.database import Connection, Pool, connect, connect_once
from quash.store.embedded import SUPERUSER, EmbeddedPostgres
from quash.store.passwords import read_password
from quash.store.roles import OWNER, ROLES

TEMPLATE = "quash"  # what `quash init` makes

# Everything in the schema that a test may not change when others shall use the database after it. Partitions are data.
_FINGERPRINT = """
with kept as (
    select * from pg_class
    where relnamespace = 'quash'::regnamespace and relkind in ('r', 'p', 'v', 'S') and relname !~ '^feed_[0-9]'
)
select md5(string_agg(x::text, ',' order by x::text)) from (
    select (oid, relname, relacl) from kept
    union all select (attrelid, attname, attacl) from pg_attribute where attrelid in (select oid from kept)
    union all select (tgrelid, tgname, tgenabled) from pg_trigger where tgrelid in (select oid from kept)
    union all select (oid, proname, proacl) from pg_proc where pronamespace = 'quash'::regnamespace
) as everything (x)
"""
# As the superuser, without triggers: the append-only tables refuse even their owner.
_EMPTY = """
set search_path to quash;
set session_replication_role to replica;
do $$
declare
    t text;
    seen bigint;
begin
    for t in select tablename from pg_tables where schemaname = 'quash' and tablename ~ '^feed_[0-9]' loop
        execute format('drop table %I', t);
    end loop;
    for t in select tablename from pg_tables where schemaname = 'quash' and tablename <> 'schema_migration' loop
        execute format('select count(*) from (select from %I limit 500) x', t) into seen;
        if seen = 500 then
            execute format('truncate %I cascade', t);
        elsif seen > 0 then  -- truncating makes new files, which takes longer than deleting a few rows
            execute format('delete from %I', t);
        end if;
    end loop;
    perform setval(seqrelid::regclass, 1, false) from pg_sequence where pg_sequence_last_value(seqrelid) is not null;
end $$;
"""


@contextlib.contextmanager
def folder_for_servers() -> Iterator[Path]:
    """A folder for the state of an embedded PostgreSQL, removed afterwards.

    Not pytest's own: each pytest that starts sets the mode of its parent folder anew, which takes the way to the data
    away from the user whom a server of root's runs as.
    """
    folder = Path(tempfile.mkdtemp(prefix="quash-test-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Database:
    """An empty database with all migrations and roles. What is opened here is closed after the test."""

    config: Config
    """Names this database: hand it to code that connects by itself, together with `state`."""
    state: State
    """Of the server: holds the roles' passwords."""
    owner: Pool
    """A pool of quash_owner, who may do everything except change append-only tables."""
    _pools: list[Pool] = field(default_factory=list)
    _connections: list[asyncpg.Connection] = field(default_factory=list)

    async def pool(self, role: str) -> Pool:
        """A new pool of a role, for example `await database.pool("quash_presigner")`."""
        pool = await connect(self.config, self.state, role)
        self._pools.append(pool)
        return pool

    async def connection(self, role: str = OWNER) -> Connection:
        """One connection outside of any pool, for a session with a life of its own."""
        conn = await connect_once(self.config, self.state, role)
        self._connections.append(conn)
        return conn

    async def close(self) -> None:
        for conn in self._connections:
            conn.terminate()
        for pool in [*self._pools, self.owner]:
            pool.terminate()


@dataclass
class Cluster:
    """The run's one server (one for each xdist worker)."""

    state: State
    postgres: EmbeddedPostgres
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _free: list[str] = field(default_factory=list)
    _schema: str = ""
    _seeds: dict[str, str] = field(default_factory=dict)

    async def admin(self, database: str = "postgres") -> asyncpg.Connection:
        """A connection of the superuser."""
        return await asyncpg.connect(
            host=str(self.postgres.socket_folder),
            port=5432,
            user=SUPERUSER,
            password=read_password(self.state, SUPERUSER),
            database=database,
        )

    async def take(self) -> tuple[str, Database]:
        """An empty database, and its name for `give_back`."""
        name = self._free.pop() if self._free else await self._create()
        url = f"postgresql:///{name}?host={self.postgres.socket_folder}&port=5432"
        config = Config.model_validate({"database": {"url": url}})
        return name, Database(config, self.state, await connect(config, self.state, OWNER))

    async def give_back(self, name: str) -> None:
        """Ends the database's sessions; empties it for the next test, or drops it when its schema is another now."""
        admin = await self.admin(name)
        try:
            await admin.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            same = await admin.fetchval(_FINGERPRINT) == self._schema
            if same:
                await self._empty(admin)
                self._free.append(name)
        finally:
            await admin.close()
        if not same:
            await self._run(f"drop database {name} with (force)")

    async def _create(self) -> str:
        if not self._schema:
            await self._learn()
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        await self._run(
            f"create database {name} template {TEMPLATE} strategy file_copy",
            f"revoke all on database {name} from public",
            f"grant connect, temporary, create on database {name} to {OWNER}",
            f"grant connect on database {name} to {', '.join(role for role in ROLES if role != OWNER)}",
        )
        return name

    async def _learn(self) -> None:
        """What an empty database is: its schema, and the rows that migrations put in."""
        admin = await self.admin(TEMPLATE)
        try:
            self._schema = await admin.fetchval(_FINGERPRINT)
            for (table,) in await admin.fetch("select tablename from pg_tables where schemaname = 'quash'"):
                rows: Any = await admin.fetchval(f"select json_agg(t)::text from quash.{table} t")
                if rows is not None and table != "schema_migration":
                    self._seeds[table] = rows
        finally:
            await admin.close()

    async def _empty(self, admin: asyncpg.Connection) -> None:
        await admin.execute(_EMPTY)
        for table, rows in self._seeds.items():
            await admin.execute(
                f"insert into {table} overriding system value select * from json_populate_recordset(null::{table}, $1)",
                rows,
            )

    async def _run(self, *statements: str) -> None:
        admin = await self.admin()
        try:
            for statement in statements:
                await admin.execute(statement)
        finally:
            await admin.close()
