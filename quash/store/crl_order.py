"""SQL of the revocations that a snapshot does not show, in the order of their transactions."""

from __future__ import annotations

from typing import Final

from quash.store.database import Connection

IN_ORDER: Final = " order by coalesce(r.shard, -1), r.tx, r.id"
IN_ORDER_BACK: Final = " order by coalesce(r.shard, -1) desc, r.tx desc, r.id desc"


def since(issuer_id: str, shard: str, covers: str) -> str:
    """SQL of the revocations `r` of a scope that a snapshot does not show, for the index revocation_order alone.

    Said as a range of shard and transaction, not as an equality: then nothing but this index gives the order, and the
    planner cannot take that on (tx, id), where a mass revocation of one scope lies in the way of all others'. The end
    of the shard is a condition of its own, which ends the scan. `in_index_order` comes before it.
    """
    return (
        f" from revocation r where r.issuer_id = {issuer_id}"
        f" and (coalesce(r.shard, -1), r.tx) >= ({shard}, pg_snapshot_xmin({covers}::pg_snapshot))"
        f" and coalesce(r.shard, -1) <= {shard} and not pg_visible_in_snapshot(r.tx, {covers}::pg_snapshot)"
    )


async def in_index_order(conn: Connection) -> None:
    """Until the transaction ends: a plan made while the table was small must not read and sort it when it is large."""
    await conn.execute("set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off")
