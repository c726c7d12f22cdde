"""`quash approve`: what waits for a second officer, and that officer's approval."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from quash.cli.client import Api
from quash.cli.common import (
    JsonOption,
    print_json,
)
from quash.cli.verbs import asks_admin
from quash.errors import QuashError

_TIMES = ("until", "revoked_at")  # of payloads: Unix seconds there, since that is what is hashed and kept


@asks_admin("officer2")
def approve(
    api: Api,
    *,
    number: Annotated[int | None, typer.Argument(help="Number of the proposal; without one: list them.")] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="Its hash, as you saw it; without it, it is only shown.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Shows what other officers proposed; with its number and hash, approves it, and it takes effect."""
    if number is None:
        if sha256 is not None:
            raise QuashError("proposal.unnamed", "give the number of the proposal before --sha256")
        for each in api.get("/v1/proposals")["proposals"]:
            tell_proposal(each, as_json=json_)
        return
    path = f"/v1/proposals/{number}"
    shown = api.get(path) if sha256 is None else api.post(f"{path}/approval", {"sha256": sha256})
    tell_proposal(shown, as_json=json_)


def tell_proposal(proposal: dict[str, Any], *, as_json: bool) -> None:
    """Prints a proposal and what to do next."""
    if as_json:
        print_json(proposal)
        return
    print(f"proposal {proposal['id']}: {proposal['action']}, proposed by {proposal['proposed_by']}")
    for name, value in proposal["payload"].items():
        print(f"  {name}: {_readable(value) if name in _TIMES else value}")
    if proposal["approved_by"]:
        print(f"approved by {proposal['approved_by']} at {proposal['approved_at']}")
    else:
        print(f"until {proposal['expires_at']} another officer approves it with:")
        print(f"  quash approve {proposal['id']} --sha256 {proposal['sha256']} --as OFFICER")


def _readable(at: int | None) -> str:
    return "when it takes effect" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
