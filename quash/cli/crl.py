"""`quash crl`: list the published CRLs, have new ones built, and verify them as a stranger would."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from asn1crypto import pem

from quash.cli.client import DEFAULT_OPERATOR, Api, AsOption, IssuerOption, read_file
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

if TYPE_CHECKING:
    from quash.cli.agreement import Findings

crl_app = typer.Typer(no_args_is_help=True, add_completion=False)

_FIELDS = (
    *("issuer", "scope", "url", "number", "entries", "this_update", "next_update", "bytes"),
    *("forecast_bytes", "warnings"),
)
_TRIES = 5  # a CRL may be published between asking the API and fetching
_PAUSE = 0.5  # seconds
_SETTLED = 60  # seconds after which a revocation, or a CRL that is due, must be out
_SAMPLE = 200  # certificates of an issuer whose OCSP answers are asked for
_NO_ARRAY = (
    "check the issuer's name; of a new issuer the CRL builder publishes it within 10 minutes, or give --urls FILE"
)
_NAMED = 10  # of what disagrees; the rest is counted


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
        if not json_:
            for warning in crl["warnings"]:
                print(f"  warning: {warning}")


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


@crl_app.command("replace-future")
@reports_errors
def replace_future(
    *,
    issuer: Annotated[str, typer.Option("--issuer", help="Name of the issuer.")],
    why: Annotated[str, typer.Option("--why", help="What happened; it is kept in the ledger.")],
    scope: Annotated[str | None, typer.Option("--scope", help="One CRL of it: full or a shard's number.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: Annotated[str, typer.Option("--as", help="An officer: NAME.pem and NAME.key in operators/.")] = "officer",
    json_: JsonOption = False,
) -> None:
    """Has CRLs built although those published are from the future: their numbers rise, their thisUpdate goes back."""
    deployment = context(config, state, set_)
    body = {"issuer": issuer, "why": why, **({} if scope is None else {"scope": scope})}
    for each in Api(deployment, deployment.config.admin, as_).post("/v1/crls/replacements", body)["scopes"]:
        if json_:
            print_json(each)
        else:
            print(f"{each['issuer']} {each['scope']}: may be replaced")


@crl_app.command("disclosed")
@reports_errors
def disclosed(
    *,
    issuer: Annotated[str, typer.Option("--issuer", help="Name of the issuer.")],
    urls: Annotated[Path | None, typer.Option("--urls", help="The JSON array, if not the one that is served.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Remembers that CCADB lists these URLs now, after somebody entered them; says what is new and what is gone."""
    deployment = context(config, state, set_)
    served = f"{deployment.config.crl_base}/.well-known/ccadb/{issuer}.json"
    octets = read_file(urls) if urls else _fetch(served, _NO_ARRAY)
    try:
        listed = [url for url in json.loads(octets) if url]
    except (ValueError, TypeError):
        raise QuashError("disclosure.malformed", "this is no JSON array of URLs") from None
    said = Api(deployment, deployment.config.admin, as_).post(
        "/v1/crls/disclosures", {"issuer": issuer, "urls": listed}
    )
    if json_:
        print_json(said)
    else:
        print("\n".join([*(f"added {url}" for url in said["added"]), *(f"removed {url}" for url in said["removed"])]))


