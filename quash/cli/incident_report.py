"""The skeleton of an incident report: Markdown in the headings of C19, and the certificates as CSV (C20)."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

# C20: serial, fingerprint and "Is revoked?" first.
_COLUMNS: Final = (
    "serial",
    "fingerprint",
    "Is revoked?",
    "revocation date",
    "reason",
    "issuer",
    "expired",
    "visible at",
)


def incident_report(
    case: dict[str, Any],
    certificates: list[dict[str, Any]],
    timeline: list[dict[str, Any]],
    exemptions: list[dict[str, Any]],
) -> str:
    """Markdown in the headings of C19 and C20; what only a person knows is left to be filled in."""
    revoked = sum(each["revoked"] for each in certificates)
    expired = sum(each["expired"] and not each["revoked"] for each in certificates)
    issuers = ", ".join(sorted({each["issuer"] for each in certificates})) or "none"
    rows = "\n".join(f"| {e['at']} | {e['by']} | {e['action']} | {_cell(e['what'])} |" for e in timeline)
    met = f"visible to relying parties at {case['visible_at']}" if case["state"] == "met" else "not yet complete"
    return f"""# Incident report: case {case["id"]}

## Summary
{case["summary"]}

Ground: {case["rule"]}. Reported by {case["reporter"]}, received {case["received_at"]}.

## Impact
- Certificates: {len(certificates)}, of issuers: {issuers}
- Revoked: {revoked}
- Not yet revoked: {len(certificates) - revoked - expired}
- Expired before revocation: {expired}
- Exempt by two officers' decision at some time: {len(exemptions)}
- Revocation due {case["publish_by"]}: {met}{", LATE" if case["late"] else ""}
- Preliminary report due {case["preliminary_report_by"]}: sent {case["preliminary_report_at"] or "not yet"}

## Timeline
All times are UTC, from the ledger; notices and what was seen outside from their own records.

| time | who | action | what |
|---|---|---|---|
{rows}

{_exempt(exemptions)}## Root cause analysis

## Lessons learned

## Action items

## Appendix
certificates.csv lists every certificate.
"""


def appendix(certificates: list[dict[str, Any]]) -> str:
    """CSV (RFC 4180) of all certificates, the columns of C20 first."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for each in certificates:
        revoked = "yes" if each["revoked"] else "no"
        row = (each["serial"], each["fingerprint"], revoked, each["revoked_at"], each["reason"], each["issuer"])
        writer.writerow([*row, "yes" if each["expired"] else "no", each["visible_at"]])
    return text.getvalue()


def _exempt(exemptions: list[dict[str, Any]]) -> str:
    """Who decided that a certificate be left out of mass revocations, until when and why; empty: nobody did."""
    if not exemptions:
        return ""
    rows = "\n".join(
        f"| {e['serial']} | {e['issuer']} | {e['decided_at']} | {e['ended_at'] or e['until']} |"
        f" {_cell(e['proposed_by'])}, {_cell(e['approved_by'])} | {_cell(e['why'])} |"
        for e in exemptions
    )
    head = "| serial | issuer | from | until | officers | why |\n|---|---|---|---|---|---|"
    return f"## Certificates left out for a time\n{head}\n{rows}\n\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
