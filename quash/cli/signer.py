"""`quash signer`: the delegated OCSP signers, and the emergency switch to a new key."""

from __future__ import annotations

from typing import Annotated

import typer

from quash.cli.client import Api
from quash.cli.common import (
    JsonOption,
    print_json,
)
from quash.cli.verbs import asks_admin

signer_app = typer.Typer(no_args_is_help=True, add_completion=False)
OFFICER = "officer"


@signer_app.command("list")
@asks_admin()
def list_(
    api: Api,
    *,
    json_: JsonOption = False,
) -> None:
    """Lists every OCSP signer that an issuer ever had."""
    for signer in api.get("/v1/signers")["signers"]:
        if json_:
            print_json(signer)
        else:
            print(
                f"{signer['issuer']} {signer['serial']}: {signer['state']}, {signer['algorithm']},"
                f" {signer['not_before']} to {signer['not_after']}"
            )


@signer_app.command("switch")
@asks_admin(OFFICER)
def switch(
    api: Api,
    *,
    issuer: Annotated[str, typer.Option("--issuer", help="Whose signer's key may be known to others.")],
    json_: JsonOption = False,
) -> None:
    """Has the issuer's signer replaced at once, and every answer signed anew by the new key.

    What a stolen key signed is believed until its certificate ends, whatever we do: clients do not ask for a signer's
    status. If that is too long, revoke the issuing CA.
    """
    ordered = api.post("/v1/signers/switches", {"issuer": issuer})
    if json_:
        print_json(ordered)
    else:
        print(f"{ordered['issuer']}: a new signer is ordered; follow it with quash job watch {ordered['job']}")
        if ordered["case"] is not None:
            print(f"case {ordered['case']}: forged answers are possible until the old signer ends; see quash case show")