@crl_app.command("verify")
@reports_errors
def verify_(
    *,
    whole: Annotated[bool, typer.Option("--whole", help="Ask for the OCSP answers of every certificate.")] = False,
    issuer: IssuerOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Fetches the published CRLs and checks them, every entry, every revocation, and OCSP answers against the API.

    Without --whole both OCSP answers of a sample are asked for.
    """
    deployment = context(config, state, set_)
    api = Api(deployment, deployment.config.admin, as_)
    listed, failed = _listed(api, issuer), 0
    for name in dict.fromkeys(crl["issuer"] for crl in listed):
        verifier = _Verifier(deployment, api, name)
        for line in verifier.lines([crl for crl in listed if crl["issuer"] == name], whole=whole):
            failed += not line["ok"]
            if json_:
                print_json(line)
            else:
                what = line.get("scope") or f"{line['revoked']} revocations, {line['asked']} certificates by OCSP"
                print(f"{name} {what}: {line['problem'] or 'ok'}")
    if failed:
        raise QuashError("crl.verify_failed", f"{failed} things are not as they should be, see above", Kind.REFUSED)


def _listed(api: Api, issuer: str | None) -> list[dict[str, Any]]:
    listed = [crl for crl in api.get("/v1/crls")["crls"] if issuer in (None, crl["issuer"])]
    if not listed:
        raise QuashError("issuer.unknown", f"no issuer has the name {issuer!r}", Kind.NOT_FOUND)
    return listed


class _Verifier:
    """One issuer: its CRLs, then its certificates against them and against OCSP."""

    def __init__(self, deployment: Context, api: Api, issuer: str) -> None:
        self._deployment = deployment
        self._api = api
        self._issuer = issuer
        self._certificate = deployment.state.root / "certs" / f"{issuer}.pem"

    def lines(self, listed: list[dict[str, Any]], *, whole: bool) -> Iterator[dict[str, Any]]:
        """A line for each CRL, and one for the issuer's certificates."""
        crls, problems = dict[str, Crl](), dict[str, str]()
        for each in listed:
            crl, problem = self._verify_one(each)
            if crl is not None:
                crls[each["path"]] = crl
            if problem:
                problems[each["path"]] = problem
        found = self._compare(listed, crls, whole=whole)
        wrong = found.all()
        for each in listed:
            on_it = [str(one) for one in wrong if f"CRL {each['path']}" in one.what]
            problem = "; ".join(filter(None, (problems.get(each["path"]), _shorten(on_it)))) or None
            yield {"issuer": self._issuer, "scope": each["scope"], "ok": problem is None, "problem": problem}
        rest = _shorten([str(one) for one in wrong if not any(f"CRL {crl['path']}" in one.what for crl in listed)])
        counts = {"revoked": found.revoked, "asked": found.asked}
        yield {"issuer": self._issuer, "scope": None, "ok": rest is None, "problem": rest, **counts}

    def _compare(self, listed: list[dict[str, Any]], crls: dict[str, Crl], *, whole: bool) -> Findings:
        """What disagrees, looked at again while it may just not be published yet."""
        from quash.cli.agreement import Comparison  # noqa: PLC0415 - the other verbs do without what it needs

        responders = self._deployment.config.visible_at
        comparison = Comparison(self._api, self._issuer, _read_pem(self._certificate), responders)
        found = comparison.whole(crls, None if whole else _SAMPLE)
        left = _TRIES
        while found.wrong and (left > 0 or found.newest + _SETTLED > time.time()):
            time.sleep(_PAUSE)
            left -= 1
            affected = {path for each in found.all() for path in crls if f"CRL {path}" in each.what}
            fresh = {each["path"]: each for each in _listed(self._api, self._issuer) if each["path"] in affected}
            crls |= {path: crl for path, each in fresh.items() if (crl := self._check(each)[0]) is not None}
            again = comparison.again(crls, list(found.wrong))
            found.wrong = again.wrong
        return found

    def _verify_one(self, listed: dict[str, Any]) -> tuple[Crl | None, str | None]:
        """A CRL and what is wrong with it, None: nothing. One that was replaced meanwhile is looked at again."""
        for left in reversed(range(_TRIES)):
            crl, problem = self._check(listed)
            if problem is None or left == 0:
                break
            time.sleep(_PAUSE)
            listed = next(crl for crl in _listed(self._api, self._issuer) if crl["scope"] == listed["scope"])
        return crl, problem

    def _check(self, listed: dict[str, Any]) -> tuple[Crl | None, str | None]:
        if listed["number"] is None:
            return None, "nothing is published yet"
        try:
            # The path counts: in the demo the URL carries the port that was in force when the scope was made.
            body = _fetch(f"{self._deployment.config.crl_base}/{listed['path']}")
            crl = read_crl(body)
            _check_signature(self._certificate, crl)
        except QuashError as error:
            return None, str(error)
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
        due = listed["due_seconds"]
        if due is not None and due > _SETTLED:  # sound, but nothing follows it
            late = f"a newer one has been due for {timedelta(seconds=due)} and is not out"
            wrong.append(f"{late}: see /readyz and the log of crl-builder")
        return crl, "; ".join(wrong) or None


def _shorten(found: list[str]) -> str | None:
    if not found:
        return None
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"{len(found)} disagree: {'; '.join(found[:_NAMED])}{more}"


def _read_pem(file: Path) -> bytes:
    try:
        _, _, der = pem.unarmor(file.read_bytes())
    except (OSError, ValueError):
        raise QuashError("file.unreadable", f"{file} does not hold the issuer's certificate") from None
    return bytes(der)


def _check_signature(issuer_file: Path, crl: Crl) -> None:
    """Raises `signature.invalid`, `crl.other_issuer`, `file.unreadable`."""
    issuer = read_certificate(_read_pem(issuer_file))
    if crl.issuer != issuer.subject:
        raise QuashError("crl.other_issuer", f"the CRL does not carry the name in {issuer_file}", Kind.REFUSED)
    algorithm = next((each for each in SIGNATURE_ALGORITHMS.values() if each.identifier == crl.algorithm), None)
    if algorithm is None:
        raise QuashError("crl.algorithm", "the CRL is signed with an algorithm that we do not use", Kind.REFUSED)
    verify(issuer.spki, algorithm, algorithm.decode(crl.signature), crl.tbs)


def _fetch(url: str, hint: str = "see quash crl list for what is published") -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - our own http URL
            return bytes(response.read())
    except (OSError, urllib.error.URLError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == HTTPStatus.NOT_FOUND:
            raise QuashError("crl.not_served", f"{url} is not there (yet): {hint}", Kind.NOT_FOUND) from None
        raise QuashError("crl.not_served", f"{url}: {error}", Kind.UNAVAILABLE) from None
