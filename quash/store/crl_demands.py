"""Demands for a CRL now (`quash crl build --now`, `quash crl replace-future`).

`quash.store.crls.states` takes a scope with one for dirty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quash.store import acts
from quash.store.crls import Scope
from quash.store.database import Connection

DEMAND = "crl.demand"
REPLACE_FUTURE = "crl.replace_future"


async def add(conn: Connection, scopes: Sequence[Scope], *, actor: str, at: int, replaces_future: str = "") -> None:
    """Makes the scopes due with the transaction's commit, which also hints the builder; one act tells of all.

    `replaces_future`: why the new CRL may be dated before a published one from the future; empty: it may not.
    """
    subject: dict[str, Any] = {"scopes": [f"{scope.issuer}/{scope.scope}" for scope in scopes]}
    action, why = (REPLACE_FUTURE, {"why": replaces_future}) if replaces_future else (DEMAND, {})
    act_id = await acts.record(conn, at=at, actor=actor, action=action, subject=subject | why)
    await conn.execute(
        "insert into crl_demand (at, issuer_id, scope, act_id, replaces_future)"
        " select $1, s.issuer_id, s.scope, $2, $5 from unnest($3::smallint[], $4::text[]) as s (issuer_id, scope)",
        at,
        act_id,
        [scope.issuer_id for scope in scopes],
        [scope.scope for scope in scopes],
        bool(replaces_future),
    )
    await conn.execute("select pg_notify('crl', '')")
