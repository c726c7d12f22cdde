"""The world that tests of flow 1 share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from issuer.ct.double import LogDouble
from issuer.ct.submit import CtLogs
from issuer.signer.service import CaSigner
from quash.runtime.clock import FakeClock
from quash.store.roles import CA_SIGNER, ISSUING
from tests.support.issuing import World, add_hierarchy, key_ring, make_config
from tests.support.transparency import logs_of


@pytest.fixture
async def world(database: Any, clock: FakeClock) -> AsyncIterator[World]:
    """A hierarchy, its CA signer, and the issuing role's pool, on a fresh database."""
    hierarchy = await add_hierarchy(database.owner, clock)
    keys = key_ring()
    signer = CaSigner(await database.pool(CA_SIGNER), keys, clock)
    config = make_config(database.config)
    yield World(config, clock, database.owner, await database.pool(ISSUING), hierarchy, signer)
    await keys.close()


@pytest.fixture
async def logs(world: World, tmp_path: Path) -> AsyncIterator[tuple[CtLogs, dict[str, LogDouble]]]:
    """Enough logs of two operators, and their client."""
    async with logs_of(tmp_path / "list", world.clock, [await world.certificate_of("root")]) as both:
        yield both
