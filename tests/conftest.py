"""Fixtures that every test shares: a real PostgreSQL with all migrations and roles, and a clock that tests move."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.embedded import EmbeddedPostgres
from quash.store.setup import set_up
from tests.support.postgres import Cluster, Database

_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "shared_buffers": "32MB"}


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until the test moves it."""
    return FakeClock()


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
    """A database of the test's own, migrated and empty; see `tests.support.postgres.Database`."""
    name, database = await cluster.take()
    try:
        yield database
    finally:
        await database.close()
        await cluster.give_back(name)
