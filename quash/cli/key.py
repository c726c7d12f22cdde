"""`quash key`: compromised and blocked keys. A proof acts at once; what is only asserted needs two officers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from issuer.revocation.blocklists import describe, take_over
from quash.cli import switches
from quash.cli.approve import tell_proposal
from quash.cli.client import Api, CertOption, pem, read_file
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

key_app = typer.Typer(no_args_is_help=True, add_completion=False)

OFFICER = "officer"
_BLOCKED = "/v1/blocked-keys"
_COMPROMISES = "/v1/key-compromises"
KeyArgument = Annotated[str, typer.Argument(help="SHA-256 of the SPKI, hexadecimal.")]
WhyOption = Annotated[str, typer.Option("--why", help="For the ledger.")]
KindOption = Annotated[str, typer.Option("--kind", help="spki (hexadecimal lines) or badkeys (its blocklist file).")]


@key_app.command("challenge")
@asks_admin()
def challenge(
    api: Api,
    *,
    json_: JsonOption = False,
) -> None:
    """Gives a challenge: whoever holds the key signs a request with it as the common name, within an hour."""
    given = api.post(f"{_COMPROMISES}/challenges", {})
    if json_:
        print_json(given)
    else:
        print(f"{given['challenge']}\n  openssl req -new -key stolen.key -subj /CN={given['challenge']} -out proof.csr")


@key_app.command("compromised")
@asks_admin()
def compromised(
    api: Api,
    *,
    private_key: Annotated[Path | None, typer.Option("--private-key", help="The key itself (PEM).")] = None,
    csr: Annotated[Path | None, typer.Option("--csr", help="A request by it over a challenge (PEM).")] = None,
    cert: CertOption = None,
    since: Annotated[str | None, typer.Option("--since", help="Since when: RFC 3339, with its zone.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify and show the reach; change nothing.")] = False,
    json_: JsonOption = False,
) -> None:
    """Hands in a proof: the key is blocked for ever, and every certificate that has it is revoked at once."""
    if (private_key is None) == (csr is None):
        raise QuashError("evidence.unnamed", "give --private-key or --csr, and only one of them")
    name, path = ("private_key", private_key) if private_key else ("csr", csr)
    assert path is not None  # noqa: S101 - one of the two
    body: dict[str, Any] = {name: read_file(path).decode("utf-8", "replace"), "dry_run": dry_run}
    body |= {"certificate": pem(read_file(cert))} if cert else {}
    body |= {"revoked_at": since} if since else {}
    said = api.post(_COMPROMISES, body)
    if json_:
        print_json(said)
        return
    would = "would revoke" if dry_run else "revoked" if said["changed"] else "already revoked"
    print(f"key {said['spki_sha256']}: {would}")
    for issuer, count in said["issuers"].items():
        print(f"  {issuer}: {count} certificates")
    for account, count in said["accounts"].items():
        print(f"  ordered by {account or 'nobody known (imports)'}: {count}")
    for scope, count in said["scopes"].items():
        print(f"  CRL {scope}: {count} entries")
    seconds = said["signing_seconds"]
    print(
        "  signing: not known before the presigner's first measurement"
        if seconds is None
        else f"  signing: {switches.duration(seconds)} (h:mm:ss) at the rate measured last"
    )
    if said["to_revoke"] > said["revoked"] and not dry_run:
        print(f"  {said['to_revoke'] - said['revoked']} of them by a job")


@key_app.command("block")
@asks_admin(OFFICER)
def block(
    api: Api,
    *,
    why: WhyOption,
    key: Annotated[str | None, typer.Argument(help="SHA-256 of the SPKI, hexadecimal.")] = None,
    cert: CertOption = None,
    json_: JsonOption = False,
) -> None:
    """Proposes to block a key without a proof, by its hash or by a certificate, expired or not."""
    named = {"certificate": pem(read_file(cert))} if cert else {"spki_sha256": (key or "").lower()}
    done = api.post(_BLOCKED, {**named, "why": why})
    tell_proposal(done, as_json=json_)


@key_app.command("list")
@asks_admin()
def list_(
    api: Api,
    *,
    json_: JsonOption = False,
) -> None:
    """Lists all blocked keys."""
    after = ""
    while after is not None:
        page = api.get(f"{_BLOCKED}?after={after}")
        for each in page["blocked_keys"]:
            if json_:
                print_json(each)
            else:
                print("{spki_sha256}  {added_at}  {reason}".format(**each))
        after = page["after"]


@key_app.command("show")
@asks_admin()
def show(
    api: Api,
    key: KeyArgument,
) -> None:
    """Shows one blocked key with its proofs and notes, as JSON."""
    print_json(api.get(f"{_BLOCKED}/{key.lower()}"))


@key_app.command("note")
@asks_admin()
def note(
    api: Api,
    key: KeyArgument,
    text: Annotated[str, typer.Argument(help="What to remember of it.")],
) -> None:
    """Annotates a blocked key; nothing removes it."""
    api.post(f"{_BLOCKED}/{key.lower()}/notes", {"note": text})
    print("noted")


@key_app.command("propose-list")
@asks_admin(OFFICER)
def propose_list(
    api: Api,
    file: Annotated[Path, typer.Argument(help="The list.")],
    source: Annotated[str, typer.Option("--source", help="Where it is from.")],
    *,
    kind: KindOption = "spki",
    json_: JsonOption = False,
) -> None:
    """Proposes a list of known-bad keys by its hash; after the second officer, `quash key import` takes it over."""
    body = {**describe(file, kind), "source": source}
    tell_proposal(
        api.post(f"{_BLOCKED}/imports", body),
        as_json=json_,
    )


@key_app.command("import")
@reports_errors
def import_(
    file: Annotated[Path, typer.Argument(help="The list that was approved.")],
    proposal: Annotated[int, typer.Option("--proposal", help="Number of the approved proposal.")],
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Takes an approved list over; works on the state itself. The job runner then sweeps all certificates."""
    deployment = context(config, state, set_)

    async def run(pool: Pool) -> str:
        async with acquire(pool) as conn:
            taken = await take_over(conn, file, proposal, int(SystemClock().now()))
            return f"{taken.entries} entries, {taken.blocked} keys newly blocked"

    print(on_the_state(deployment, run))
