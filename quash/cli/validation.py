"""`quash validation`: what officers say was validated for whom, by which method and when (F2, D21-D24)."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

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

validation_app = typer.Typer(add_completion=False, no_args_is_help=True)
_Kind = Annotated[str, typer.Argument(help="dns, email, organization or person.")]
_Value = Annotated[
    str,
    typer.Argument(
        help="A name, a mailbox, COUNTRY/ORGANIZATION and what else of it was validated, as in"
        " TN/Essai/L=Tunis/organizationIdentifier=NTRTN-1, or its person: TN/Essai/GN=Amel/SN=Ben Salah."
    ),
]
_For = Annotated[str, typer.Option("--for", help="Who may order it, as acts name them: operator:ann.")]


@validation_app.command()
@reports_errors
def add(
    kind: _Kind,
    value: _Value,
    for_: _For,
    method: Annotated[str, typer.Option("--method", help="Of the rules: 3.2.2.4.7.")],
    mailbox: Annotated[
        str | None,
        typer.Option("--mailbox", help="Of 3.2.2.4.4: admin@, administrator@, webmaster@, hostmaster@ or postmaster@."),
    ] = None,
    at: Annotated[str | None, typer.Option("--at", help="When, RFC 3339; empty: now.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = "officer",
    json_: JsonOption = False,
) -> None:
    """Record that an identifier was validated; the applicant may not record for itself."""
    body = {"applicant": for_, "kind": kind, "value": value, "method": method, "validated_at": at}
    body["mailbox"] = mailbox
    deployment = context(config, state, set_)
    _tell(Api(deployment, deployment.config.issuer, as_).post("/v1/validations", body), as_json=json_)


@validation_app.command()
@reports_errors
def withdraw(
    kind: _Kind,
    value: _Value,
    for_: _For,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = "officer",
) -> None:
    """Take an identifier's validation back; what was issued stays until it is revoked."""
    body = {"applicant": for_, "kind": kind, "value": value}
    deployment = context(config, state, set_)
    Api(deployment, deployment.config.issuer, as_).post("/v1/validations/withdrawals", body)


@validation_app.command("list")
@reports_errors
def list_(
    for_: _For,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = "officer",
    json_: JsonOption = False,
) -> None:
    """What counts as validated for somebody."""
    deployment = context(config, state, set_)
    path = f"/v1/validations?applicant={quote(for_, safe='')}"
    for each in Api(deployment, deployment.config.issuer, as_).get(path)["validations"]:
        _tell(each, as_json=json_)


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        print(f"{row['kind']} {row['value']} {row['method']} {row['validated_at']}")
