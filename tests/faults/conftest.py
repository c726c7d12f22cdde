"""One running system for all fault tests of a worker. Whoever kills its supervisor starts it again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from loadtest.system import System
from tests.support.faults import Records
from tests.support.postgres import folder_for_servers

CPUS = sorted(os.sched_getaffinity(0))[:2]


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """The demo on free ports; small batches, so that a key with four certificates is a job already; bound workers."""
    settings = ("admin.sibling_batch=2", "checks.workers=1", f"responder.cpus={CPUS}")
    with folder_for_servers() as folder, System(folder, *settings) as running:
        yield running


@pytest.fixture
async def records(system: System) -> AsyncIterator[Records]:
    """What the database says."""
    async with Records(system) as records:
        yield records
