"""A bench for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from tests.support.crl_bench import Bench


@pytest.fixture
async def bench(database: Any, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Bench]:
    """An empty bench with a running builder and an empty publish folder."""
    folder = tmp_path / "crl"
    folder.mkdir()
    found = Bench(database, clock, folder, Config())
    await found.start()
    yield found
    await found.builder.close()
