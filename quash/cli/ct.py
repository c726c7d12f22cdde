"""`quash ct`: the list of Certificate Transparency logs (E9)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import typer

from issuer.ct.log_list import USABLE
from issuer.ct.refresh import refresh
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    SetOption,
    StateOption,
    context,
    reports_errors,
)
from quash.errors import QuashError

ct_app = typer.Typer(add_completion=False, no_args_is_help=True)


@ct_app.callback()
def _group() -> None:
    """Logs."""


@ct_app.command("refresh")
@reports_errors
def refresh_(config: ConfigOption = DEFAULT_CONFIG, state: StateOption = DEFAULT_STATE, set_: SetOption = None) -> None:
    """Fetch the log list and check its signature; the running issuing API takes it up. Run it daily."""
    deployment = context(config, state, set_)
    wanted = deployment.config.ct
    if not wanted.log_list:
        raise QuashError("ct.no_file", "ct.log_list says where the list goes: set it")
    found = asyncio.run(refresh(wanted, deployment.state.root / wanted.log_list))
    usable = sum(each.state == USABLE for each in found.logs)
    print(
        f"log list of {datetime.fromtimestamp(found.made_at, UTC):%Y-%m-%d}: {usable} usable logs of {len(found.logs)}"
    )
