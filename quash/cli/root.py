"""`quash root`: explicit commands with a key that is kept offline (G4, D20), run where that key is for the moment."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from issuer.signer.deployment import Deployment
from issuer.signer.offline import renew_crl, renew_ocsp_signer
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    SetOption,
    StateOption,
    context,
    reports_errors,
)
from quash.cli.local import owner_pool, running_database
from quash.runtime.clock import SystemClock

root_app = typer.Typer(add_completion=False, no_args_is_help=True)
IssuerOption = Annotated[str, typer.Option("--issuer", help="The issuer whose key is offline.")]


@root_app.command("crl")
@reports_errors
def crl(
    issuer: IssuerOption = "root",
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Sign and publish the next CRL: every six months, and at once after a sub-CA was revoked."""
    deployment = context(config, state, set_)

    async def run() -> None:
        async with owner_pool(deployment) as pool:
            made = await renew_crl(Deployment(deployment.config, deployment.state, pool, SystemClock()), issuer)
        Console(stderr=True).print(f"published CRL number {made.number} of {issuer} with {len(made.entries)} entries")

    with running_database(deployment):
        asyncio.run(run())


@root_app.command("ocsp-signer")
@reports_errors
def ocsp_signer(
    issuer: IssuerOption = "root",
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Give the issuer a new OCSP signer; what the old one signed is served until it ends."""
    deployment = context(config, state, set_)

    async def run() -> None:
        async with owner_pool(deployment) as pool:
            await renew_ocsp_signer(Deployment(deployment.config, deployment.state, pool, SystemClock()), issuer)
        Console(stderr=True).print(f"made a new OCSP signer of {issuer}")

    with running_database(deployment):
        asyncio.run(run())
