"""One presigner at a time: what another one took over cannot be written by the first any more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from quash.errors import QuashError
from quash.keys import KeyUnavailable
from quash.runtime.clock import FakeClock
from quash.store.database import acquire
from responder.presign.desk import SigningDesk
from responder.presign.metrics import ALARMS
from tests.unit.presign.test_answered import fill


async def test_the_second_stands_by_until_the_first_goes(world: Any) -> None:
    """Only the holder of the lease works; when it goes, the next one does."""
    authority = await world.authority()
    first, second = await world.presigner(), await world.presigner()
    await first.step()
    serial = await world.issue(authority)
    assert await second.step() == 0
    assert not second.leading
    await first.close()
    assert await second.step() > 0
    assert second.leading
    assert (authority.id, serial) in await world.cache()


class Machine:
    """Where one presigner finds its keys; they can be away there alone."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.away = False

    def open_key(self, ref: str) -> Any:
        machine, key = self, self._world.open_key(ref)
        real = key.sign

        def sign(tbs: bytes) -> bytes:
            if machine.away:
                raise KeyUnavailable("the token of this machine is away")
            return bytes(real(tbs))

        key.sign = sign
        if self.away:
            raise KeyUnavailable("the token of this machine is away")
        return key

    async def presigner(self) -> Any:
        return await self._world.presigner(open_key=self.open_key)


def gave_up() -> float:
    return float(ALARMS.labels("presign.gave_up")._value.get())


async def together(world: Any, seconds: int, *presigners: Any) -> None:
    """Some time of several processes, each stepping each second; looks in the background come to an end."""
    for _ in range(seconds):
        await world.clock.advance(1)
        for each in presigners:
            await each.step()
            if each._looking is not None:
                await asyncio.wait([each._looking])


async def test_leader_without_key_keeps_lease(world: Any) -> None:
    """Not for ever, where another one has it: heartbeats would go on while no revocation comes out."""
    authority = await world.authority()
    serial = await world.issue(authority)
    here, there = Machine(world), Machine(world)
    first, second = await here.presigner(), await there.presigner()
    await together(world, 3, first, second)
    assert (first.leading, second.leading) == (True, False)
    here.away = True
    await world.revoke(authority, serial)
    await together(world, 25, first, second)
    assert first.leading, "a token may be away for a moment"
    assert first.key_problems
    await together(world, 10, first, second)
    assert (first.leading, second.leading) == (False, True)
    assert (await world.cache())[authority.id, serial].version == 1
    await together(world, 120, first, second)
    assert (first.leading, second.leading) == (False, True), "and it stays there"
    assert first.key_problems
    here.away = False
    await together(world, 60, first, second)
    assert not first.key_problems
    assert second.leading


async def test_nobody_gives_up_for_one_who_lacks_the_key_too(world: Any) -> None:
    """The lease would go to and fro; the issuers whose keys are there are signed for meanwhile."""
    authority = await world.authority()
    here, there = Machine(world), Machine(world)
    first, second = await here.presigner(), await there.presigner()
    await together(world, 3, first, second)
    await world.issue(authority)
    here.away = there.away = True
    await together(world, 180, first, second)
    assert (first.leading, second.leading) == (True, False)
    there.away = False
    await together(world, 20, first, second)
    assert (first.leading, second.leading) == (False, True)


