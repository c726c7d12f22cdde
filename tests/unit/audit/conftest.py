"""The ledger's world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quash.runtime.clock import FakeClock
from tests.support.ledger import Ledger, make_ledger


@pytest.fixture
async def book(database: Any, clock: FakeClock, tmp_path: Path) -> Ledger:
    return await make_ledger(database, clock, tmp_path)
