"""The gate before a signature: every configured linter looks at the throw-away-signed twin (D47-D49, G6-G8)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import Histogram

from issuer.checks import adapters
from issuer.checks.findings import Finding, Report, at_or_above
from issuer.checks.workers import Runner
from quash.runtime.config import ExternalLinter, Lint

Linting = Callable[[bytes, str], Awaitable[Sequence[Report]]]
"""(DER of a twin, document type of `issuer.checks.findings.DOCUMENTS`) to one report of each linter."""

_SECONDS = Histogram("quash_lint_seconds", "Time of one linter for one document, waiting included", ["linter"])


async def no_linting(_twin: bytes, _document: str) -> Sequence[Report]:
    """Of tests that are about something else."""
    return ()


class LintGate:
    """pkilint in worker processes, and the external linters of the configuration, all at once."""

    def __init__(self, config: Lint, runner: Runner) -> None:
        self._config = config
        self._runner = runner
        self._versions: dict[str, str] = {}

    async def __call__(self, twin: bytes, document: str) -> Sequence[Report]:
        """See `Linting`. Raises `lint.unavailable`, `lint.timeout`, `checks.*`."""
        external = (self._external(linter, twin) for linter in self._config.external)
        return await asyncio.gather(self._pkilint(twin, document), *external)

    async def _pkilint(self, twin: bytes, document: str) -> Report:
        with _SECONDS.labels("pkilint").time():
            said = await self._runner.run("lint", document, twin)
        return self._report("pkilint", said["version"], [Finding(**each) for each in said["findings"]])

    async def _external(self, linter: ExternalLinter, twin: bytes) -> Report:
        if linter.name not in self._versions:
            self._versions[linter.name] = await adapters.version(linter)
        with _SECONDS.labels(linter.name).time():
            found = await adapters.findings(linter, twin)
        return self._report(linter.name, self._versions[linter.name], found)

    def _report(self, linter: str, version: str, findings: Sequence[Finding]) -> Report:
        refusing = [each for each in at_or_above(findings, self._config.level) if not self._is_exempt(each)]
        return Report(linter, version, tuple(findings), tuple(refusing))

    def _is_exempt(self, finding: Finding) -> bool:
        return any(
            finding.code == exempt.code and re.fullmatch(exempt.message, finding.message)
            for exempt in self._config.exempt
        )
