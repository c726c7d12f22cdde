"""The issuing API is ready once every configured linter has told its version (D48, G6)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from issuer.checks.lint import LintGate
from issuer.checks.workers import Inline
from issuer.issuance.main import _meet_linters
from quash.runtime.config import Config, Lint
from quash.runtime.process import Process
from quash.runtime.state import State


async def test_it_waits_for_a_linter_that_tells_no_version(tmp_path: Path) -> None:
    """What is wrong stands in /readyz; when it is mended, nobody has to restart anything."""
    (tmp_path / "linter").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "linter").chmod(0o755)
    external = [{"name": "own", "command": [str(tmp_path / "linter")], "output": "lines"}]
    gate = LintGate(Lint.model_validate({"external": external}), Inline())
    process = Process("issuer", Config(), State(tmp_path))
    meeting = asyncio.create_task(_meet_linters(process, gate))
    async with asyncio.timeout(20):
        while not process.health.report()["checks"]:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
        assert not process.health.ready
        assert "its version command fails" in process.health.report()["checks"]["linters"]["detail"]
        (tmp_path / "linter").write_text("#!/bin/sh\necho own 8\n")
        await meeting
    assert process.health.ready
