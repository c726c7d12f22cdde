"""The transactions of flow 1 (`issuer.issuance`), one statement each: whole or not at all, and in one round trip.

Each begins with the row whose state it starts from, and does the rest for what it found there alone. So it never does
half: False says that the order or its certificate is in another state, and that nothing was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from quash.store import certificates, issuers, orders
from quash.store.certificates import Certificate, Reservation
from quash.store.database import Connection
from quash.store.lint_results import LintResult
from quash.store.locks import TRYING, UNLOCKED, UNLOCKING, given_back, held, not_taken
from quash.store.orders import Order


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What stands against signing now: the kill switch (G21), a blocked key (C9), a revocation of the serial (E8)."""

    stopped: bool
    blocked: bool
    revoked: bool


@dataclass(frozen=True, slots=True)
class Prospect:
    """What is known of a key and of the issuer asked for. `ours`: it is a CA's, or of a profile without subscribers."""

    ours: bool
    chain: issuers.Chain
    obstacles: Obstacles


Linted = Sequence[LintResult]

_ORDER = ", ".join(f"o.{column}" for column in orders.COLUMNS.split(", "))
_CERTIFICATE = ", ".join(f"c.{column}" for column in certificates.COLUMNS.split(", "))
_WIDTH = len(orders.COLUMNS.split(", "))

_PROSPECT = issuers.chain_query(
    "name",
    ", exists (select from issuer where spki = $2)"
    " or exists (select from certificate where spki_sha256 = sha256($2) and profile = any($3)) as ours,"
    f" {issuers.stopped('i.id')} as stopped,"
    " exists (select from blocked_key where spki_sha256 = sha256($2)) as blocked",
)
_CHAIN_AND_CERTIFICATE = issuers.chain_query(
    "id",
    ", leaf.not_after as until, leaf.der as leaf",
    "left join certificate leaf on height = 1 and leaf.issuer_id = i.id and leaf.serial = $2",
)

# What linters said of a document, of the order that the transaction found.
_LINTED = (
    "insert into lint_result (at, order_id, document, linter, version, findings, refused)"
    " select said.at, found.order_id, said.document, said.linter, said.version, said.findings::jsonb,"
    " said.refused"
    " from found, unnest({}) as said (at, document, linter, version, findings, refused)"
)


async def read(conn: Connection, order_id: UUID) -> tuple[Order, Reservation | None] | None:
    """An order and what T1 committed for it, of one moment."""
    row = await conn.fetchrow(
        f"select {_ORDER}, c.tbs, c.created_at as reserved_at, {_CERTIFICATE} from certificate_order o"
        " left join certificate c on c.issuer_id = o.issuer_id and c.serial = o.serial where o.id = $1",
        order_id,
    )
    if row is None:
        return None
    order, (tbs, reserved_at, *certificate) = Order(*row[:_WIDTH]), row[_WIDTH:]
    if reserved_at is None:
        return order, None
    return order, Reservation(Certificate(*certificate), tbs, order_id, reserved_at)


async def prospect(conn: Connection, issuer: str, spki: bytes, profiles: Sequence[str]) -> Prospect | None:
    """Of a key (DER SPKI) and an issuer by its name; `profiles` have no subscribers. None: there is no such issuer."""
    rows = await conn.fetch(_PROSPECT, issuer, spki, list(profiles))
    if not rows:
        return None
    first = rows[0]
    return Prospect(
        first["ours"],
        [issuers.read_shown(row) for row in rows],
        Obstacles(stopped=first["stopped"], blocked=first["blocked"], revoked=False),
    )


async def chain_and_certificate(
    conn: Connection, issuer_id: int, serial: bytes
) -> tuple[issuers.Chain, int, bytes | None] | None:
    """An issuer's chain, and notAfter and DER of a certificate of its. None: there is no such certificate."""
    rows = await conn.fetch(_CHAIN_AND_CERTIFICATE, issuer_id, serial)
    if not rows or rows[0]["until"] is None:
        return None
    return [issuers.read_shown(row) for row in rows], rows[0]["until"], rows[0]["leaf"]


async def obstacles(
    conn: Connection, locks: tuple[int, int], issuer_id: int, spki_sha256: bytes, serial: bytes | None
) -> Obstacles:
    """Takes `locks` (`quash.store.locks.locks_to_sign`), then looks: what it finds holds while the caller has them.

    `serial`: if there is one.
    """
    row = await conn.fetchrow(
        "select stopped, blocked, revoked from obstacles_under_locks($1, $2, $3, $4, $5)",
        *locks,
        issuer_id,
        spki_sha256,
        serial,
    )
    return Obstacles(**row)


async def reserve(conn: Connection, order_id: UUID, row: Certificate, tbs: bytes, *, at: int, linted: Linted) -> bool:
    """T1: serial, TBS and key of a pending order without one, and what linters said of the twin.

    Raises a unique violation when the serial is taken.
    """
    return await _done(
        conn,
        "with found as (update certificate_order set issuer_id = $2, serial = $3, updated_at = $11"
        " where id = $1 and state = 'pending' and serial is null returning id as order_id),"
        f" linted as ({_LINTED.format(_arrays(12))}),"
        " reserved as (insert into certificate (issuer_id, serial, state, profile, tbs, spki_sha256, not_before,"
        " not_after, shard, bucket, order_id, created_at)"
        " select $2, $3, 'reserved', $4, $5, $6, $7, $8, $9, $10, order_id, $11 from found)"
        " select count(*) from found",
        order_id,
        row.issuer_id,
        row.serial,
        row.profile,
        tbs,
        row.spki_sha256,
        row.not_before,
        row.not_after,
        row.shard,
        row.bucket,
        at,
        *_columns(linted),
    )


