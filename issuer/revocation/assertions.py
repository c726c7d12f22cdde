"""Keys that are blocked because two officers say so, without a proof: one by one, or a list."""

from __future__ import annotations

from typing import Any, Final

from quash.store import blocked_keys
from quash.store.database import Connection

BLOCK: Final = "key.block"


async def block(conn: Connection, payload: dict[str, Any], now: int, act_id: int) -> None:
    """The effect of an approved `{spki_sha256, why}`; the sweep revokes what certificates have."""
    key = bytes.fromhex(payload["spki_sha256"])
    await blocked_keys.block(conn, key, reason=f"asserted: {payload['why']}", added_at=now, act_id=act_id)


async def allow_import(_conn: Connection, _payload: dict[str, Any], _now: int, _act_id: int) -> None:
    """Nothing more to do here: the approval lets the list be taken over where it lies."""
