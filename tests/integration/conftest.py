"""One running system for the tests that share it, and one folder a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadtest.system import System


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The demo on free ports, up for the whole session."""
    with System(tmp_path_factory.mktemp("system")) as running:
        yield running
