"""What linters say, in one form whatever their own is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quash.errors import Kind, QuashError
from quash.pki import policies

SEVERITIES: Final = ("info", "notice", "warning", "error", "fatal")
"""In rising order."""

TLS_DOCUMENTS: Final = tuple(f"{kind}-{form}" for kind in policies.TLS for form in ("precertificate", "certificate"))
EMAIL_DOCUMENTS: Final = tuple(f"{kind}-certificate" for kind in policies.EMAIL)
"""What is linted in flow 1, by the name that linters and stored results use: the certificate's policy, and its form."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of a linter about a certificate; `code` is the linter's own name of the rule."""

    severity: str
    code: str
    message: str

    def as_json(self) -> dict[str, Any]:
        return {"severity": self.severity, "code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class Report:
    """All that one linter (`version` of it) found in one document; `refusing` are those that must not be.

    `standing`: as grave as those, but a rule wants them so, or the configuration exempts them.
    """

    linter: str
    version: str
    findings: tuple[Finding, ...]
    refusing: tuple[Finding, ...]
    standing: tuple[Finding, ...] = ()

    def as_json(self) -> list[dict[str, Any]]:
        return [each.as_json() for each in self.findings]


def at_or_above(findings: Iterable[Finding], level: str) -> list[Finding]:
    return [each for each in findings if SEVERITIES.index(each.severity) >= SEVERITIES.index(level)]


def refusal(document: str, reports: Sequence[Report]) -> QuashError | None:
    """The error that ends an order, or None when no linter refuses."""
    said = [f"{report.linter}: {each.code} {each.message}".strip() for report in reports for each in report.refusing]
    if not said:
        return None
    return QuashError(
        "lint.refused", f"the {document} would break a rule (D47): {'; '.join(said)[:2000]}", Kind.REFUSED
    )
