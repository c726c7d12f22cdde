"""`quash case`: what must be revoked, by when, whether it is visible, and the incident report of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from quash.cli.client import Api, CertOption, IssuerOption, SerialArgument, name_certificate, read_file
from quash.cli.common import (
    JsonOption,
    print_json,
)
from quash.cli.incident_report import appendix, incident_report
from quash.cli.verbs import asks_admin
from quash.errors import Kind, QuashError

case_app = typer.Typer(no_args_is_help=True, add_completion=False)

NumberArgument = Annotated[int, typer.Argument(help="Number of the case.")]
TextArgument = Annotated[str, typer.Argument(help="What to record.")]
_IN_ONE_REQUEST = 500
_FILE_TIMEOUT = 300.0  # seconds


@case_app.command("triggers")
@asks_admin()
def triggers(
    api: Api,
    *,
    json_: JsonOption = False,
) -> None:
    """Lists the reasons to revoke, with their deadlines."""
    for each in api.get("/v1/triggers")["triggers"]:
        if json_:
            print_json(each)
        else:
            print(f"{each['trigger']:10} {each['seconds'] // 3600:4} h  {each['reason']:20} {each['text']}")


@case_app.command("open")
@asks_admin()
def open_(
    api: Api,
    *,
    trigger: Annotated[str, typer.Option("--trigger", help="See quash case triggers.")],
    reporter: Annotated[str, typer.Option("--reporter", help="Who reported it.")],
    summary: Annotated[str, typer.Option("--summary", help="What happened.")],
    received: Annotated[str | None, typer.Option("--received", help="When: RFC 3339 with its zone; else now.")] = None,
    json_: JsonOption = False,
) -> None:
    """Opens a case: its clock starts with the receipt of the report (C5)."""
    body = {"trigger": trigger, "reporter": reporter, "summary": summary}
    body |= {"received_at": received} if received else {}
    _tell(api.post("/v1/cases", body), as_json=json_)


@case_app.command("list")
@asks_admin()
def list_(
    api: Api,
    *,
    json_: JsonOption = False,
) -> None:
    """Lists all cases, newest first."""
    path = "/v1/cases"
    while True:
        page = api.get(path)
        for each in page["cases"]:
            _tell(each, as_json=json_)
        if page["before"] is None:
            return
        path = f"/v1/cases?before={page['before']}"


@case_app.command("show")
@asks_admin()
def show(
    api: Api,
    number: NumberArgument,
    *,
    json_: JsonOption = False,
) -> None:
    """Shows a case and its deadlines."""
    path = f"/v1/cases/{number}"
    exempt = [each for each in api.get(f"{path}/exemptions")["exemptions"] if each["in_force"]]
    _tell({**api.get(path), **api.get(f"{path}/forecast"), "exempt": len(exempt)}, as_json=json_)


@case_app.command("of")
@asks_admin()
def of(
    api: Api,
    serial: SerialArgument = None,
    *,
    cert: CertOption = None,
    issuer: IssuerOption = None,
    json_: JsonOption = False,
) -> None:
    """Says which cases and mass revocations a certificate is part of, and whether its owner should renew it now."""
    found = api.post("/v1/certificates/lookup", name_certificate(serial, cert, issuer))
    if found["issuer"] is None:
        raise QuashError("certificate.unknown", "no certificate has this serial: check it", Kind.NOT_FOUND)
    said = api.get(f"/v1/certificates/{found['issuer']}/{found['serial']}/incidents")
    if json_:
        print_json(said)
        return
    for each in said["cases"]:
        print(f"case {each['id']}: {each['state']}, {each['rule']}, revocation visible by {each['publish_by']}")
    for each in said["mass_revocations"]:
        print(f"mass revocation {each['id']}: {each['state']}, {each['reason']}")
    for each in said["jobs"]:
        print(f"job {each['id']} for its key: {each['state']}, {each['reason']}")
    print("renew now" if said["renewal_info"] else "part of no incident")


@case_app.command("add")
@asks_admin()
def add(
    api: Api,
    number: NumberArgument,
    serials: Annotated[list[str] | None, typer.Argument(help="Serials in hexadecimal.")] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="A line each: SERIAL, ISSUER SERIAL, or as quash find prints.")
    ] = None,
    issuer: Annotated[str | None, typer.Option("--issuer", help="Of serials without one.")] = None,
) -> None:
    """Adds certificates to a case."""
    lines = list(serials or ()) + (read_file(file).decode("utf-8", "replace").splitlines() if file else [])
    named = [_named(line.split("  ")[0].split(), issuer) for line in lines if line.strip()]
    if not named:
        raise QuashError("case.no_certificates", "name certificates by SERIAL or --file")
    added = 0
    for start in range(0, len(named), _IN_ONE_REQUEST):
        some = named[start : start + _IN_ONE_REQUEST]
        added += api.post(f"/v1/cases/{number}/certificates", {"certificates": some})["added"]
    print(f"{added} certificates added")


@case_app.command("note")
@asks_admin()
def note(
    api: Api,
    number: NumberArgument,
    text: TextArgument,
) -> None:
    """Adds a note."""
    api.post(f"/v1/cases/{number}/notes", {"text": text})


@case_app.command("evidence")
@asks_admin()
def evidence(
    api: Api,
    number: NumberArgument,
    file: Annotated[Path, typer.Argument(help="The file: it is kept with the case, by its SHA-256.")],
    *,
    hash_only: Annotated[bool, typer.Option("--hash-only", help="Keep name and hash: you keep the file.")] = False,
) -> None:
    """Keeps an evidence file with the case."""
    body = read_file(file)
    sha256 = hashlib.sha256(body).hexdigest()
    if hash_only:
        api.post(f"/v1/cases/{number}/evidence", {"name": file.name, "sha256": sha256})
    else:
        api.put_file(f"/v1/cases/{number}/files/{quote(file.name, safe='')}", body, timeout=_FILE_TIMEOUT)
    print(sha256)


@case_app.command("files")
@asks_admin()
def files(
    api: Api,
    number: NumberArgument,
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write them to, each named by its hash.")] = None,
    json_: JsonOption = False,
) -> None:
    """Lists a case's evidence files, and fetches them."""
    for each in api.get(f"/v1/cases/{number}/files")["files"]:
        if json_:
            print_json(each)
        else:
            print(f"{each['at']}  {each['sha256']}  {each['octets']:10}  {each['name']}")
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            # Its name is what somebody else chose.
            body = api.get_file(f"/v1/cases/{number}/files/{each['sha256']}", timeout=_FILE_TIMEOUT)
            (out / each["sha256"]).write_bytes(body)


