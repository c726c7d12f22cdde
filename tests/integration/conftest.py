"""One running system for the tests that share it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadtest.system import System
from tests.support.postgres import folder_for_servers


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """The demo on free ports, up for the whole session."""
    with folder_for_servers() as folder, System(folder) as running:
        yield running
