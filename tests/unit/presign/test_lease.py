"""One presigner at a time: what another one took over cannot be written by the first any more."""

from __future__ import annotations

from typing import Any

import pytest

from quash.errors import QuashError
from responder.presign.desk import SigningDesk


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
