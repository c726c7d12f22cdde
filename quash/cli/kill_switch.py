"""`quash kill-switch`: stop issuance at once (G21). Revocations, CRLs and OCSP answers go on."""

from __future__ import annotations

from typing import Annotated

import typer

from quash.cli.approve import tell_proposal
from quash.cli.client import Api
from quash.cli.common import (
    JsonOption,
    print_json,
)
from quash.cli.verbs import asks_admin

kill_switch_app = typer.Typer(no_args_is_help=True, add_completion=False)

_PATH = "/v1/kill-switch"
IssuerOption = Annotated[str | None, typer.Option("--issuer", help="This issuer alone; else all of them.")]
WhyOption = Annotated[str, typer.Option("--why", help="For the ledger.")]


@kill_switch_app.command("stop")
@asks_admin()
def stop(
    api: Api,
    *,
    why: WhyOption,
    issuer: IssuerOption = None,
    json_: JsonOption = False,
) -> None:
    """Stops issuance. When this returns, nothing that was under way will still be signed."""
    done = api.post(_PATH, {"issuer": issuer, "stopped": True, "why": why})
    if json_:
        print_json(done)
    else:
        print(f"stopped: {issuer or 'all issuers'}")


@kill_switch_app.command("lift")
@asks_admin("officer")
def lift(
    api: Api,
    *,
    why: WhyOption,
    issuer: IssuerOption = None,
    json_: JsonOption = False,
) -> None:
    """Proposes to lift that switch; a second officer approves it."""
    body = {"issuer": issuer, "stopped": False, "why": why}
    tell_proposal(api.post(_PATH, body), as_json=json_)


@kill_switch_app.command("status")
@asks_admin()
def status(
    api: Api,
    *,
    json_: JsonOption = False,
) -> None:
    """Says what is stopped, since when and by whom."""
    switches = api.get(_PATH)["switches"]
    for each in switches:
        if json_:
            print_json(each)
        else:
            stands = "stopped" if each["stopped"] else "lifted"
            print(f"{each['issuer'] or 'all issuers'}: {stands} at {each['at']} by {each['actor']}: {each['why']}")
    if not switches and not json_:
        print("nothing was ever stopped")
