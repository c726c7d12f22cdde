"""`quash names`: the lists of public suffixes and top-level domains (D12, G48)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import typer

from issuer.checks.refresh import refresh
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    SetOption,
    StateOption,
    context,
    reports_errors,
)

names_app = typer.Typer(add_completion=False, no_args_is_help=True)


@names_app.callback()
def _group() -> None:
    """Lists of names."""


@names_app.command("refresh")
@reports_errors
def refresh_(config: ConfigOption = DEFAULT_CONFIG, state: StateOption = DEFAULT_STATE, set_: SetOption = None) -> None:
    """Fetch both lists; every running process takes them up. Run it daily."""
    deployment = context(config, state, set_)
    found = asyncio.run(refresh(deployment.config.names, deployment.state.root / "names"))
    for name, published in found.items():
        print(f"{name} of {datetime.fromtimestamp(published, UTC):%Y-%m-%d}")
