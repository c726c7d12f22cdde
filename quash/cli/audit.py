"""`quash audit`: verify and export the ledger. They work on the state directly, and `verify` on an export alone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from issuer.audit.checkpoint_bucket import CheckpointBucket
from issuer.audit.checkpoint_file import NAME
from issuer.audit.verify import Report, Verifier, export_lines, read_keys, verify_database, verify_export
from quash.cli.client import read_file
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
from quash.store import ledger
from quash.store.database import acquire

audit_app = typer.Typer(no_args_is_help=True, add_completion=False)

_LATE = 60  # seconds after which a row should be chained


@audit_app.command("verify")
@reports_errors
def verify(
    *,
    export: Annotated[Path | None, typer.Option("--export", help="Verify this export, without any database.")] = None,
    checkpoints: Annotated[
        list[Path] | None, typer.Option("--checkpoints", help="A copy of checkpoints.jsonl; may be repeated.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Public keys (PEM); else certs/ledger.pub.pem.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Says whether the ledger is whole: no row changed, removed, moved or cut off. Exit status 1 when it is not."""
    verifier = Verifier(read_keys(read_file(key or state / "certs" / "ledger.pub.pem")))
    for file in [*(checkpoints or ()), *([export] if export else ())]:
        if not file.is_file():
            raise QuashError("file.unreadable", f"cannot read {file}")
    late = 0
    if export is not None:
        report = verify_export(verifier, export, checkpoints or [])
    else:
        deployment = context(config, state, set_)
        with running_database(deployment):
            report, late = asyncio.run(_verify_database(deployment, verifier, checkpoints or []))
    _report(report, late, as_json=json_)
    if report.fault_count:
        raise QuashError(
            "ledger.broken", f"{report.fault_count} faults; keep everything as it is and look into it", Kind.INTERNAL
        )


@audit_app.command("export")
@reports_errors
def export(
    *,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; else stdout.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Writes the ledger as JSON lines, checkpoints first: `quash audit verify --export` reads it anywhere."""
    deployment = context(config, state, set_)
    with running_database(deployment):
        if out is None:
            asyncio.run(_export(deployment, sys.stdout.buffer))
            return
        with out.open("wb") as file:
            asyncio.run(_export(deployment, file))


@audit_app.command("checkpoints")
@reports_errors
def checkpoints(
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write: quash audit verify --checkpoints reads it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Fetches the checkpoints that the bucket of `audit.s3` keeps."""
    deployment = context(config, state, set_)
    if deployment.config.audit.s3 is None:
        raise QuashError("ledger.no_bucket", "audit.s3 names no bucket")
    lines = asyncio.run(CheckpointBucket(deployment.config.audit.s3).lines())
    out.write_bytes(b"".join(line + b"\n" for line in lines))
    print(f"{len(lines)} checkpoints")


async def _verify_database(deployment: Context, verifier: Verifier, files: list[Path]) -> tuple[Report, int]:
    for file in files:
        verifier.checkpoints(file.read_bytes().splitlines(), str(file))
    async with owner_pool(deployment) as pool, acquire(pool) as conn:
        late = await ledger.unchained(conn, int(SystemClock().now()) - _LATE)
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            return await verify_database(conn, verifier, deployment.state.ledger / NAME), late


async def _export(deployment: Context, file: BinaryIO) -> None:
    async with (
        owner_pool(deployment) as pool,
        acquire(pool) as conn,
        conn.transaction(isolation="repeatable_read", readonly=True),
    ):
        async for line in export_lines(conn):
            file.write(line + b"\n")
    file.flush()


def _report(report: Report, late: int, *, as_json: bool) -> None:
    position, digest = report.head
    if as_json:
        print_json(
            {
                "entries": report.entries,
                "checkpoints": report.checkpoints,
                "covered": report.covered,
                "position": position,
                "hash": digest.hex(),
                "not_chained": late,
                "fault_count": report.fault_count,
                "faults": report.faults,
            }
        )
        return
    for fault in report.faults:
        print(fault)
    print(f"{report.entries} entries, {report.checkpoints} checkpoints; signed up to position {report.covered}")
    if late:
        print(f"{late} rows of more than {_LATE} s ago are not chained: is the process ledger running?")
    if not report.fault_count:
        print("whole")
