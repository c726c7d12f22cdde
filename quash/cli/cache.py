"""`quash cache`: what this node's OCSP cache holds, and whether it is sound. Works beside the running follower."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from quash.cache.environment import FILE, Environment, open_for_reading
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
from quash.cli.local import owner_pool, running_database
from quash.errors import Kind, QuashError
from quash.runtime.clock import SystemClock
from quash.store.database import acquire
from responder.follow.cache_check import Check, compare, record_count, verify

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
    database: Annotated[bool, typer.Option("--database", help="Hold every record against the database too.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Verifies every record: its signatures, times and freshness, with --database its status as well.

    Exit status: 0 all is well; 1 something is damaged or forged; 3 the database says otherwise, or knows that an answer
    is too old; 4 the cache is stale, or there is none. Without --database nobody knows whether an old answer's
    certificate has ended. It works beside the running follower, which mends a cache that is deleted.
    """
    deployment, check = context(config, state, set_), Check()
    if not (deployment.state.cache / FILE).exists():
        raise QuashError("cache.missing", "there is no cache file; the follower makes it", Kind.UNAVAILABLE)
    # By a process of its own first: a damaged page may take its reader along.
    done = subprocess.run(
        [sys.executable, "-m", "quash.cache.fsck", str(deployment.state.cache)], capture_output=True, check=False
    )
    age, stale = None, True
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace")
        check.add_faults([said or f"the file cannot be read (status {done.returncode})"])
    else:
        _check(deployment, check, database=database)
        now = int(SystemClock().now())
        report = _examine(deployment, now)
        age = None if report.heartbeat is None else now - report.heartbeat
        stale = age is None or age > deployment.config.responder.fresh_seconds
    if json_:
        print_json(asdict(check) | {"heartbeat_age": age, "stale": stale})
    else:
        for line in [*check.faults, *check.disagreements]:
            print(line)
        against = f", {check.compared} compared with the database" if database else ""
        print(f"{check.records} records{against}; {check.expired} past nextUpdate, {check.late} older than a day")
        if (check.expired or check.late) and not database:
            print("--database tells whether the certificates of these have ended")
    _conclude(check, age, stale=stale)


def _check(deployment: Context, check: Check, *, database: bool) -> None:
    """Verifies and compares, with a bar on stderr where a person looks."""
    environment = open_for_reading(deployment.state.cache)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            total = record_count(environment)
            task = bar.add_task("verifying", total=total)
            verify(environment, int(SystemClock().now()), check, lambda count: bar.advance(task, count))
            if database:
                task = bar.add_task("comparing", total=total)
                with running_database(deployment):
                    asyncio.run(_compare(deployment, environment, check, lambda count: bar.advance(task, count)))
    finally:
        environment.close()


async def _compare(deployment: Context, environment: Environment, check: Check, advance: Callable[[int], None]) -> None:
    async with owner_pool(deployment) as pool, acquire(pool) as conn:
        await compare(environment, conn, SystemClock(), check, advance)


def _conclude(check: Check, heartbeat_age: int | None, *, stale: bool) -> None:
    """The exit status, the worst first."""
    if check.fault_count:
        raise _damaged(f"{check.fault_count} faults")
    if check.disagreement_count:
        raise QuashError(
            "cache.disagrees",
            f"{check.disagreement_count} records are too old, or say otherwise than the database: look at follower and"
            " presigner",
            Kind.REFUSED,
        )
    if stale:
        since = "none yet" if heartbeat_age is None else f"{heartbeat_age} s ago"
        raise QuashError("cache.stale", f"the newest heartbeat: {since}; is the follower running?", Kind.UNAVAILABLE)


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
