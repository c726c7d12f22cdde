"""`quash revoke`: revokes a certificate and, for keyCompromise, every other one of its key; or many at once."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from quash.cli.client import (
    DEFAULT_OPERATOR,
    Api,
    AsOption,
    CertOption,
    IssuerOption,
    SerialArgument,
    name_certificate,
)
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
from quash.cli.job import FinishByOption, PerSecondOption, begin, follow, pace_of, period, prepare, serials_of, tell
from quash.errors import Kind, QuashError

_FIELDS = ("serial", "issuer", "reason", "changed", "siblings")
_TIMES = ("ocsp_visible_ms", "crl_published_ms")
_POLL = 0.1  # seconds
WAIT_SECONDS = 120.0


@reports_errors
def revoke(
    *,
    serial: SerialArgument = None,
    cert: CertOption = None,
    issuer: IssuerOption = None,
    reason: Annotated[
        str,
        typer.Option(
            "--reason",
            help="unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation or"
            " privilegeWithdrawn.",
        ),
    ] = "unspecified",
    file: Annotated[
        Path | None, typer.Option("--file", help="Many: a serial a line, of --issuer or of whoever.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Many: SHA-256 of a public key (SPKI), hexadecimal.")] = None,
    case: Annotated[int | None, typer.Option("--case", help="Many: the certificates of this case.")] = None,
    issued_between: Annotated[
        tuple[str, str] | None,
        typer.Option("--issued-between", help="Many: of --issuer, from the first date or time, before the second."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Many, as quash find: a name; .example.org: all below it.")
    ] = None,
    account: Annotated[str | None, typer.Option("--account", help="Many, as quash find: who ordered them.")] = None,
    expires_between: Annotated[
        tuple[str, str] | None, typer.Option("--expires-between", help="Many: by their ends, both included.")
    ] = None,
    per_second: PerSecondOption = None,
    finish_by: FinishByOption = None,
    revoked_at: Annotated[str | None, typer.Option("--revoked-at", help="Since when, RFC 3339; else now.")] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Of many: say what would be revoked, start later.")
    ] = False,
    skip_unknown: Annotated[bool, typer.Option("--skip-unknown", help="Leave out serials that nobody issued.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until OCSP and CRL show it, and say after how long; of many: progress.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would change.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Revokes a certificate for ever. keyCompromise also revokes its siblings and blocks the key.

    With --file, --key, --case, --issued-between, --name, --account or --expires-between: many, as a job that
    `quash job` pauses, resumes, aborts and watches.
    """
    deployment = context(config, state, set_)
    api = Api(deployment, deployment.config.admin, as_)
    since = {} if revoked_at is None else {"revoked_at": period(revoked_at)}
    filtered = _filter(name, account, issuer, issued_between, expires_between)
    many = _many(file, key, case, issuer, None if filtered else issued_between, filtered)
    if many is not None:
        if serial is not None or cert is not None:
            raise QuashError("certificate.unnamed", "name one certificate, or many, not both")
        serials = {} if file is None else {issuer: serials_of(file)}
        asked = {**many, **since, **pace_of(per_second, finish_by), "reason": reason}
        job = prepare(api, asked, serials, skip_unknown=skip_unknown)
        if preview or dry_run:
            tell(job, as_json=json_)
        elif begin(api, job["id"], as_json=json_) and wait:
            tell(follow(api, job["id"]), as_json=json_)
        return
    wait = wait and not dry_run
    named = name_certificate(serial, cert, issuer)
    body = {**named, **since, "reason": reason, "dry_run": dry_run, "wait": wait}
    revoked = api.post("/v1/revocations", body)
    times = wait_until_visible(api, revoked, WAIT_SECONDS) if wait else {}
    _report(revoked, times, as_json=json_, dry_run=dry_run)
    if None in times.values():
        raise QuashError("revocation.not_visible", "revoked, not yet visible: ask again with --wait", Kind.UNAVAILABLE)


def _many(
    file: Path | None,
    key: str | None,
    case: int | None,
    issuer: str | None,
    issued_between: tuple[str, str] | None,
    filtered: dict[str, str],
) -> dict[str, Any] | None:
    """What a mass revocation is asked for; None: no set is named. Raises `mass.ambiguous`."""
    sets: list[dict[str, Any]] = []
    if file is not None:
        sets.append({"list": True})
    if key is not None:
        sets.append({"spki_sha256": key.lower()})
    if case is not None:
        sets.append({"case": case})
    if issued_between is not None:
        after, before = map(period, issued_between)
        sets.append({"issuer": issuer, "issued_after": after, "issued_before": before})
    if filtered:
        sets.append({"filter": filtered})
    if len(sets) > 1:
        raise QuashError("mass.ambiguous", "give one of --file, --key and --case, or what --issuer and dates filter")
    return sets[0] if sets else None


def _filter(
    name: str | None,
    account: str | None,
    issuer: str | None,
    issued_between: tuple[str, str] | None,
    expires_between: tuple[str, str] | None,
) -> dict[str, str]:
    """What certificates are filtered by; empty: at most an issuer and a period are named, a set of its own."""
    if name is None and account is None and expires_between is None:
        return {}
    given = {"name": name, "account": account, "issuer": issuer}
    for what, both in (("issued", issued_between), ("expires", expires_between)):
        if both is not None:
            given |= {f"{what}_from": period(both[0]), f"{what}_to": period(both[1])}
    return {field: value for field, value in given.items() if value is not None}


def wait_until_visible(api: Api, revoked: dict[str, Any], seconds: float) -> dict[str, int | None]:
    """Asks until both times are known, at most for so long; a time that is not known yet is None."""
    deadline = time.monotonic() + seconds
    # What stood already may have been revoked as a sibling, by a mass job or by an import: that act names many.
    named = "" if revoked["changed"] else f"?issuer={revoked['issuer']}&serial={revoked['serial']}"
    while True:
        seen = api.get(f"/v1/revocations/{revoked['act_id']}{named}")
        times = {field: seen[field] for field in _TIMES}
        if None not in times.values() or time.monotonic() > deadline:
            return times
        time.sleep(_POLL)


def _report(revoked: dict[str, Any], times: dict[str, int | None], *, as_json: bool, dry_run: bool) -> None:
    left_out = revoked["siblings_total"] - len(revoked["siblings"])
    if left_out:
        print(f"{left_out} more siblings are revoked by a job", file=sys.stderr)
    if as_json:
        print_json({**{field: revoked[field] for field in _FIELDS}, **times})
        return
    done = ("would revoke" if dry_run else "revoked") if revoked["changed"] else "already revoked"
    print(f"{done}: {revoked['issuer']} {revoked['serial']} ({revoked['reason']})")
    for sibling in revoked["siblings"]:
        print(f"  same key: {sibling['issuer']} {sibling['serial']}")
    for field, said in zip(_TIMES, ("visible on OCSP", "on the published CRL"), strict=True):
        if times.get(field) is not None:
            print(f"  {said} after {times[field]} ms")
