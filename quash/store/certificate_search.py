"""Looks for certificates by what is known of them, page by page in the order of (issuer id, serial)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from quash.errors import QuashError
from quash.store.database import Connection

_PATIENCE = "15s"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for; None: anything. Times are Unix seconds, from the first second through the last.

    `name`: a DNS name or mailbox; with a dot before it, all below; `@domain`: all mailboxes of it. `account`: who
    ordered it.
    """

    serial: bytes | None = None
    name: str | None = None
    spki_sha256: bytes | None = None
    account: str | None = None
    issuer_id: int | None = None
    state: str | None = None
    issued_from: int | None = None
    issued_to: int | None = None
    expires_from: int | None = None
    expires_to: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A certificate that was found; `reason` and `revoked_at` are None while it is not revoked."""

    issuer_id: int
    issuer: str
    serial: bytes
    state: str
    profile: str
    spki_sha256: bytes | None
    names: tuple[str, ...]
    account: str | None
    created_at: int
    not_after: int
    reason: int | None
    revoked_at: int | None


_CONDITIONS = {
    "serial": "c.serial = {}",
    "name": "certificate_names(coalesce(c.der, c.tbs)) @> array[lower({})] and coalesce(c.der, c.tbs) is not null",
    "spki_sha256": "c.spki_sha256 = {}",
    "account": "c.order_id in (select id from certificate_order where operator = {})",
    "issuer_id": "c.issuer_id = {}",
    "state": "c.state = {}",
    "issued_from": "c.created_at >= {}",
    "issued_to": "c.created_at <= {}",
    "expires_from": "c.not_after >= {}",
    "expires_to": "c.not_after <= {}",
}
# The page first, then what belongs to each of it.
_SELECT = """
select c.issuer_id, i.name as issuer, c.serial, c.state, c.profile, c.spki_sha256, c.created_at, c.not_after,
       array(select n from unnest(certificate_names(coalesce(c.der, c.tbs))) n where n !~ '^[.@]') as names,
       o.operator as account, r.reason, r.revoked_at
from (select * from certificate c where (c.issuer_id, c.serial) > ($1::smallint, $2::bytea){conditions}
      order by c.issuer_id, c.serial limit $3) c
join issuer i on i.id = c.issuer_id
left join certificate_order o on o.id = c.order_id
left join lateral (select r.reason, r.revoked_at from revocation r
                   where r.issuer_id = c.issuer_id and r.serial = c.serial order by r.version desc limit 1) r on true
order by c.issuer_id, c.serial
"""


def conditions(wanted: Wanted, first: int) -> tuple[str, list[Any]]:
    """SQL that holds of a certificate `c` when all that is wanted does, and its arguments, numbered from `first`.

    Each part begins with ` and `.
    """
    arguments: list[Any] = []
    text = ""
    for name, condition in _CONDITIONS.items():
        value = getattr(wanted, name)
        if value is not None:
            text += " and " + condition.format(f"${first + len(arguments)}")
            arguments.append(value)
    return text, arguments


async def search(conn: Connection, wanted: Wanted, after: tuple[int, bytes], limit: int) -> list[Hit]:
    """At most `limit` certificates behind `after`. Raises `search.too_broad` when it takes too long."""
    where, arguments = conditions(wanted, 4)
    try:
        async with conn.transaction(readonly=True):
            await conn.execute(f"set local statement_timeout = '{_PATIENCE}'")
            rows = await conn.fetch(_SELECT.format(conditions=where), *after, limit, *arguments)
    except asyncpg.QueryCanceledError:
        raise QuashError("search.too_broad", "this takes too long: say more of what is wanted") from None
    return [Hit(**{**row, "names": tuple(row["names"] or ())}) for row in rows]
