"""`quash blocklist`: files of keys that are refused (D42, D45, G9)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from issuer.checks.blocklist import build, read_source
from quash.cli.common import JsonOption, print_json, reports_errors
from quash.errors import QuashError

blocklist_app = typer.Typer(add_completion=False, no_args_is_help=True)


@blocklist_app.callback()
def _group() -> None:
    """Files of keys that are refused."""


@blocklist_app.command("build")
@reports_errors
def build_(
    source: Annotated[Path, typer.Argument(help="Hexadecimal SHA-256, one a line, or PEM of keys and certificates.")],
    out: Annotated[Path, typer.Argument(help="The file that checks.blocklists names; replaced when whole.")],
    *,
    kind: Annotated[str, typer.Option("--kind", help="spki: of the SPKI; badkeys: of the key's value.")] = "spki",
    json_: JsonOption = False,
) -> None:
    """Make a blocklist file, which the running issuing API takes up."""
    if kind not in ("spki", "badkeys"):
        raise QuashError("blocklist.kind", "the kind is spki or badkeys")
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with (
            source.open(encoding="ascii") as text,
            Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar,
        ):
            task = bar.add_task("", total=source.stat().st_size)
            keys = build(out, kind, read_source(text, kind, lambda count: bar.advance(task, count)))
    except (OSError, UnicodeDecodeError) as error:
        raise QuashError("blocklist.file", str(error)) from None
    if json_:
        print_json({"file": str(out), "kind": kind, "keys": keys})
    else:
        print(f"{out}: {keys} keys")
