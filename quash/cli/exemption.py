"""`quash exemption`: certificates that mass revocations leave out for a time, by two officers' decision."""

from __future__ import annotations

from typing import Annotated

import typer

from quash.cli.approve import tell_proposal
from quash.cli.client import Api
from quash.cli.common import JsonOption, print_json
from quash.cli.find import LimitOption, pages
from quash.cli.job import period
from quash.cli.verbs import asks_admin

exemption_app = typer.Typer(no_args_is_help=True, add_completion=False)

PATH = "/v1/exemptions"
WhyOption = Annotated[str, typer.Option("--why", help="Shown wherever the certificate is left out.")]


@exemption_app.command("propose")
@asks_admin("officer")
def propose(
    api: Api,
    serials: Annotated[list[str], typer.Argument(help="Serials in hexadecimal.")],
    *,
    why: WhyOption,
    until: Annotated[str, typer.Option("--until", help="RFC 3339; at most 30 days from now.")],
    issuer: Annotated[str | None, typer.Option("--issuer", help="Of serials that several issuers gave out.")] = None,
    json_: JsonOption = False,
) -> None:
    """Proposes to leave certificates out; a second officer approves. Those of a compromised key never are."""
    named = [{"serial": each} | ({"issuer": issuer} if issuer else {}) for each in serials]
    said = api.post(PATH, {"certificates": named, "why": why, "until": period(until)})
    tell_proposal(said, as_json=json_)


@exemption_app.command("list")
@asks_admin()
def list_(api: Api, *, limit: LimitOption = 1000, json_: JsonOption = False) -> None:
    """Lists all decisions, newest first; those that are over as well."""
    for each in pages(api, PATH, "exemptions", "before", {}, limit):
        if json_:
            print_json(each)
            continue
        ends = f"ended {each['ended_at']}" if each["ended_at"] else f"until {each['until']}"
        print(f"{each['id']:6} {each['issuer']} {each['serial']} {ends}: {each['why']}")
        print(f"       decided by {each['proposed_by']} and {each['approved_by']} at {each['decided_at']}")


@exemption_app.command("end")
@asks_admin("officer")
def end(
    api: Api,
    number: Annotated[int, typer.Argument(help="Number of the exemption.")],
    *,
    why: WhyOption,
    json_: JsonOption = False,
) -> None:
    """Ends one before its time; one officer is enough."""
    ended = api.post(f"{PATH}/{number}/end", {"why": why})
    print_json(ended) if json_ else print(f"exemption {number} ended at {ended['ended_at']}")
