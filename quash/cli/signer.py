"""`quash signer`: the delegated OCSP signers, and the emergency switch to a new key."""

from __future__ import annotations

from typing import Annotated

import typer

from quash.cli.client import DEFAULT_OPERATOR, Api, AsOption
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    JsonOption,
    SetOption,
    StateOption,
    context,
    print_json,
    reports_errors,
)

signer_app = typer.Typer(no_args_is_help=True, add_completion=False)
OFFICER = "officer"


@signer_app.command("list")
@reports_errors
def list_(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Lists every OCSP signer that an issuer ever had."""
    deployment = context(config, state, set_)
    for signer in Api(deployment, deployment.config.admin, as_).get("/v1/signers")["signers"]:
        if json_:
            print_json(signer)
        else:
            print(
                f"{signer['issuer']} {signer['serial']}: {signer['state']}, {signer['algorithm']},"
                f" {signer['not_before']} to {signer['not_after']}"
            )


@signer_app.command("switch")
@reports_errors
def switch(
    *,
    issuer: Annotated[str, typer.Option("--issuer", help="Whose signer's key may be known to others.")],
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = OFFICER,
    json_: JsonOption = False,
) -> None:
    """Has the issuer's signer replaced at once, and every answer signed anew by the new key.

    What a stolen key signed is believed until its certificate ends, whatever we do: clients do not ask for a signer's
    status. If that is too long, revoke the issuing CA.
    """
    deployment = context(config, state, set_)
    ordered = Api(deployment, deployment.config.admin, as_).post("/v1/signers/switches", {"issuer": issuer})
    if json_:
        print_json(ordered)
    else:
        print(f"{ordered['issuer']}: a new signer is ordered; watch it with quash signer list")
