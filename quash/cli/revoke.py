"""`quash revoke`: revokes a certificate and, for keyCompromise, every other certificate of its key."""

from __future__ import annotations

import sys
import time
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
    wait: Annotated[bool, typer.Option("--wait", help="Until OCSP and CRL show it, and say after how long.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would change.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Revokes a certificate for ever. keyCompromise also revokes its siblings and blocks the key."""
    deployment = context(config, state, set_)
    api = Api(deployment, deployment.config.admin, as_)
    wait = wait and not dry_run
    body = {**name_certificate(serial, cert, issuer), "reason": reason, "dry_run": dry_run, "wait": wait}
    revoked = api.post("/v1/revocations", body)
    times = wait_until_visible(api, revoked["act_id"], WAIT_SECONDS) if wait else {}
    _report(revoked, times, as_json=json_, dry_run=dry_run)
    if None in times.values():
        raise QuashError("revocation.not_visible", "revoked, not yet visible: ask again with --wait", Kind.UNAVAILABLE)


def wait_until_visible(api: Api, act_id: int, seconds: float) -> dict[str, int | None]:
    """Asks until both times are known, at most for so long; a time that is not known yet is None."""
    deadline = time.monotonic() + seconds
    while True:
        seen = api.get(f"/v1/revocations/{act_id}")
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
