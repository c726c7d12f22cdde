"""The gate before a signature: every configured linter looks at the throw-away-signed twin (D47-D49, G6-G8)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version as version_of
from types import MappingProxyType
from typing import Final

from prometheus_client import Histogram

from issuer.checks import adapters
from issuer.checks.findings import EMAIL_DOCUMENTS, Finding, Report, at_or_above
from issuer.checks.workers import Runner
from quash.runtime.clock import Clock, SystemClock
from quash.runtime.config import ExternalLinter, Lint

Linting = Callable[[bytes, str], Awaitable[Sequence[Report]]]
"""(DER of a twin, document type, see `issuer.checks.findings`) to one report of each linter."""

TOLERATED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "w_ext_subject_key_identifier_missing_sub_cert": "by RFC 5280; BR 7.1.2.7.6 recommends none in TLS (D7)",
        "e_sub_cert_aia_does_not_contain_ocsp_url": "by the BR before 2024-03-15; there may be none (D4, D7, A43)",
        "e_mp_ecdsa_pub_key_encoding_correct": "older than Mozilla's policy 3.0, which has P-521 (D9, D40)",
        "e_commonname_mailbox_validated": "also where there is none, which may be; pkilint judges those that are (D49)",
    }
)
"""zlint's findings that stand, by its code, each with the rule that wants it so. No configuration adds to it.

Three are errors that zlint 3.6.2 is wrong about: docs/issuing.md, "Linters", says why, and who looks in their place.
"""

TOLERATED_OF_CERTLINT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BR certificates must include an HTTP URL of the OCSP responder": "by the BR of 2019; may be missing (D4, A43)",
        "Name has unknown attribute 2.5.4.97": "organizationIdentifier: of S/MIME, whose rules are younger (D49)",
    }
)
"""Likewise of certlint and cablint, whose last release is of 2019; without codes, so by all that they say."""

_ASKED_EVERY: Final = 60.0
"""Seconds for which a linter has the version that it told."""
_SECONDS = Histogram("quash_lint_seconds", "Time of one linter for one document, waiting included", ["linter"])


async def no_linting(_twin: bytes, _document: str) -> Sequence[Report]:
    """Of tests that are about something else."""
    return ()


class LintGate:
    """pkilint and our own rules in worker processes, and the external linters of the configuration, all at once.

    `clock`: tells when a linter is asked for its version again.
    """

    def __init__(self, config: Lint, runner: Runner, clock: Clock | None = None) -> None:
        self._config = config
        self._runner = runner
        self._clock = clock or SystemClock()
        self._versions: dict[str, tuple[adapters.Identity, float, str]] = {}

    async def __call__(self, twin: bytes, document: str) -> Sequence[Report]:
        """See `Linting`. Raises `lint.unavailable`, `lint.timeout`, `checks.*`."""
        external = (self.external(linter, twin) for linter in self._config.external)
        inside = [self._inside("pkilint", "lint", twin, document)]
        if document in EMAIL_DOCUMENTS:
            inside.append(self._inside("quash", "own", twin, document))
        return await asyncio.gather(*inside, *external)

    async def _inside(self, linter: str, task: str, twin: bytes, document: str) -> Report:
        """One of the linters that run in worker processes."""
        with _SECONDS.labels(linter).time():
            said = await self._runner.run(task, document, twin)
        return self.report(linter, said["version"], [Finding(**each) for each in said["findings"]])

    async def external(self, linter: ExternalLinter, twin: bytes) -> Report:
        """One program's report, whether it gates or not. Raises `lint.unavailable`, `lint.timeout`."""
        version = await self._version(linter)
        with _SECONDS.labels(linter.name).time():
            found = await adapters.findings(linter, twin)
        return self.report(linter.name, version, found)

    async def meet(self) -> None:
        """Has each external linter tell its version, before there is an order. Raises as `external` does."""
        for linter in self._config.external:
            await self._version(linter)

    async def _version(self, linter: ExternalLinter) -> str:
        """Asked again when its program is another one: an upgrade beside a running service is on record (D48).

        And once in a while, since a program may be a wrapper of one that was upgraded, or what asks a service.
        """
        program, now = adapters.identity(linter), self._clock.monotonic()
        known, asked, said = self._versions.get(linter.name, (None, now, ""))
        if known != program or now - asked >= _ASKED_EVERY:
            said = await adapters.version(linter)
            self._versions[linter.name] = program, now, said
        return said

    async def answers(self, bodies: Sequence[bytes]) -> Report:
        """pkilint's report on OCSP responses (DER), all that it finds in any of them."""
        said = [await self._runner.run("ocsp", "", body) for body in bodies]
        found = dict.fromkeys(Finding(**finding) for each in said for finding in each["findings"])
        return self.report("pkilint-ocsp", version_of("pkilint"), list(found))

    def report(self, linter: str, version: str, findings: Sequence[Finding]) -> Report:
        """What a linter found, by the configured level, what a rule wants so, and exemptions."""
        grave = at_or_above(findings, self._config.level)
        standing = tuple(each for each in grave if self._stands(each))
        return Report(linter, version, tuple(findings), tuple(each for each in grave if each not in standing), standing)

    def _stands(self, finding: Finding) -> bool:
        if finding.code in TOLERATED or finding.code in TOLERATED_OF_CERTLINT:
            return True
        return any(
            finding.code == exempt.code and re.fullmatch(exempt.message, finding.message)
            for exempt in self._config.exempt
        )
