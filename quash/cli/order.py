"""`quash order`: what waits for an officer because of its names (G19), and the officer's decision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from quash.cli.client import Api, AsOption
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

order_app = typer.Typer(add_completion=False, no_args_is_help=True)
_Order = Annotated[str, typer.Argument(help="The order's id.")]


@order_app.command("list")
@reports_errors
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = "officer",
    json_: JsonOption = False,
) -> None:
    """Orders that are held, oldest first."""
    deployment = context(config, state, set_)
    for each in _held(Api(deployment, deployment.config.issuer, as_)):
        _tell(each, as_json=json_)


@order_app.command()
@reports_errors
def release(
    order: _Order,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = "officer",
    json_: JsonOption = False,
) -> None:
    """Lets a held order go on; whoever ordered may not."""
    _decide(context(config, state, set_), as_, order, {"release": True}, as_json=json_)


@order_app.command()
@reports_errors
def refuse(
    order: _Order,
    reason: Annotated[str, typer.Option("--reason", help="What the applicant is told.")],
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = "officer",
    json_: JsonOption = False,
) -> None:
    """Ends a held order."""
    _decide(context(config, state, set_), as_, order, {"release": False, "reason": reason}, as_json=json_)


def _held(api: Api) -> Iterator[dict[str, Any]]:
    """All, page by page."""
    after = ""
    while page := api.get(f"/v1/orders?state=held{after}")["orders"]:
        yield from page
        after = f"&after={page[-1]['id']}"


def _decide(deployment: Any, as_: str, order: str, decision: dict[str, Any], *, as_json: bool) -> None:
    api = Api(deployment, deployment.config.issuer, as_)
    _tell(api.post(f"/v1/orders/{order}/decision", decision), as_json=as_json)


def _tell(order: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(order)
    else:
        print(
            f"{order['id']} {order['state']} {order['profile']} {order['created_at']} {order['detail'] or ''}".rstrip()
        )
