"""Which CRL a new certificate names (B15, B16), asked for once in a while."""

from __future__ import annotations

from typing import Any

import pytest

from issuer.issuance.crl_urls import CrlUrls
from quash.errors import QuashError
from quash.runtime.clock import FakeClock
from quash.store import crls
from quash.store.roles import ISSUING
from tests.support.issuing import add_hierarchy


async def test_a_url_is_asked_for_once_in_a_while(database: Any, clock: FakeClock) -> None:
    """Each shard has its own; where the origin moves, the old one serves for seconds, and stays in the IDP."""
    issuer = (await add_hierarchy(database.owner, clock))["tls-dv"]
    conn, queries = await (await database.pool(ISSUING)).acquire(), []
    urls = CrlUrls(clock)
    old = [await urls.of(conn, issuer, shard) for shard in range(issuer.shard_count)]
    assert len(set(old)) == issuer.shard_count > 1
    async with database.owner.acquire() as owner:
        scope = await crls.find_scope(owner, issuer.id, 0)
        assert scope is not None
        await crls.move(owner, scope, "http://elsewhere.example/0.crl")
        moved = await crls.find_scope(owner, issuer.id, 0)
    assert moved is not None
    assert old[0] in moved.idp_urls
    conn.add_query_logger(lambda record: queries.append(record.query))
    assert [await urls.of(conn, issuer, shard) for shard in range(issuer.shard_count)] == old
    assert queries == []
    await clock.advance(11)
    assert await urls.of(conn, issuer, 0) == moved.url
    with pytest.raises(QuashError, match=r"no CRL for shard 99"):
        await urls.of(conn, issuer, 99)
