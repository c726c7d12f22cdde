"""A mass revocation on a running system: all is answered, and single ones hardly wait for it (design, section 8)."""

from __future__ import annotations

import pytest

from loadtest.mass import measure, settings
from loadtest.revocations import percentile
from loadtest.system import System
from tests.support.postgres import folder_for_servers

COUNT = 20_000
BUDGET = 2000.0  # milliseconds, p99 beside a mass revocation
LENIENT = 5  # times the budget: the machine may have other work, and the p99 of so few is their maximum


@pytest.mark.long
async def test_single_revocations_overtake_a_mass_revocation() -> None:
    """`measure` itself fails unless every certificate is revoked in the cache and every CRL is published."""
    with folder_for_servers() as folder:
        config, overrides = settings(folder, COUNT)
        with System(folder, *overrides, config=config) as system:
            found = await measure(system, COUNT, 12)
    assert len(found.busy) >= 5
    assert percentile(list(found.busy), 0.99) < LENIENT * BUDGET
    assert found.octets < 300
