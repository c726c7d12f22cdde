"""`quash crl`: list the published CRLs, have new ones built, and verify them as a stranger would."""

from __future__ import annotations

import hashlib
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer
from asn1crypto import pem

from quash.cli.client import DEFAULT_OPERATOR, Api, AsOption, IssuerOption
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    Context,
    JsonOption,
    SetOption,
    StateOption,
    context,
    print_json,
    reports_errors,
)
from quash.errors import Kind, QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.certificate import read_certificate
from quash.pki.crl import Crl, read_crl

crl_app = typer.Typer(no_args_is_help=True, add_completion=False)

_FIELDS = ("issuer", "scope", "url", "number", "entries", "this_update", "next_update", "bytes")
_TRIES = 5  # a CRL may be published between asking the API and fetching
_PAUSE = 0.5  # seconds


@crl_app.command("list")
@reports_errors
def list_(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Lists every CRL with its number, times and size."""
    deployment = context(config, state, set_)
    for crl in Api(deployment, deployment.config.admin, as_).get("/v1/crls")["crls"]:
        if json_:
            print_json({field: crl[field] for field in _FIELDS})
        elif crl["number"] is None:
            print(f"{crl['issuer']} {crl['scope']}: none yet  {crl['url']}")
        else:
            print(
                f"{crl['issuer']} {crl['scope']}: number {crl['number']}, {crl['entries']} entries,"
                f" {crl['bytes']} octets, {crl['this_update']} to {crl['next_update']}  {crl['url']}"
            )


@crl_app.command("build")
@reports_errors
def build(
    *,
    now: Annotated[bool, typer.Option("--now", help="Whatever the schedule says.")] = False,
    issuer: IssuerOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Has new CRLs built at once; without --now there is nothing to ask for, since due ones are built anyway."""
    if not now:
        raise QuashError("crl.not_now", "CRLs that are due are built by themselves; to have them all now, add --now")
    deployment = context(config, state, set_)
    body = {} if issuer is None else {"issuer": issuer}
    for scope in Api(deployment, deployment.config.admin, as_).post("/v1/crls/builds", body)["scopes"]:
        if json_:
            print_json(scope)
        else:
            print(f"{scope['issuer']} {scope['scope']}: due now")


@crl_app.command("verify")
@reports_errors
def verify_(
    *,
    issuer: IssuerOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Fetches the published CRLs and checks signature, times, number, entries and bytes against the API."""
    deployment = context(config, state, set_)
    api = Api(deployment, deployment.config.admin, as_)
    failed = 0
    for listed in _listed(api, issuer):
        problem = _verify_one(deployment, api, listed)
        failed += problem is not None
        if json_:
            print_json(
                {"issuer": listed["issuer"], "scope": listed["scope"], "ok": problem is None, "problem": problem}
            )
        else:
            print(f"{listed['issuer']} {listed['scope']}: {problem or 'ok'}")
    if failed:
        raise QuashError("crl.verify_failed", f"{failed} CRLs are not as they should be, see above", Kind.REFUSED)


def _listed(api: Api, issuer: str | None) -> list[dict[str, Any]]:
    listed = [crl for crl in api.get("/v1/crls")["crls"] if issuer in (None, crl["issuer"])]
    if not listed:
        raise QuashError("issuer.unknown", f"no issuer has the name {issuer!r}", Kind.NOT_FOUND)
    return listed


def _verify_one(deployment: Context, api: Api, listed: dict[str, Any]) -> str | None:
    """What is wrong with one CRL, None: nothing. A CRL that was replaced meanwhile is looked at again."""
    problem: str | None = "nothing is published yet"
    for left in reversed(range(_TRIES)):
        problem = _check(deployment, listed)
        if problem is None or left == 0:
            return problem
        time.sleep(_PAUSE)
        listed = next(crl for crl in _listed(api, listed["issuer"]) if crl["scope"] == listed["scope"])
    return problem


def _check(deployment: Context, listed: dict[str, Any]) -> str | None:
    if listed["number"] is None:
        return "nothing is published yet"
    try:
        # The path counts: in the demo the URL carries the port that was in force when the scope was made.
        body = _fetch(f"{deployment.config.crl_base}/{listed['path']}")
        crl = read_crl(body)
        _check_signature(deployment.state.root / "certs" / f"{listed['issuer']}.pem", crl)
    except QuashError as error:
        return str(error)
    wrong = [
        f"{name} is {found!r}, the API says {expected!r}"
        for name, found, expected in (
            ("number", crl.number, listed["number"]),
            ("entries", len(crl.entries), listed["entries"]),
            ("bytes", len(body), listed["bytes"]),
            ("sha256", hashlib.sha256(body).hexdigest(), listed["sha256"]),
            ("IDP", crl.idp_urls[:1], (listed["url"],) if crl.idp_urls else ()),
        )
        if found != expected
    ]
    if crl.next_update < time.time():
        wrong.append("nextUpdate has passed")
    return "; ".join(wrong) or None


def _check_signature(issuer_file: Path, crl: Crl) -> None:
    """Raises `signature.invalid`, `crl.other_issuer`, `file.unreadable`."""
    try:
        _, _, der = pem.unarmor(issuer_file.read_bytes())
    except (OSError, ValueError):
        raise QuashError("file.unreadable", f"{issuer_file} does not hold the issuer's certificate") from None
    issuer = read_certificate(der)
    if crl.issuer != issuer.subject:
        raise QuashError("crl.other_issuer", f"the CRL does not carry the name in {issuer_file}", Kind.REFUSED)
    algorithm = next((each for each in SIGNATURE_ALGORITHMS.values() if each.identifier == crl.algorithm), None)
    if algorithm is None:
        raise QuashError("crl.algorithm", "the CRL is signed with an algorithm that we do not use", Kind.REFUSED)
    verify(issuer.spki, algorithm, algorithm.decode(crl.signature), crl.tbs)


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - our own http URL
            return bytes(response.read())
    except (OSError, urllib.error.URLError) as error:
        raise QuashError("crl.not_served", f"{url}: {error}", Kind.UNAVAILABLE) from None