@case_app.command("reported")
@asks_admin()
def reported(
    api: Api,
    number: NumberArgument,
    text: TextArgument,
) -> None:
    """Records that the preliminary report went to subscriber and reporter, and how (C6)."""
    api.post(f"/v1/cases/{number}/preliminary-report", {"text": text})


@case_app.command("pick-up")
@asks_admin()
def pick_up(
    api: Api,
    number: NumberArgument,
) -> None:
    """Says that you deal with it: what the public reported is escalated after two hours otherwise (G39)."""
    api.post(f"/v1/cases/{number}/pick-up", {})


@case_app.command("judge")
@asks_admin()
def judge(
    api: Api,
    number: NumberArgument,
    trigger: Annotated[str, typer.Argument(help="See quash case triggers.")],
    *,
    json_: JsonOption = False,
) -> None:
    """Says which trigger it is: deadline and reason follow; the clock began with the receipt."""
    said = api.post(f"/v1/cases/{number}/judgement", {"trigger": trigger})
    _tell(said, as_json=json_)


@case_app.command("close")
@asks_admin("officer")
def close(
    api: Api,
    number: NumberArgument,
    text: TextArgument,
    *,
    reopen: Annotated[bool, typer.Option("--reopen", help="It was closed too early.")] = False,
) -> None:
    """Closes a case without revoking what is left: an officer's decision."""
    what = "reopening" if reopen else "closure"
    api.post(f"/v1/cases/{number}/{what}", {"text": text})


