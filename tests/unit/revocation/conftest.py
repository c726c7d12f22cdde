"""The world that tests of flow 2 share."""

from __future__ import annotations

from typing import Any

import pytest

from quash.runtime.clock import FakeClock
from quash.store.roles import ADMIN
from tests.support.revoking import World, make_world


@pytest.fixture
async def world(database: Any, clock: FakeClock) -> World:
    """Issuers alpha, beta and top on a fresh database, asked with the rights of the admin API."""
    return await make_world(database, clock, ADMIN)
