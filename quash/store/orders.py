"""Orders: the durable side of flow 1. An order goes pending -> ready -> issued, or from either of the first to refused.

held: its names wait for an officer, who makes it pending or refused (G19).
pending: nothing is signed for certain; its serial, once set, is committed (T1).
ready: the certificate is committed (T3) and waits for its OCSP answers. issued: handed out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from quash.errors import Kind, QuashError
from quash.store.database import Connection
from quash.store.locks import TAKING


@dataclass(frozen=True, slots=True)
class Order:
    """One order; times are Unix seconds, `csr` is DER, `code` and `detail` say why it was refused.

    `operator`: whom it is for; `submitted_by`: which operator of a reseller sent it.
    """

    id: UUID
    created_at: int
    operator: str
    profile: str
    csr: bytes
    state: str
    code: str | None
    detail: str | None
    issuer_id: int | None
    serial: bytes | None
    updated_at: int
    released_at: int | None = None
    submitted_by: str | None = None

    @property
    def actor(self) -> str:
        """Who sent it, as acts name them: the account itself for its own orders."""
        return self.submitted_by or self.operator

    @property
    def began_at(self) -> int:
        """From when an unfinished order's age counts."""
        return self.created_at if self.released_at is None else self.released_at

    @property
    def final(self) -> bool:
        return self.state in ("issued", "refused")


CONFLICT = "order.conflict"
COLUMNS = (
    "id, created_at, operator, profile, csr, state, code, detail, issuer_id, serial, updated_at, released_at,"
    " submitted_by"
)


_VALUES = ", ".join(f"${n}" for n in range(1, 14))


async def add(conn: Connection, order: Order) -> None:
    """Stores a new order as it is."""
    await conn.execute(f"insert into certificate_order ({COLUMNS}) values ({_VALUES})", *_row(order))


async def add_locked(conn: Connection, order: Order, lock: int) -> None:
    """Stores a new pending order, whose lock this session has from before anybody can see it (`order_lock`)."""
    await conn.execute(
        f"with {TAKING.format('$14')} insert into certificate_order ({COLUMNS}) select {_VALUES} from alone",
        *_row(order),
        lock,
    )


def _row(order: Order) -> tuple[object, ...]:
    return (
        order.id,
        order.created_at,
        order.operator,
        order.profile,
        order.csr,
        order.state,
        order.code,
        order.detail,
        order.issuer_id,
        order.serial,
        order.updated_at,
        order.released_at,
        order.submitted_by,
    )


async def get(conn: Connection, order_id: UUID) -> Order | None:
    row = await conn.fetchrow(f"select {COLUMNS} from certificate_order where id = $1", order_id)
    return Order(**row) if row else None


async def unfinished(conn: Connection, limit: int, after: tuple[int, UUID] = (-1, UUID(int=0))) -> Sequence[Order]:
    """At most `limit` orders that somebody must still drive, behind `after`, by (created_at, id)."""
    rows = await conn.fetch(
        f"select {COLUMNS} from certificate_order where state in ('pending', 'ready')"
        " and (created_at, id) > ($2::bigint, $3::uuid) order by created_at, id limit $1",
        limit,
        *after,
    )
    return [Order(**row) for row in rows]


@dataclass(frozen=True, slots=True)
class Page:
    """Which orders; None: of anybody, in any state, without an end. `before`, `after`: ids of other orders."""

    applicant: str | None
    state: str | None
    before: UUID | None
    after: UUID | None
    limit: int


async def page(conn: Connection, wanted: Page, *, oldest_first: bool = False) -> Sequence[Order]:
    """One page of orders, else newest first."""
    way = "asc" if oldest_first else "desc"
    rows = await conn.fetch(
        f"select {COLUMNS} from certificate_order where ($1::text is null or operator = $1)"
        " and ($2::text is null or state = $2)"
        " and ($3::uuid is null or (created_at, id) < (select created_at, id from certificate_order where id = $3))"
        " and ($4::uuid is null or (created_at, id) > (select created_at, id from certificate_order where id = $4))"
        f" order by created_at {way}, id {way} limit $5",
        wanted.applicant,
        wanted.state,
        wanted.before,
        wanted.after,
        wanted.limit,
    )
    return [Order(**row) for row in rows]


async def release(conn: Connection, order_id: UUID, at: int) -> None:
    """An officer lets a held order go on."""
    await _change(
        conn,
        "set state = 'pending', detail = null, released_at = $2, updated_at = $2 where id = $1 and state = 'held'",
        order_id,
        at,
    )


async def refuse_held(conn: Connection, order_id: UUID, code: str, detail: str, at: int) -> None:
    """An officer ends a held order."""
    await _change(
        conn,
        "set state = 'refused', code = $2, detail = $3, updated_at = $4 where id = $1 and state = 'held'",
        order_id,
        code,
        detail,
        at,
    )


async def refuse(conn: Connection, order: Order, code: str, detail: str, at: int) -> None:
    """Ends an order that is still in the state, pending or ready, in which its worker saw it."""
    await _change(
        conn,
        "set state = 'refused', code = $2, detail = $3, updated_at = $4"
        " where id = $1 and state = $5 and state in ('pending', 'ready')",
        order.id,
        code,
        detail,
        at,
        order.state,
    )


async def _change(conn: Connection, change: str, order_id: UUID, *values: object) -> None:
    """Raises `order.conflict` when the order is not in the state that the change starts from."""
    done = await conn.fetchval(f"update certificate_order {change} returning true", order_id, *values)
    if not done:
        raise QuashError(CONFLICT, f"order {order_id} is in another state: look at it again", Kind.CONFLICT)