async def set_precertificate(conn: Connection, issuer_id: int, serial: bytes, der: bytes) -> bool:
    """T2: a reserved serial has its precertificate, which is answered for from now on (A8); news for the presigner.

    The session's locks end with it.
    """
    done = await _asked_and_unlocked(
        conn,
        "with found as (update certificate set state = 'precertificate', der = $3, tbs = null"
        " where issuer_id = $1 and serial = $2 and state = 'reserved' returning issuer_id, serial),"
        " news as (insert into outbox (lane, kind, issuer_id, serial)"
        " select 0, 'certificate', issuer_id, serial from found),"
        f" {UNLOCKING.format(exclusive='$4', shared='$5')}"
        f" select (select count(*) from found), (select pg_notify('outbox', '') from found), {UNLOCKED}",
        issuer_id,
        serial,
        der,
    )
    return bool(done)


async def set_final_tbs(
    conn: Connection, issuer_id: int, serial: bytes, tbs: bytes, *, linted: Linted, lock: int
) -> bool:
    """The only bytes that may be signed as the certificate of a precertificate, and what linters said of their twin.

    It takes the order's lock (`quash.store.locks.order_lock`): False also says that another session has it.
    """
    row = await conn.fetchrow(
        f"with {TRYING.format('$4')},"
        " found as (update certificate c set tbs = $3 from alone where alone.alone and c.issuer_id = $1"
        " and c.serial = $2 and c.state = 'precertificate' and c.tbs is null returning c.order_id),"
        f" linted as ({_LINTED.format(_arrays(5))})"
        " select (select alone from alone) as alone, (select count(*) from found) as found",
        issuer_id,
        serial,
        tbs,
        lock,
        *_columns(linted),
    )
    if not row["alone"]:
        not_taken(conn, lock)
    return bool(row["found"])


async def complete(
    conn: Connection,
    order: Order,
    der: bytes,
    at: int,
    *,
    news: bool,
    logged: bool,
    answered: bool,
    action: str,
    subject: Mapping[str, Any],
) -> str | None:
    """T3: the certificate, the order's new state, and the act. None: it was in another state than it must be.

    `news`: the presigner has to hear of the serial. `logged`: the certificate goes to a log as well (E6). `answered`:
    the public's answers were seen, so that the certificate leaves at once unless it was revoked: `issued`, not `ready`.

    The order's row is locked first, so that what is found to be pending stays it until the commit. The session's locks
    end with it.
    """
    state: str | None = await _asked_and_unlocked(
        conn,
        "with pending as materialized (select id from certificate_order where id = $1 and state = 'pending'"
        " and issuer_id = $2 and serial = $3 for update),"
        " found as (update certificate c set state = 'issued', der = $4, tbs = null from pending"
        " where c.issuer_id = $2 and c.serial = $3 and c.state in ('reserved', 'precertificate')"
        " returning c.issuer_id, c.serial),"
        " ended as (update certificate_order o set updated_at = $5, state = case when $11 and not exists"
        " (select from revocation where issuer_id = $2 and serial = $3) then 'issued' else 'ready' end"
        " from found where o.id = $1 returning o.state),"
        " told as (insert into act (at, actor, action, subject) select $5, $6, $7, $8 from found),"
        " news as (insert into outbox (lane, kind, issuer_id, serial)"
        " select 0, 'certificate', issuer_id, serial from found where $9),"
        " submitted as (insert into final_submission (issuer_id, serial, added_at, next_at)"
        " select issuer_id, serial, $5, $5 from found where $10),"
        f" {UNLOCKING.format(exclusive='$12', shared='$13')}"
        f" select (select state from ended), (select pg_notify('outbox', '') from found where $9), {UNLOCKED}",
        order.id,
        order.issuer_id,
        order.serial,
        der,
        at,
        order.actor,
        action,
        subject,
        news,
        logged,
        answered,
    )
    return state


async def release(conn: Connection, order: Order, at: int) -> bool:
    """Lets the certificate of a ready order leave, unless it was revoked; one that left already stays as it is."""
    return await _done(
        conn,
        "with found as (update certificate_order set state = 'issued',"
        " updated_at = case state when 'issued' then updated_at else $4 end"
        " where id = $1 and state in ('ready', 'issued') and not exists"
        " (select from revocation where issuer_id = $2 and serial = $3) returning id)"
        " select count(*) from found",
        order.id,
        order.issuer_id,
        order.serial,
        at,
    )


def _arrays(first: int) -> str:
    kinds = ("bigint[]", "text[]", "text[]", "text[]", "text[]", "boolean[]")
    return ", ".join(f"${first + n}::{kind}" for n, kind in enumerate(kinds))


def _columns(linted: Linted) -> list[list[Any]]:
    """Findings are lists, which the driver would take for another dimension of the array."""
    columns = [(r.at, r.document, r.linter, r.version, orjson.dumps(r.findings).decode(), r.refused) for r in linted]
    return [list(column) for column in zip(*columns, strict=True)] or [[] for _ in range(6)]


async def _asked_and_unlocked(conn: Connection, statement: str, *arguments: object) -> Any:
    """What a statement says first, whose last two arguments are the session's locks."""
    found = await conn.fetchval(statement, *arguments, *held(conn))
    given_back(conn)
    return found


async def _done(conn: Connection, statement: str, *arguments: object) -> bool:
    return bool(await conn.fetchval(statement, *arguments))
