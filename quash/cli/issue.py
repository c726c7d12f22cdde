"""`quash issue`: a CSR in, a certificate and its chain out."""

from __future__ import annotations

import base64
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from quash.cli.client import DEFAULT_OPERATOR, Api, AsOption, read_file
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
from quash.errors import Kind, QuashError

_FIELDS = ("serial", "issuer", "profile", "not_after", "certificate", "chain")
_POLL = 0.5  # seconds
_PATIENCE = 30.0  # seconds, beyond what the API itself waits for the public answers


@reports_errors
def issue(
    *,
    profile: Annotated[str, typer.Option("--profile", help="What to issue.")],
    csr: Annotated[Path, typer.Option("--csr", help="PKCS#10 request, PEM or DER.")],
    out: Annotated[Path | None, typer.Option("--out", help="File for the certificate and its chain (PEM).")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Issues a certificate, and hands it out once its OCSP answers are public."""
    deployment = context(config, state, set_)
    api = Api(deployment, deployment.config.issuer, as_)
    patience = deployment.config.issuance.visible_timeout + _PATIENCE
    order = api.post("/v1/orders", {"profile": profile, "csr": _request(read_file(csr))}, timeout=patience)
    order = finished(api, order, patience)
    pem = order["certificate"] + order["chain"]
    if out is not None:
        _write(out, pem)
        print(f"issued {order['issuer']} {order['serial']}, until {order['not_after']}", file=sys.stderr)
    if json_:
        print_json({field: order[field] for field in _FIELDS})
    elif out is None:
        sys.stdout.write(pem)


def _request(body: bytes) -> str:
    return body.decode("ascii") if body.isascii() else base64.b64encode(body).decode("ascii")


def finished(api: Api, order: dict[str, Any], patience: float) -> dict[str, Any]:
    """The order once its certificate is there. Raises its refusal, `order.held`, `order.not_visible`."""
    deadline = time.monotonic() + patience
    while order["certificate"] is None:
        if order["state"] == "refused":
            raise QuashError(order["code"] or "order.refused", order["detail"], Kind.REFUSED)
        if order["state"] == "held":
            raise QuashError("order.held", f"order {order['id']}: {order['detail']}", Kind.REFUSED)
        if time.monotonic() > deadline:
            message = f"order {order['id']} waits for its public OCSP answers: see the log of the responder"
            raise QuashError("order.not_visible", message, Kind.UNAVAILABLE)
        time.sleep(_POLL)
        order = api.get(f"/v1/orders/{order['id']}")
    return order


def _write(out: Path, pem: str) -> None:
    try:
        out.write_text(pem, encoding="ascii")
    except OSError as error:
        sys.stdout.write(pem)  # it exists and is paid for: rather here than nowhere
        raise QuashError("file.unwritable", f"cannot write {out}: {error.strerror}; it is on stdout") from None
