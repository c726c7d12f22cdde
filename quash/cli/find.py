"""`quash find`, `quash acts`, `quash jobs`: looks around in certificates, in what was done, and in jobs under way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from quash.cli.client import Api
from quash.cli.common import (
    JsonOption,
    print_json,
)
from quash.cli.verbs import asks_admin

LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]
Text = str | None
_PAGE = 1000


@asks_admin()
def find(
    api: Api,
    *,
    name: Annotated[Text, typer.Option("--name", help="DNS name or mailbox; .example.org: all below.")] = None,
    serial: Annotated[Text, typer.Option("--serial", help="In hexadecimal.")] = None,
    spki: Annotated[Text, typer.Option("--spki", help="SHA-256 of the public key (SPKI), hexadecimal.")] = None,
    account: Annotated[Text, typer.Option("--account", help="Who ordered it, for example operator:anna.")] = None,
    issuer: Annotated[Text, typer.Option("--issuer", help="Name of the issuer.")] = None,
    cert_state: Annotated[Text, typer.Option("--in-state", help="reserved, precertificate, issued, imported.")] = None,
    issued_from: Annotated[Text, typer.Option("--issued-from", help="RFC 3339, inclusive.")] = None,
    issued_to: Annotated[Text, typer.Option("--issued-to")] = None,
    expires_from: Annotated[Text, typer.Option("--expires-from")] = None,
    expires_to: Annotated[Text, typer.Option("--expires-to")] = None,
    limit: LimitOption = 100,
    json_: JsonOption = False,
) -> None:
    """Finds certificates; all that is given must hold."""
    asked = {
        "name": name,
        "serial": serial,
        "spki_sha256": spki,
        "account": account,
        "issuer": issuer,
        "state": cert_state,
        "issued_from": issued_from,
        "issued_to": issued_to,
        "expires_from": expires_from,
        "expires_to": expires_to,
    }
    for each in pages(api, "/v1/certificates", "certificates", "after", asked, limit):
        if json_:
            print_json(each)
            continue
        status = f"{each['reason']} since {each['revoked_at']}" if each["reason"] else "not revoked"
        print(f"{each['issuer']} {each['serial']}  until {each['not_after']}  {status}  {' '.join(each['names'])}")


@asks_admin("officer")
def acts(
    api: Api,
    *,
    actor: Annotated[Text, typer.Option("--actor", help="Who did it, for example operator:anna.")] = None,
    action: Annotated[Text, typer.Option("--action", help="What, for example certificate.revoke.")] = None,
    since: Annotated[Text, typer.Option("--since", help="RFC 3339.")] = None,
    limit: LimitOption = 100,
    json_: JsonOption = False,
) -> None:
    """Lists who did what, newest first."""
    asked = {"actor": actor, "action": action, "since": since}
    for each in pages(api, "/v1/acts", "acts", "before", asked, limit):
        if json_:
            print_json(each)
        else:
            print(f"{each['id']:8} {each['at']}  {each['by']:24} {each['action']:28} {each['subject']}")


@asks_admin()
def jobs(
    api: Api,
    *,
    limit: LimitOption = 100,
    json_: JsonOption = False,
) -> None:
    """Lists the jobs that revoke a compromised key's many certificates, newest first; see also quash job."""
    for each in pages(api, "/v1/jobs", "jobs", "before", {}, limit):
        if json_:
            print_json(each)
        else:
            print(f"{each['id']:6} {each['state']:8} {each['done']} of {each['total']}  key {each['spki_sha256']}")


def pages(
    api: Api, path: str, what: str, cursor: str, asked: dict[str, str | None], limit: int
) -> Iterator[dict[str, Any]]:
    """At most `limit` rows, page by page; `cursor` is the name of what a page says of the next one."""
    query: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    while limit > 0:
        query["limit"] = min(limit, _PAGE)
        page = api.get(f"{path}?{urlencode(query)}")
        yield from page[what]
        limit -= len(page[what])
        if page[cursor] is None:
            return
        query[cursor] = page[cursor]
