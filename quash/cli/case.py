"""`quash case`: what must be revoked, by when, whether it is visible, and the incident report of it."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from quash.cli.client import DEFAULT_OPERATOR, Api, AsOption, read_file
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    JsonOption,
    SetOption,
    StateOption,
    context,
    print_json,
    reports_errors,
)
from quash.errors import QuashError

case_app = typer.Typer(no_args_is_help=True, add_completion=False)

NumberArgument = Annotated[int, typer.Argument(help="Number of the case.")]
TextArgument = Annotated[str, typer.Argument(help="What to record.")]
_IN_ONE_REQUEST = 500
# C20: serial, fingerprint and "Is revoked?" first.
_COLUMNS = ("serial", "fingerprint", "Is revoked?", "revocation date", "reason", "issuer", "expired", "visible at")


@case_app.command("triggers")
@reports_errors
def triggers(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Lists the reasons to revoke, with their deadlines."""
    for each in _api(config, state, set_, as_).get("/v1/triggers")["triggers"]:
        if json_:
            print_json(each)
        else:
            print(f"{each['trigger']:10} {each['seconds'] // 3600:4} h  {each['reason']:20} {each['text']}")


@case_app.command("open")
@reports_errors
def open_(
    *,
    trigger: Annotated[str, typer.Option("--trigger", help="See quash case triggers.")],
    reporter: Annotated[str, typer.Option("--reporter", help="Who reported it.")],
    summary: Annotated[str, typer.Option("--summary", help="What happened.")],
    received: Annotated[str | None, typer.Option("--received", help="When: RFC 3339 with its zone; else now.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Opens a case: its clock starts with the receipt of the report (C5)."""
    body = {"trigger": trigger, "reporter": reporter, "summary": summary}
    body |= {"received_at": received} if received else {}
    _tell(_api(config, state, set_, as_).post("/v1/cases", body), as_json=json_)


@case_app.command("list")
@reports_errors
def list_(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Lists all cases, newest first."""
    for each in _api(config, state, set_, as_).get("/v1/cases")["cases"]:
        _tell(each, as_json=json_)


@case_app.command("show")
@reports_errors
def show(
    number: NumberArgument,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Shows a case and its deadlines."""
    _tell(_api(config, state, set_, as_).get(f"/v1/cases/{number}"), as_json=json_)


@case_app.command("add")
@reports_errors
def add(
    number: NumberArgument,
    serials: Annotated[list[str] | None, typer.Argument(help="Serials in hexadecimal.")] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", help="One serial a line, or ISSUER SERIAL.")] = None,
    issuer: Annotated[str | None, typer.Option("--issuer", help="Of serials without one.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
) -> None:
    """Adds certificates to a case."""
    lines = list(serials or ()) + (read_file(file).decode("utf-8", "replace").splitlines() if file else [])
    named = [_named(line.split(), issuer) for line in lines if line.strip()]
    if not named:
        raise QuashError("case.no_certificates", "name certificates by SERIAL or --file")
    api, added = _api(config, state, set_, as_), 0
    for start in range(0, len(named), _IN_ONE_REQUEST):
        some = named[start : start + _IN_ONE_REQUEST]
        added += api.post(f"/v1/cases/{number}/certificates", {"certificates": some})["added"]
    print(f"{added} certificates added")


@case_app.command("note")
@reports_errors
def note(
    number: NumberArgument,
    text: TextArgument,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
) -> None:
    """Adds a note."""
    _api(config, state, set_, as_).post(f"/v1/cases/{number}/notes", {"text": text})


@case_app.command("evidence")
@reports_errors
def evidence(
    number: NumberArgument,
    file: Annotated[Path, typer.Argument(help="The file: its name and SHA-256 are recorded, keep it safe.")],
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
) -> None:
    """Records an evidence file by its hash."""
    body = {"name": file.name, "sha256": hashlib.sha256(read_file(file)).hexdigest()}
    _api(config, state, set_, as_).post(f"/v1/cases/{number}/evidence", body)
    print(body["sha256"])


@case_app.command("reported")
@reports_errors
def reported(
    number: NumberArgument,
    text: TextArgument,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
) -> None:
    """Records that the preliminary report went to subscriber and reporter, and how (C6)."""
    _api(config, state, set_, as_).post(f"/v1/cases/{number}/preliminary-report", {"text": text})


@case_app.command("revoke")
@reports_errors
def revoke(
    number: NumberArgument,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
) -> None:
    """Revokes every certificate of the case with its trigger's reason; may be stopped and repeated."""
    api, done = _api(config, state, set_, as_), 0
    while True:
        step = api.post(f"/v1/cases/{number}/revocation", {}, timeout=120)
        done += step["revoked"]
        if not step["left"]:
            break
        print(f"{done} revoked, {step['left']} left")
    print(f"{done} revoked")


@case_app.command("report")
@reports_errors
def report(
    number: NumberArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for report.md and certificates.csv.")],
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
) -> None:
    """Writes the skeleton of the incident report: Markdown, and the certificates as CSV (C19, C20)."""
    api = _api(config, state, set_, as_)
    case = api.get(f"/v1/cases/{number}")
    certificates, after = [], "-1:"
    while after:
        page = api.get(f"/v1/cases/{number}/certificates?after={after}")
        certificates += page["certificates"]
        after = page["after"]
    timeline = api.get(f"/v1/cases/{number}/timeline")["timeline"]
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(incident_report(case, certificates, timeline), encoding="utf-8")
    (out / "certificates.csv").write_text(appendix(certificates), encoding="utf-8", newline="")
    print(f"wrote {out}/report.md and {out}/certificates.csv")


def incident_report(case: dict[str, Any], certificates: list[dict[str, Any]], timeline: list[dict[str, Any]]) -> str:
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
- Revocation due {case["publish_by"]}: {met}{", LATE" if case["late"] else ""}
- Preliminary report due {case["preliminary_report_by"]}: sent {case["preliminary_report_at"] or "not yet"}

## Timeline
All times are UTC, from the ledger.

| time | who | action | what |
|---|---|---|---|
{rows}

## Root cause analysis

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


def _api(config: Path, state: Path, overrides: list[str] | None, operator: str) -> Api:
    deployment = context(config, state, overrides)
    return Api(deployment, deployment.config.admin, operator)


def _named(words: list[str], issuer: str | None) -> dict[str, str]:
    if len(words) == 2:
        return {"issuer": words[0], "serial": words[1]}
    if len(words) != 1:
        raise QuashError("case.bad_line", f"{' '.join(words)!r}: give SERIAL or ISSUER SERIAL")
    return {"serial": words[0]} | ({"issuer": issuer} if issuer else {})


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _tell(case: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(case)
        return
    late = ", LATE" if case["late"] else ""
    print(f"case {case['id']}: {case['state']}{late}; {case['rule']}, {case['reason']}: {case['summary']}")
    print(f"  preliminary report by {case['preliminary_report_by']}: {case['preliminary_report_at'] or 'not yet sent'}")
    print(
        f"  revocation visible by {case['publish_by']}: {case['visible']} of {case['certificates']},"
        f" {case['revoked']} revoked"
    )
