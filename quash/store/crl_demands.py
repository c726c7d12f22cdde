"""Demands for a CRL now (`quash crl build --now`). `quash.store.crls.states` takes a scope with one for dirty."""

from __future__ import annotations

from collections.abc import Sequence

from quash.store import acts
from quash.store.crls import Scope
from quash.store.database import Connection

DEMAND = "crl.demand"


async def add(conn: Connection, scopes: Sequence[Scope], *, actor: str, at: int) -> None:
    """Makes the scopes due with the transaction's commit, which also hints the builder; one act tells of all."""
    subject = {"scopes": [f"{scope.issuer}/{scope.scope}" for scope in scopes]}
    act_id = await acts.record(conn, at=at, actor=actor, action=DEMAND, subject=subject)
    await conn.execute(
        "insert into crl_demand (at, issuer_id, scope, act_id)"
        " select $1, s.issuer_id, s.scope, $2 from unnest($3::smallint[], $4::text[]) as s (issuer_id, scope)",
        at,
        act_id,
        [scope.issuer_id for scope in scopes],
        [scope.scope for scope in scopes],
    )
    await conn.execute("select pg_notify('crl', '')")
