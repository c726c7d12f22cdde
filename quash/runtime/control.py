"""The supervisor's own socket, open only where drills are allowed: a child is held for a while, then started again.

`{"hold": name, "seconds": number}` stops a child, `{"resume": name}` starts it. What is held is resumed after its
seconds even if nobody comes back to say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

from quash.errors import Kind, QuashError
from quash.runtime import rpc
from quash.runtime.supervisor import Supervisor

_TIMEOUT = 30.0
"""Seconds: a child has 15 to end."""


async def serve(
    path: Path, supervisor: Supervisor, holdable: Collection[str], longest: float
) -> asyncio.AbstractServer:
    """Lets whoever may open the socket hold these children, each for at most `longest` seconds."""
    timers: dict[str, asyncio.TimerHandle] = {}

    async def handle(request: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        name = str(request.get("hold") or request.get("resume"))
        if name not in holdable:
            raise QuashError("drill.not_holdable", f"{name!r} is none of {', '.join(holdable)}", Kind.REFUSED)
        if timer := timers.pop(name, None):
            timer.cancel()
        if "hold" in request:
            seconds = min(float(request.get("seconds", longest)), longest)
            timers[name] = asyncio.get_running_loop().call_later(seconds, supervisor.resume, name)
            await supervisor.hold(name)
        else:
            supervisor.resume(name)
        return {}, b""

    return await rpc.serve(path, handle, max_body=0)


async def hold(path: Path, name: str, seconds: float) -> None:
    """Stops a child for `seconds`; raises `drill.*`, and `rpc.unavailable` where no supervisor listens."""
    await rpc.call(path, {"hold": name, "seconds": seconds}, timeout=_TIMEOUT)


async def resume(path: Path, name: str) -> None:
    """Starts it again."""
    await rpc.call(path, {"resume": name}, timeout=_TIMEOUT)
