"""Changing an issuer's number of CRL shards: an explicit, audited command (B16, B18, B23).

A certificate keeps the shard that its CRLDP names, so the shards there are stay as long as any certificate names them.
New certificates go to the new number of shards once the CRL of each one is out.
"""

from __future__ import annotations

from typing import Final

from issuer.signer.deployment import Deployment
from issuer.signer.hierarchy import add_scopes
from quash.errors import Kind, QuashError
from quash.store import acts, crl_demands, crls, issuers
from quash.store.crls import ScopeState
from quash.store.database import acquire

MOST: Final = 4096
_ACTOR: Final = "command:shards"
_POLL: Final = 0.5


async def change_shards(deployment: Deployment, name: str, count: int, *, wait: float) -> list[str]:
    """Gives new certificates of an issuer another number of shards; returns the URLs that CCADB must know now.

    Waits so many seconds for the CRLs of new shards. The same again continues what was begun, or changes nothing.
    Raises `issuer.unknown`, `shards.count`, `shards.offline` and `shards.not_published`.
    """
    if not 0 <= count <= MOST:
        raise QuashError("shards.count", f"an issuer has 0 to {MOST} shards")
    async with acquire(deployment.pool) as conn:
        issuer = await issuers.find_by_name(conn, name)
        if issuer is None:
            raise QuashError("issuer.unknown", f"there is no issuer {name}", Kind.NOT_FOUND)
        if issuer.key_ref is None:
            raise QuashError("shards.offline", f"the key of {name} is offline: it has one CRL", Kind.REFUSED)
        # 1. The new scopes, which the CRL builder takes up at once.
        async with conn.transaction():
            await add_scopes(conn, issuer, deployment.config.crl_base, count)
            full = await crls.find_scope(conn, issuer.id, None)
            if count and full is not None and not full.idp:
                # Beside shards it is not complete any more, and must say so (B14).
                await crls.limit(conn, full)
                await crl_demands.add(conn, [full], actor=_ACTOR, at=deployment.now())
            await conn.execute("select pg_notify('crl', '')")
    # 2. No certificate may name a CRL that nobody serves (B18).
    states = await _published(deployment, issuer.id, count, wait)
    # 3. From here on new certificates go there.
    async with acquire(deployment.pool) as conn, conn.transaction():
        urls = [state.scope.url for state in states if count == 0 or state.scope.shard is not None]
        if issuer.shard_count != count:
            await issuers.set_shard_count(conn, issuer.id, count)
            subject = {"issuer": name, "before": issuer.shard_count, "after": count, "disclose": urls}
            await acts.record(conn, at=deployment.now(), actor=_ACTOR, action="issuer.shards", subject=subject)
    return urls


async def _published(deployment: Deployment, issuer_id: int, count: int, wait: float) -> list[ScopeState]:
    deadline = deployment.clock.monotonic() + wait
    while True:
        async with acquire(deployment.pool) as conn:
            states = [each for each in await crls.states(conn) if each.scope.issuer_id == issuer_id]
        late = [each for each in states if _is_used(each, count) and (not each.published or each.dirty_since)]
        if not late:
            return states
        if deployment.clock.monotonic() >= deadline:
            raise QuashError(
                "shards.not_published",
                f"{len(late)} CRLs that new certificates would name are not out, the first {late[0].scope.path}: start"
                " the CRL builder and repeat this; nothing has changed for certificates yet",
                Kind.UNAVAILABLE,
            )
        await deployment.clock.sleep(_POLL)


def _is_used(state: ScopeState, count: int) -> bool:
    return state.scope.shard is None or state.scope.shard < count
