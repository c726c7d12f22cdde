"""Which certificates are whose (G42): an account is what `certificate_order.operator` says."""

from __future__ import annotations

from collections.abc import Sequence

from quash.store.database import Connection


async def account_of(conn: Connection, issuer_id: int, serial: bytes) -> str | None:
    """Who ordered a certificate; None: nobody, as of imports and of CAs."""
    found: str | None = await conn.fetchval(
        "select o.operator from certificate c join certificate_order o on o.id = c.order_id"
        " where c.issuer_id = $1 and c.serial = $2",
        issuer_id,
        serial,
    )
    return found


async def siblings(
    conn: Connection, account: str, spki_sha256: bytes, unexpired_at: int, limit: int
) -> Sequence[tuple[str, bytes]]:
    """(issuer, serial) of an account's unexpired certificates with a key, by issuer and serial."""
    rows = await conn.fetch(
        "select i.name, c.serial from certificate c join certificate_order o on o.id = c.order_id"
        " join issuer i on i.id = c.issuer_id where c.spki_sha256 = $1 and c.not_after >= $2 and o.operator = $3"
        " order by c.issuer_id, c.serial limit $4",
        spki_sha256,
        unexpired_at,
        account,
        limit,
    )
    return [(row["name"], row["serial"]) for row in rows]
