"""Two hundred orders at once, with processes that end between any two steps."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from issuer.issuance.means import Logging
from quash.errors import QuashError
from quash.runtime.clock import FakeClock
from quash.store.roles import ISSUING
from tests.support.issuing import World, make_csr, private_key
from tests.support.transparency import logs_of

PROCESSES = 2  # each with a pool of its own
KEYS = 7  # of so many subscribers: some orders have their key's lock to themselves, others wait for it


class ProcessEndedError(Exception):
    """The process ends here: nothing behind this line runs."""


@pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.long)])
async def test_no_serial_stands_twice_and_none_is_unanswered(
    world: World, database: Any, clock: FakeClock, tmp_path: Path, count: int
) -> None:
    """One in ten steps is a process's last. Afterwards each order has one serial, issued or revoked, or none at all."""
    chance = random.Random(7)

    async def passed(_step: str) -> None:
        if chance.random() < 0.1:
            raise ProcessEndedError

    root = await world.certificate_of("root")
    requests = [make_csr([f"www{key}.example.org"], key=private_key(f"leaf {key}")) for key in range(KEYS)]
    async with logs_of(tmp_path / "list", clock, [root]) as (client, _):
        logging = Logging(world.signer.sign_precertificate, client)
        processes = [
            world.issuance(pool=await database.pool(ISSUING), logging=logging, passed=passed) for _ in range(PROCESSES)
        ]

        async def one(number: int) -> None:
            falling = processes[number % PROCESSES]
            with contextlib.suppress(ProcessEndedError, QuashError):
                order = await falling.submit("operator:ann", "tls-dv", requests[number % KEYS])
                await falling.finish(order.id, timeout=0)

        await asyncio.gather(*map(one, range(count)))
        half_done = await world.fetch("select from certificate_order where state in ('pending', 'ready')")
        assert len(half_done) > count // 10  # otherwise this proves nothing
        restarted = world.issuance(pool=await database.pool(ISSUING), logging=logging)
        while await restarted.step():
            pass

    orders = await world.fetch("select id, state, serial from certificate_order")
    assert len(orders) == count
    assert {order["state"] for order in orders} == {"issued"}
    serials = [order["serial"] for order in orders]
    assert len(set(serials)) == count
    rows = await world.fetch("select serial, state, tbs, der, order_id from certificate")
    assert {row["serial"] for row in rows} == set(serials)
    assert {(row["state"], row["tbs"]) for row in rows} == {("issued", None)}
    signed = await world.fetch(
        "select kind, count(*) as n, count(distinct serial) as serials from signing_log group by 1"
    )
    assert {row["kind"]: (row["n"], row["serials"]) for row in signed} == {
        "precertificate": (count, count),
        "certificate": (count, count),
    }
    news = await world.fetch("select distinct serial from outbox")
    assert {row["serial"] for row in news} == set(serials)
