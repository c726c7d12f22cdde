"""Looking away from what the crew signs: at once for a hint, and for what is signed, else after a while."""

from __future__ import annotations

import asyncio

import pytest

from responder.presign.pipeline import until_hinted

_LONG = 20.0


async def test_a_hint_ends_the_wait_for_the_crew() -> None:
    """Urgent news overtake what is being signed (G1): nobody waits for the end of a slice."""
    hinted, slice_ = asyncio.Event(), asyncio.get_running_loop().create_future()
    until = until_hinted(lambda _: hinted.wait())
    waiting = asyncio.ensure_future(until([slice_]))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    hinted.set()
    await asyncio.wait_for(waiting, _LONG)
    assert not slice_.done()


async def test_what_is_signed_ends_it_too() -> None:
    """And gives the wait for a hint up, which then misses none."""
    given_up = asyncio.Event()

    async def never(_: float) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    slice_ = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.02, slice_.set_result, None)
    await asyncio.wait_for(until_hinted(never)([slice_]), _LONG)
    await asyncio.wait_for(given_up.wait(), _LONG)


async def test_a_fault_of_the_hints_is_not_hidden() -> None:
    async def broken(_: float) -> None:
        raise ValueError

    with pytest.raises(ValueError):
        await until_hinted(broken)([asyncio.get_running_loop().create_future()])
