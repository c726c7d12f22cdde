"""`quash init`: schema, roles, the hierarchy of the configuration, operators' certificates; what exists stays."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from issuer.signer.hierarchy import Say, make_hierarchy
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    Context,
    SetOption,
    StateOption,
    context,
    reports_errors,
)
from quash.cli.local import owner_pool, running_database
from quash.runtime.clock import SystemClock
from quash.store.setup import set_up


@reports_errors
def init(
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only what was made.")] = False,
) -> None:
    """Makes what is missing; may be stopped and run again at any point."""
    deployment = context(config, state, set_)
    console = Console(stderr=True)
    with console.status("starting PostgreSQL"), running_database(deployment):
        asyncio.run(_init(deployment, console.print))
    if not quiet:
        console.print(f"initialised: {deployment.state.root}")
        console.print(
            "Move secrets/offline.passphrase and keys/offline to where the keys of the root and of the operators' CA"
            " shall live."
        )


async def _init(deployment: Context, say: Say) -> None:
    for migration in await set_up(deployment.config, deployment.state, SystemClock()):
        say(f"applied migration {migration.version} {migration.name}")
    async with owner_pool(deployment) as pool:
        await make_hierarchy(deployment.config, deployment.state, pool, SystemClock(), say)