@case_app.command("notify")
@asks_admin()
def notify(
    api: Api,
    number: NumberArgument,
    *,
    template: Annotated[
        str,
        typer.Option("--template", help="acknowledgement, preliminary-report, revocation, progress, done, escalation."),
    ],
    to: Annotated[list[str] | None, typer.Option("--to", help="Mail address; may be repeated.")] = None,
    subscribers: Annotated[bool, typer.Option("--subscribers", help="Every account concerned, by webhook.")] = False,
    text: Annotated[str, typer.Option("--text", help="Added to the template's.")] = "",
) -> None:
    """Queues notices to reporters and subscribers (C6, C17, C18)."""
    body = {"template": template, "to": to or [], "subscribers": subscribers, "text": text}
    print(f"{api.post(f'/v1/cases/{number}/notices', body)['queued']} queued")


@case_app.command("notices")
@asks_admin()
def list_notices(
    api: Api,
    number: NumberArgument,
    *,
    json_: JsonOption = False,
) -> None:
    """Lists what was told to whom, and whether it was taken."""
    for each in api.get(f"/v1/cases/{number}/notices")["notices"]:
        if json_:
            print_json(each)
        else:
            sent = each["sent_at"] or f"not yet, {each['tries']} tries {each['last_failure']}"
            print(f"{each['at']}  {each['template']:20} {each['to']:32} sent: {sent}")


@case_app.command("revoke")
@asks_admin()
def revoke(
    api: Api,
    number: NumberArgument,
) -> None:
    """Revokes every certificate of the case with its trigger's reason; may be stopped and repeated."""
    done = 0
    while True:
        step = api.post(f"/v1/cases/{number}/revocation", {}, timeout=120)
        done += step["revoked"]
        if not step["left"]:
            break
        print(f"{done} revoked, {step['left']} left")
    print(f"{done} revoked")


@case_app.command("report")
@asks_admin()
def report(
    api: Api,
    number: NumberArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for report.md and certificates.csv.")],
) -> None:
    """Writes the skeleton of the incident report: Markdown, and the certificates as CSV (C19, C20)."""
    case = api.get(f"/v1/cases/{number}")
    certificates, after = [], "-1:"
    while after:
        page = api.get(f"/v1/cases/{number}/certificates?after={after}")
        certificates += page["certificates"]
        after = page["after"]
    timeline = api.get(f"/v1/cases/{number}/timeline")["timeline"]
    exemptions = api.get(f"/v1/cases/{number}/exemptions")["exemptions"]
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(incident_report(case, certificates, timeline, exemptions), encoding="utf-8")
    (out / "certificates.csv").write_text(appendix(certificates), encoding="utf-8", newline="")
    print(f"wrote {out}/report.md and {out}/certificates.csv")


def _named(words: list[str], issuer: str | None) -> dict[str, str]:
    if len(words) == 2:
        return {"issuer": words[0], "serial": words[1]}
    if len(words) != 1:
        raise QuashError("case.bad_line", f"{' '.join(words)!r}: give SERIAL or ISSUER SERIAL")
    return {"serial": words[0]} | ({"issuer": issuer} if issuer else {})


def _tell(case: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(case)
        return
    late = ", LATE" if case["late"] else ""
    print(f"case {case['id']}: {case['state']}{late}; {case['rule']}, {case['reason']}: {case['summary']}")
    print(f"  reported by {case['reporter']}, received {case['received_at']}")
    if case["picked_up_at"] is None and case["state"] == "open":
        print(f"  nobody has picked it up; due by {case['picked_up_by']}")
    print(f"  preliminary report by {case['preliminary_report_by']}: {case['preliminary_report_at'] or 'not yet sent'}")
    expected = f", expected {case['expected_at']}" if case.get("expected_at") else ""
    risk = ", AT RISK" if case.get("at_risk") else ""
    print(
        f"  revocation visible by {case['publish_by']}: {case['visible']} of {case['certificates']},"
        f" {case['revoked']} revoked{expected}{risk}"
    )
