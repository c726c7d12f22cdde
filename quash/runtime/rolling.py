"""Replacing a child while it works: the new process is ready before the old one is told to leave."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import orjson

from quash.runtime.overview import ask
from quash.runtime.supervisor import HEALTH_SOCKET, Supervisor

_READY_WITHIN = 60.0
_POLL = 0.05


async def roll(supervisor: Supervisor, name: str, run: Path) -> None:
    """Replaces the child `name`, whose health socket is in `run`.

    The new process answers about its health elsewhere until it is ready, and then takes the place of the old one's.
    Raises `supervisor.not_replaced`, and nothing has changed.
    """
    fresh = run / f"{name}.new.health"
    await supervisor.replace(name, {HEALTH_SOCKET: str(fresh)}, partial(_ready, fresh), within=_READY_WITHIN)


async def _ready(fresh: Path) -> None:
    usual = fresh.with_name(fresh.name.replace(".new.", "."))
    while not orjson.loads(await ask(fresh, "/readyz") or b'{"ready": false}')["ready"]:  # noqa: ASYNC110 - not ours
        await asyncio.sleep(_POLL)
    fresh.rename(usual)
