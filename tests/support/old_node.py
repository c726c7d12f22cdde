"""A node of the release before: follower, cache file and reader with the layout that it had, in a process of its own.

`python -m tests.support.old_node FOLDER STATE URL`: its cache, the state with the password of the follower's role, the
database. Then one command a line on stdin, each with the time: `{"now": ..., "ask": [[issuer id, serial], ...]}`. It
follows the feed up to its head and says on stdout what its cache holds of them: version, or null.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from tests.golden import layout_v1

_OF_BEFORE = "quash.cache.layout"


class OldNode:
    """The test's end; an async context manager. `folder`: its cache, which any release may have left there."""

    def __init__(self, database: Any, folder: Path) -> None:
        self._arguments = [str(folder), str(database.state.root), database.config.database.url]

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.old_node", *self._arguments, stdin=pipe, stdout=pipe
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends it in order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert await self._process.wait() == 0

    async def versions(self, now: float, keys: Sequence[tuple[int, bytes]]) -> list[int | None]:
        """The versions of the records that it serves, once it has applied all that the feed has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = [[issuer_id, serial.hex()] for issuer_id, serial in keys]
        self._process.stdin.write(json.dumps({"now": now, "ask": asked}).encode() + b"\n")
        said: list[int | None] = json.loads(await self._process.stdout.readline())
        return said


async def _serve(answers: TextIO, folder: Path, state: Path, url: str) -> None:
    # Only now: whoever imports the layout from here on gets the old one.
    from quash.cache.reader import LmdbReader  # noqa: PLC0415
    from quash.cache.writer import LmdbWriter  # noqa: PLC0415
    from quash.runtime.clock import FakeClock  # noqa: PLC0415
    from quash.runtime.config import Config, Database  # noqa: PLC0415
    from quash.runtime.log import logger  # noqa: PLC0415
    from quash.runtime.state import State  # noqa: PLC0415
    from quash.store.database import connect  # noqa: PLC0415
    from quash.store.roles import FOLLOWER  # noqa: PLC0415
    from responder.follow.follower import Follower  # noqa: PLC0415

    clock = FakeClock()

    async def database_time(_: Any) -> float:
        return clock.now()

    pool = await connect(Config(database=Database(url=url)), State(state), FOLLOWER)
    writer = LmdbWriter(folder, map_size=1 << 28)
    follower = Follower(pool, writer, clock, logger(), database_time=database_time)
    reader = LmdbReader(shared=writer)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        clock.step(command["now"] - clock.now())
        await follower.step()
        reader.state()
        found = [reader.get(layout_v1.record_key(each[0], bytes.fromhex(each[1]))) for each in command["ask"]]
        said = [None if data is None else layout_v1.decode_record(data).version for data in found]
        answers.write(json.dumps(said) + "\n")
        answers.flush()
    writer.close()
    pool.terminate()


if __name__ == "__main__":
    layout_v1.NEWER_FORMAT = "cache.newer_format"  # today's follower knows the name; nothing here raises it
    sys.modules[_OF_BEFORE] = layout_v1
    stdout, sys.stdout = sys.stdout, io.StringIO()  # its log
    asyncio.run(_serve(stdout, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
