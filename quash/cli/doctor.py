"""`quash doctor`: which linters, lists and logs the issuing back-end finds on this machine."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import typer

from issuer.checks.doctor import Diagnosis, examine
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
from quash.runtime.clock import SystemClock


@reports_errors
def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Exit status 4 when something that the configuration counts on does not work."""
    found = asyncio.run(_examine(context(config, state, set_)))
    for each in found:
        if json_:
            print_json(asdict(each))
        else:
            print(f"{each.state:7} {each.what:20} {each.detail}")
    if any(each.state == "bad" for each in found):
        raise typer.Exit(4)


async def _examine(deployment: Context) -> list[Diagnosis]:
    return [each async for each in examine(deployment.config, deployment.state, SystemClock())]
