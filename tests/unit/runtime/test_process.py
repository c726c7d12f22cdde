"""A process that is told to stop ends, even where its own clean-up hangs."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

_HANGS = """
import asyncio, contextlib, sys
from pathlib import Path
from quash.runtime import process as runtime
from quash.runtime.state import State

async def main(process):
    print("started", flush=True)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

runtime._ENDS_WITHIN = 1
state = State(Path(sys.argv[1]))
asyncio.run(runtime.run(runtime.Process("hangs", None, state, health_at=state.root / "health"), main))
"""


async def test_who_hangs_when_told_to_stop_is_ended(tmp_path: Path) -> None:
    """By the kernel's alarm: a supervisor that was killed kills nobody."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HANGS, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"started\n"
    child.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await child.wait() == -signal.SIGALRM
