"""`quash cache`: what this node's OCSP cache holds, and whether it is sound. Works beside the running follower."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import typer

from quash.cache.fsck import Report, examine
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    Context,
    JsonOption,
    SetOption,
    StateOption,
    context,
    print_json,
    reports_errors,
)
from quash.errors import Kind, QuashError
from quash.runtime.clock import SystemClock

cache_app = typer.Typer(no_args_is_help=True, add_completion=False)


@cache_app.command("stats")
@reports_errors
def stats(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Counts the records by issuer and status, and says how old and how large the cache is."""
    now = int(SystemClock().now())
    report = _examine(context(config, state, set_), now)
    if json_:
        print_json(_fields(report, now))
        return
    for issuer in _fields(report, now)["issuers"]:
        print("{issuer}: {good} good, {revoked} revoked; {expired} of them past nextUpdate".format(**issuer))
    age = "none yet" if report.heartbeat is None else f"{now - report.heartbeat} s ago"
    print(f"{report.records} records of {report.signers} signers; last heartbeat: {age}; complete: {report.complete}")
    print(f"{report.used_bytes} octets in use, {report.file_bytes} in the file")


@cache_app.command("fsck")
@reports_errors
def fsck(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Reads every record; exit status 1 when something is wrong. The follower mends a cache that is deleted."""
    deployment = context(config, state, set_)
    # By a process of its own first: a damaged page may take its reader along.
    done = subprocess.run(
        [sys.executable, "-m", "quash.cache.fsck", str(deployment.state.cache)], capture_output=True, check=False
    )
    if done.returncode not in (0, 1):
        raise _damaged(f"the file cannot be read (status {done.returncode})")
    report = _examine(deployment, int(SystemClock().now()))
    if json_:
        print_json({"records": report.records, "fault_count": report.fault_count, "faults": report.faults})
    else:
        for fault in report.faults:
            print(fault)
    if report.fault_count or done.returncode:
        raise _damaged(done.stdout.decode("utf-8", "replace") or f"{report.fault_count} faults")
    if not json_:
        print(f"{report.records} records, no fault")


def _examine(deployment: Context, now: int) -> Report:
    return examine(deployment.state.cache, now)


def _fields(report: Report, now: int) -> dict[str, Any]:
    return {
        "records": report.records,
        "signers": report.signers,
        "issuers": [
            {"issuer": each.name, "good": each.good, "revoked": each.revoked, "expired": each.expired}
            for each in report.issuers.values()
        ],
        "heartbeat_age": None if report.heartbeat is None else now - report.heartbeat,
        "complete": report.complete,
        "used_bytes": report.used_bytes,
        "file_bytes": report.file_bytes,
    }


def _damaged(why: str) -> QuashError:
    return QuashError(
        "cache.faulty", f"{why}; stop the follower, delete the cache folder's files and start it again", Kind.INTERNAL
    )
