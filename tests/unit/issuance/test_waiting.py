"""Waiting for public answers: the first look comes when news are usually out, and never later than the deadline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from issuer.issuance.waiting import LONGEST_WAIT, Waiting


class Public:
    """A clock whose sleeps pass at once, and `Answers` that are out so many seconds after `began`."""

    def __init__(self, out_after: float) -> None:
        self.time = self.began = 100.0
        self.out_after = out_after
        self.looks = 0

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds

    async def good(self, *_: Any) -> bool:
        self.looks += 1
        return self.time >= self.began + self.out_after


async def looks(waiting: Waiting, public: Public, *, new: bool = True, timeout: float = 60.0) -> tuple[bool, int]:
    public.began, public.looks = public.time, 0
    issuer: Any = None
    said = await waiting.answered(issuer, b"", b"", public.time + timeout, new=new)
    return said, public.looks


def make(out_after: float) -> tuple[Waiting, Public]:
    public = Public(out_after)
    means: Any = SimpleNamespace(clock=public, answers=public)
    return Waiting(means), public


async def test_it_learns_how_long_news_take_and_seldom_looks_in_vain() -> None:
    """The first order looks six times; after many, the usual one looks once or twice."""
    waiting, public = make(0.2)
    first = await looks(waiting, public)
    for _ in range(50):
        last = await looks(waiting, public)
    assert first == (True, 6)
    assert last in ((True, 1), (True, 2))


async def test_what_is_no_news_is_looked_at_at_once() -> None:
    """Step 13 of a logged certificate: the answers have been out since step 8."""
    waiting, public = make(0.2)
    for _ in range(50):
        await looks(waiting, public)
    public.out_after = 0.0
    began = public.time
    assert await looks(waiting, public, new=False) == (True, 1)
    assert public.time == began


async def test_a_deadline_is_kept_and_one_look_is_always_made() -> None:
    """`step` gives no time at all; and a slow past does not make a short deadline longer."""
    waiting, public = make(3.0)
    for _ in range(50):
        await looks(waiting, public)
    public.out_after = 1e9
    began = public.time
    assert await looks(waiting, public, timeout=0.0) == (False, 1)
    assert public.time == began
    assert (await looks(waiting, public, timeout=1.0))[0] is False
    assert public.time <= began + 1.0 + LONGEST_WAIT
