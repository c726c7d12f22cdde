"""The CA signer on a small hierarchy, and deployments as `quash init` makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import issuer.signer.ceremony
import issuer.signer.hierarchy
import issuer.signer.rotation
from quash.runtime.clock import FakeClock
from quash.store.roles import CA_SIGNER
from tests.support.initialising import Made, quick_config
from tests.support.issuing import add_hierarchy
from tests.support.reserving import Desk


@pytest.fixture
async def desk(database: Any, clock: FakeClock) -> Desk:
    """A hierarchy and its signer, with the rights that the process has."""
    hierarchy = await add_hierarchy(database.owner, clock)
    return Desk(database.owner, await database.pool(CA_SIGNER), clock, hierarchy)


@pytest.fixture
def deployment(database: Any, clock: FakeClock, tmp_path: Path) -> Made:
    """A deployment before its first `init`, with a root and one sub-CA of elliptic curves: quick to make."""
    return Made.of(quick_config(database.config), tmp_path / "var", database.owner, clock)


@pytest.fixture
def no_lint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linting takes half a second a certificate and has its own tests."""

    async def nothing(*_: object, **__: object) -> None:
        pass

    for module in (issuer.signer.ceremony, issuer.signer.hierarchy, issuer.signer.rotation):
        monkeypatch.setattr(module, "lint_before_signing", nothing)
