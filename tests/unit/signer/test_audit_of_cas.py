"""Certificates that nobody ordered are in self-audits too: each in one population, whenever it was signed (F12)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from issuer.issuance.self_audit import Outcome, audit
from issuer.signer.elsewhere_certificates import export_certificate, import_certificate, new_ocsp_signer
from quash.errors import QuashError
from quash.runtime.config import Config
from tests.support.initialising import Made
from tests.unit.issuance.test_self_audit import program
from tests.unit.signer.test_elsewhere import openssl_signs

pytestmark = pytest.mark.usefixtures("no_lint")
_HOUR = 3600


def moves_to(made: Made, day: str) -> None:
    made.clock.step(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() - made.clock.now())


async def audited(made: Made, quarter: str) -> Outcome:
    linters = {"self_audit": {"linters": [program("stranger", "pass")]}}
    config = Config.model_validate(made.deployment.config.model_dump() | linters)
    return await audit(made.deployment.pool, config, made.clock, quarter)


async def one_more(made: Made, folder: Path) -> None:
    """Another OCSP signer of the root."""
    tbs = await export_certificate(made.deployment, "root", new_ocsp_signer)
    signature = await openssl_signs(made, tbs, folder)
    await import_certificate(made.deployment, "root", new_ocsp_signer, tbs, signature)


async def test_what_a_root_signs_after_the_quarter(deployment: Made, tmp_path: Path) -> None:
    """Reserved before midnight, signed elsewhere and brought back hours later: it is the next quarter's, and once."""
    await deployment.make()
    moves_to(deployment, "2027-03-31T23:00:00")
    tbs = await export_certificate(deployment.deployment, "root", new_ocsp_signer)
    signature = await openssl_signs(deployment, tbs, tmp_path)
    moves_to(deployment, "2027-04-01T01:00:00")
    first = await audited(deployment, "2027-Q1")
    assert (first.population, first.until) == (3, int(deployment.clock.now()) - _HOUR)  # a sub-CA, two OCSP signers
    moves_to(deployment, "2027-04-01T20:00:00")
    await import_certificate(deployment.deployment, "root", new_ocsp_signer, tbs, signature)
    moves_to(deployment, "2027-07-01T00:00:00")
    second = await audited(deployment, "2027-Q2")
    assert (second.population, second.since) == (1, first.until)
    moves_to(deployment, "2027-10-01T00:00:00")
    with pytest.raises(QuashError, match="nothing was issued"):
        await audited(deployment, "2027-Q3")


async def test_the_first_audit_leaves_nothing_before_it(deployment: Made) -> None:
    """Of a CA that nobody audited before, the first quarter that is audited has all that came before as well."""
    await deployment.make()
    moves_to(deployment, "2027-07-02T00:00:00")
    assert (await audited(deployment, "2027-Q2")).population == 3


async def test_an_old_quarter_again_takes_nothing_back(deployment: Made, tmp_path: Path) -> None:
    """Whoever looks at an old quarter again does not make the next audit begin there."""
    await deployment.make()
    moves_to(deployment, "2027-04-01T00:00:01")
    last = await audited(deployment, "2027-Q2")
    assert (await audited(deployment, "2027-Q1")).population == 3
    moves_to(deployment, "2027-07-01T00:00:00")
    await one_more(deployment, tmp_path)
    moves_to(deployment, "2027-07-01T00:00:01")
    outcome = await audited(deployment, "2027-Q3")
    assert (outcome.since, outcome.population) == (last.until, 1)