async def test_who_gave_up_in_vain_goes_on(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that offered is gone: after ten seconds what can be signed is signed on, without another try soon."""
    authority, other = await world.authority(), await world.authority("tls-ov")
    here, there = Machine(world), Machine(world)
    first, second = await here.presigner(), await there.presigner()
    await together(world, 3, first, second)
    (lacking,) = [signer.key_ref for signer in first._tenure.roster.signers if signer.issuer_id == authority.id]
    real = world.open_key

    def open_key(ref: str) -> Any:
        if ref == lacking:
            raise KeyUnavailable("this one is away")
        return real(ref)

    monkeypatch.setattr(first._desk._keys, "_open_key", open_key)
    first._desk._keys.close()
    serial, before = await world.issue(other), gave_up()
    await together(world, 100, first)
    assert (other.id, serial) in await world.cache()
    assert first.leading
    assert gave_up() == before + 1
    await together(world, 300, first)
    assert gave_up() == before + 1


async def test_who_loses_the_lease_for_a_moment_gets_it_back_from_one_without_the_key(world: Any) -> None:
    """It offers again as soon as it has looked again, and that the other one gave up before keeps it from nothing."""
    await world.authority()
    here, there = Machine(world), Machine(world)
    first, second = await here.presigner(), await there.presigner()
    await together(world, 3, first, second)
    here.away = True
    await together(world, 100, first, second)
    assert (first.leading, second.leading) == (False, True)
    await second._end()  # as when its session with the database is lost
    await together(world, 2, first)
    assert (first.leading, second.leading) == (True, False)
    await together(world, 60, first, second)
    assert (first.leading, second.leading) == (False, True)


async def test_standby_keys_unlooked(world: Any) -> None:
    """Who stands by says within a minute that it could not sign, and when it can again."""
    await world.authority()
    here, there = Machine(world), Machine(world)
    first, second = await here.presigner(), await there.presigner()
    await together(world, 2, first, second)
    assert not second.key_problems
    there.away = True
    await together(world, 16, first, second)
    assert second.key_problems
    assert not second.leading
    there.away = False
    await together(world, 16, first, second)
    assert not second.key_problems


async def test_who_stands_by_looks_at_its_clock(world: Any) -> None:
    """Said where it stands by, and no offer: it would refuse after the other one has given up for it."""
    await world.authority()
    clock = FakeClock(world.now + 6)
    first, second = await world.presigner(), await world.presigner(clock=clock)
    await first.step()
    for _ in range(3):
        with pytest.raises(QuashError, match=r"presign\.clock_disagrees"):
            await second.step()
        clock.step(1)
    assert not await offered(world, first)
    clock.step(world.now - clock.now())
    while second._looking is None:
        await second.step()
    await asyncio.wait([second._looking])
    await second.step()
    assert await offered(world, first)


async def test_who_stands_by_looks_at_its_cache(world: Any, tmp_path: Path) -> None:
    """A node here answers `revoked` for what the database has lost: found before anybody gives up for it (C16)."""
    authority = await world.authority()
    serial = await world.issue(authority)
    cache = fill(world, tmp_path / "cache", authority, [], [serial])
    first, second = await world.presigner(), await world.presigner(cache=cache)
    await first.step()
    await second.step()
    await asyncio.wait([second._looking])
    with pytest.raises(QuashError, match=r"presign\.revocations_lost"):
        await second.step()
    assert not await offered(world, first)


async def offered(world: Any, leader: Any) -> bool:
    async with acquire(await world.database.pool("quash_presigner")) as conn:
        return bool(await leader._holder.relieved(conn))


async def test_a_lease_lost_while_signing_inserts_nothing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that was paused while it signed, and lost its session to another one, feeds nothing of that batch."""
    authority = await world.authority()
    first, second = await world.presigner(), await world.presigner()
    await first.step()
    serial = await world.issue(authority)
    real = SigningDesk.sign
    fed: list[int] = []

    async def paused(desk: SigningDesk, *arguments: Any) -> Any:
        monkeypatch.setattr(SigningDesk, "sign", real)
        signed = await real(desk, *arguments)
        executioner = await world.database.connection("quash_presigner")
        await executioner.execute(
            "select pg_terminate_backend(pid, 5000) from pg_locks where locktype = 'advisory'"
            " and database = (select oid from pg_database where datname = current_database())"
        )
        await world.clock.advance(1)
        while not await second.step():
            pass
        fed.append(await world.database.owner.fetchval("select max(id) from feed"))
        return signed

    monkeypatch.setattr(SigningDesk, "sign", paused)
    with pytest.raises(QuashError) as lost:
        await first.step()
    assert lost.value.code == "lease.lost"
    assert await world.database.owner.fetchval("select max(id) from feed") == fed[0]
    assert (authority.id, serial) in await world.cache()
    assert not first.leading
