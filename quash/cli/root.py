"""`quash root`: explicit commands with a key that is kept offline (G4, D20), run where that key is for the moment."""

from __future__ import annotations

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
from quash.cli.local import on_the_state
from quash.runtime.clock import SystemClock
from quash.store.database import Pool

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

    async def run(pool: Pool) -> None:
        made = await renew_crl(Deployment(deployment.config, deployment.state, pool, SystemClock()), issuer)
        Console(stderr=True).print(f"published CRL number {made.number} of {issuer} with {len(made.entries)} entries")

    on_the_state(deployment, run)


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

    async def run(pool: Pool) -> None:
        await renew_ocsp_signer(Deployment(deployment.config, deployment.state, pool, SystemClock()), issuer)
        Console(stderr=True).print(f"made a new OCSP signer of {issuer}")

    on_the_state(deployment, run)
