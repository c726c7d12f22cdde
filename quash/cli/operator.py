"""`quash operator`: who may use the APIs. Changes need two officers; the operators' CA signs where its key is (G20)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from quash.cli.approve import tell_proposal
from quash.cli.client import Api, pem, read_file
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
from quash.cli.local import on_the_state
from quash.cli.verbs import asks_admin
from quash.errors import QuashError
from quash.runtime.clock import SystemClock
from quash.store.database import Pool, acquire

operator_app = typer.Typer(no_args_is_help=True, add_completion=False)

NameOption = Annotated[str, typer.Option("--name", help="Short name: letters, digits, dots, hyphens.")]
PersonOption = Annotated[str, typer.Option("--person", help="Who this is: two approvals need two persons.")]
RoleOption = Annotated[str, typer.Option("--role", help="viewer, operator, officer, auditor or reseller.")]
AccountOption = Annotated[str | None, typer.Option("--account", help="Of a reseller: what it sees and revokes.")]
CsrOption = Annotated[Path, typer.Option("--csr", help="PKCS#10 request (PEM) of the key on the operator's token.")]


def _propose(api: Api, body: dict[str, Any], *, as_json: bool) -> None:
    tell_proposal(api.post("/v1/operators", body), as_json=as_json)


@operator_app.command("add")
@asks_admin("officer")
def add(
    api: Api,
    *,
    csr: CsrOption,
    name: NameOption,
    person: PersonOption,
    role: RoleOption,
    account: AccountOption = None,
    json_: JsonOption = False,
) -> None:
    """Proposes a new operator; after the second officer's approval, `quash operator sign` makes the certificate."""
    body = {"name": name, "person": person, "role": role, "csr": _text(csr), "account": account}
    _propose(api, body, as_json=json_)


@operator_app.command("renew")
@asks_admin("officer")
def renew(
    api: Api,
    *,
    csr: CsrOption,
    name: NameOption,
    json_: JsonOption = False,
) -> None:
    """Proposes a new certificate for a known operator, of the same person and role; the old one stays until it ends."""
    known = api.get("/v1/operators")["operators"]
    found = [each for each in known if each["name"] == name and each["state"] == "active"]
    if not found:
        raise QuashError("operator.unknown_name", "no active operator has this name: see quash operator list")
    kept = {key: found[0][key] for key in ("person", "role", "account")}
    body = {"name": name, **kept, "csr": _text(csr), "renews": True}
    _propose(api, body, as_json=json_)


@operator_app.command("disable")
@asks_admin("officer")
def disable(
    api: Api,
    *,
    name: NameOption,
    json_: JsonOption = False,
) -> None:
    """Proposes to disable an operator: out with the next request after the second officer's approval (F9)."""
    done = api.post(f"/v1/operators/{name}/disable", {})
    tell_proposal(done, as_json=json_)


@operator_app.command("list")
@asks_admin("officer")
def list_(
    api: Api,
    *,
    json_: JsonOption = False,
) -> None:
    """Lists all operators, for the quarterly review (F9)."""
    for each in api.get("/v1/operators")["operators"]:
        if json_:
            print_json(each)
        else:
            print("{name}: {role}, {state}, {person}  {fingerprint}".format(**each))


@operator_app.command("sign")
@reports_errors
def sign(
    number: Annotated[int, typer.Argument(help="Number of the approved proposal.")],
    out: Annotated[Path, typer.Option("--out", help="File for the client certificate (PEM).")],
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Signs what two officers approved, at the machine that has the operators' CA key; works on the state itself."""
    # Here alone is a CA key needed: the other verbs are clients.
    from issuer.signer.deployment import Deployment  # noqa: PLC0415
    from issuer.signer.operators import sign_operator  # noqa: PLC0415

    deployment = context(config, state, set_)

    async def run(pool: Pool) -> bytes:
        async with acquire(pool) as conn:
            made = Deployment(deployment.config, deployment.state, pool, SystemClock())
            return await sign_operator(made, conn, number)

    out.write_text(pem(on_the_state(deployment, run)), encoding="ascii")
    print(f"wrote {out}")


def _text(csr: Path) -> str:
    try:
        return read_file(csr).decode("ascii")
    except UnicodeDecodeError:
        raise QuashError("csr.malformed", f"{csr} is not PEM") from None
