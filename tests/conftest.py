"""Fixtures that every test shares: a real PostgreSQL with all migrations and roles, and a clock that tests move."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.database import Connection, Pool, connect, connect_once
from quash.store.embedded import SUPERUSER, EmbeddedPostgres
from quash.store.passwords import read_password
from quash.store.roles import OWNER, ROLES
from quash.store.setup import set_up

TEMPLATE = "quash"  # what `quash init` makes; each test gets a copy
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until the test moves it."""
    return FakeClock()


@dataclass
class Database:
    """A fresh database of its own, migrated and empty. All that is opened here is closed after the test."""

    config: Config
    """Names this database: hand it to code that connects by itself, together with `state`."""
    state: State
    """Of the server: holds the role's passwords."""
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


@dataclass(frozen=True)
class Cluster:
    """The test run's one server."""

    state: State
    postgres: EmbeddedPostgres
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def config(self, database: str) -> Config:
        url = f"postgresql:///{database}?host={self.postgres.socket_folder}&port=5432"
        return Config.model_validate({"database": {"url": url}})

    async def admin(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            host=str(self.postgres.socket_folder),
            port=5432,
            user=SUPERUSER,
            password=read_password(self.state, SUPERUSER),
            database="postgres",
        )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL for the whole run (one for each xdist worker), with a migrated template database."""
    folder = Path(tempfile.mkdtemp(prefix="quash-test-", dir="/tmp"))
    state = State(folder)
    postgres = EmbeddedPostgres(state, settings=_NOT_DURABLE)
    try:
        with postgres.run():
            asyncio.run(set_up(Config(), state, FakeClock()))
            yield Cluster(state, postgres)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[Database]:
    """A fresh database of its own, migrated and empty."""
    name = f"test_{os.getpid()}_{next(cluster.numbers)}"
    admin = await cluster.admin()
    try:
        await admin.execute(f"create database {name} template {TEMPLATE}")
        await admin.execute(f"revoke all on database {name} from public")
        await admin.execute(f"grant connect, temporary, create on database {name} to {OWNER}")
        await admin.execute(f"grant connect on database {name} to {', '.join(r for r in ROLES if r != OWNER)}")
        config = cluster.config(name)
        database = Database(config, cluster.state, await connect(config, cluster.state, OWNER))
        try:
            yield database
        finally:
            await database.close()
            await admin.execute(f"drop database {name} with (force)")
    finally:
        await admin.close()
