"""Which keys the CA signer keeps, whoever asks for what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from issuer.signer.key_ring import CaKey, KeyRing
from issuer.signer.service import CaSigner
from quash.errors import QuashError


def _opener(_: Any) -> Any:
    raise AssertionError("no key is opened here")


async def test_nothing_stays_of_an_unknown_issuer(desk: Any) -> None:
    """Whoever counts through issuers that do not exist fills no memory; a known one's key stays once it was used."""
    keys = KeyRing(_opener)
    signer = CaSigner(desk.pool, keys, desk.clock)
    for issuer_id in range(1000, 1010):
        for asked in (signer.sign_certificate(issuer_id, b"\1" * 16), signer.sign_crl(issuer_id, "full", b"")):
            with pytest.raises(QuashError) as error:
                await asked
            assert error.value.code == "signer.issuer_unknown"
    assert keys._keys == {}
    async with keys.hold(1) as key:
        await key.run(lambda: None)
    assert set(keys._keys) == {1}
    await keys.close()


async def test_one_at_a_time_also_of_what_does_not_stay() -> None:
    """Whoever waits for a key that its holder made no use of, and whoever comes after both, have the same one."""
    keys, seen = KeyRing(_opener), list[CaKey]()
    busy = 0

    async def hold() -> None:
        nonlocal busy
        async with keys.hold(7) as key:
            busy += 1
            assert busy == 1
            seen.append(key)
            await asyncio.sleep(0.01)
            busy -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(hold())
            await asyncio.sleep(0.004)
    assert len(seen) == 3
    assert len(set(map(id, seen))) == 1
    assert keys._keys == {}
