"""kill -9 of each process at moments that nobody chose, while certificates are issued, revoked and asked for."""

from __future__ import annotations

import asyncio
import random

import pytest

from loadtest.system import System
from tests.support.faults import VICTIMS, Records, assert_everything_holds, kill
from tests.support.traffic import Traffic

_SOON = 0.4


async def test_each_process_is_killed_once_under_traffic(system: System, records: Records) -> None:
    """One after the other in any order, some before the last is back: nobody was told what does not hold."""
    chance = random.Random()
    victims = chance.sample(list(VICTIMS), len(VICTIMS))
    async with Traffic(system) as traffic:
        await traffic.progress()
        for victim in victims:
            await asyncio.sleep(chance.uniform(0, _SOON))
            await kill(system, victim)
            await traffic.progress()
        told = await traffic.stop()

    assert traffic.answers > len(victims)
    await assert_everything_holds(system, records, told)


@pytest.mark.long
@pytest.mark.parametrize("victim", VICTIMS)
async def test_one_process_is_killed_many_times_under_traffic(system: System, records: Records, victim: str) -> None:
    """At six moments, also while it starts again."""
    chance = random.Random()
    async with Traffic(system) as traffic:
        await traffic.progress()
        for number in range(6):
            await asyncio.sleep(chance.uniform(0, _SOON))
            await kill(system, victim)
            if number % 2:
                await traffic.progress()
        told = await traffic.stop()

    await assert_everything_holds(system, records, told)
