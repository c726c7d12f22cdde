"""Fixtures that every test shares: a real PostgreSQL with all migrations and roles, and a clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.embedded import EmbeddedPostgres
from quash.store.setup import set_up
from tests.support.postgres import Cluster, Database, folder_for_servers

# A busy machine is no failure of the code: no example has a time limit.
settings.register_profile("quash", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quash")

_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "shared_buffers": "32MB"}


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until the test moves it."""
    return FakeClock()


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """What a test that starts a PostgreSQL uses in place of `tmp_path`."""
    with folder_for_servers() as folder:
        yield folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL for the whole run (one for each xdist worker), with a migrated template database."""
    with folder_for_servers() as folder:
        state = State(folder)
        postgres = EmbeddedPostgres(state, settings=_NOT_DURABLE)
        with postgres.run():
            asyncio.run(set_up(Config(), state, FakeClock()))
            yield Cluster(state, postgres)


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[Database]:
    """A database of the test's own, migrated and empty; see `tests.support.postgres.Database`."""
    name, database = await cluster.take()
    try:
        yield database
    finally:
        await database.close()
        await cluster.give_back(name)
