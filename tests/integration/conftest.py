"""One running system for the tests that share it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadtest.system import System
from tests.support.postgres import folder_for_servers
from tests.support.processes import gone


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """The demo on free ports, up for the whole session; one of its issuers signs nonces (A27)."""
    with folder_for_servers() as folder, System(folder, "responder.nonce.tls-ov=sign") as running:
        yield running
        children = running.children()
        assert running.stop() == 0
        assert {name for name, pid in children.items() if not gone(pid)} == set()
