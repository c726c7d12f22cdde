"""`quash serve follower`: the one process that writes this node's cache."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quash.cache import environment as files
from quash.cache.writer import LmdbWriter
from quash.errors import Kind, QuashError
from quash.runtime.process import Process
from quash.store.database import Pool, connect
from quash.store.hints import Hints
from quash.store.roles import FOLLOWER
from responder.follow.follower import REBUILDS, Follower

POLL_SECONDS, POLL_BESIDE_HINTS = 0.05, 0.25  # each costs several queries
RETRY_SECONDS = 1.0
_CHECK = "feed"


async def main(process: Process) -> None:
    """Follows the feed until it is cancelled; not ready before the cache has reached the feed's head."""
    process.health.set(_CHECK, ok=False, detail="starting")
    folder = process.state.cache
    with _only_one(folder):
        await check_file(folder, process.log)
        writer = LmdbWriter(folder)
        if writer.rebuilt:
            REBUILDS.labels("damaged").inc()
            process.log.error("follower.rebuild", reason="damaged", detail=writer.rebuilt)
        with _closing(writer):
            pool = await _connect(process)
            try:
                await _follow(process, Follower(pool, writer, process.clock, process.log), pool)
            finally:
                pool.terminate()


async def check_file(folder: Path, log: Any) -> None:
    """Deletes the file of a follower that did not end in order, when another process cannot read it to the end."""
    if files.closed_in_order(folder):
        return
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "quash.cache.fsck", str(folder), stdout=asyncio.subprocess.PIPE
    )
    try:
        said, _ = await child.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    if child.returncode != 0:
        REBUILDS.labels("damaged").inc()
        detail = said.decode("utf-8", "replace") or f"the check ended with {child.returncode}"
        log.error("follower.rebuild", reason="damaged", detail=detail)
        files.delete(folder)


async def _follow(process: Process, follower: Follower, pool: Pool) -> None:
    hints = Hints(pool, "feed")
    while True:
        try:
            await follower.step()
        except QuashError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            await _wait_for_better(process, error)
        else:
            process.health.set(_CHECK, ok=follower.at_head, detail="" if follower.at_head else "not at the feed's head")
            await hints.wait(POLL_SECONDS, listening=POLL_BESIDE_HINTS)


async def _connect(process: Process) -> Pool:
    """Waits for the database: a node that starts before it goes on serving what its cache holds."""
    while True:
        try:
            return await connect(process.config, process.state, FOLLOWER, size=2)
        except QuashError as error:
            if error.code != "store.unavailable":
                raise
            await _wait_for_better(process, error)


async def _wait_for_better(process: Process, error: QuashError) -> None:
    """Nothing is applied meanwhile, and the cache becomes stale, which is what its readers should see."""
    process.health.set(_CHECK, ok=False, detail=error.message)
    process.log.warning(error.code, detail=error.message)
    await process.clock.sleep(RETRY_SECONDS)


@contextlib.contextmanager
def _closing(writer: LmdbWriter) -> Iterator[None]:
    """Told to stop, it leaves a file that is trusted; of an error it does not know, one that is read through first."""
    trusted = True
    try:
        yield
    except Exception:  # raised again; whatever it was, the file may be half written
        trusted = False
        raise
    finally:
        if trusted:
            writer.close()
        else:
            writer.environment.close()


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """An flock on the folder, which the kernel drops with the process: two followers could delete each other's file."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QuashError("cache.locked", f"another follower writes {folder}: stop it", Kind.UNAVAILABLE) from None
        yield
    finally:
        os.close(fd)
