"""Verbs that work on the state itself, also beside a running `up`: they find or start its database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from quash.cli.common import Context
from quash.errors import Kind, QuashError
from quash.store.database import Pool, connect
from quash.store.embedded import EmbeddedPostgres
from quash.store.roles import OWNER

T = TypeVar("T")


def check_initialised(deployment: Context) -> None:
    """Raises `state.not_initialised`, before anything is made in a folder that was perhaps mistyped."""
    if not deployment.config.database.url and not (deployment.state.root / "pg").is_dir():
        raise QuashError(
            "state.not_initialised",
            f"{deployment.state.root} holds no system yet: begin with quash init or quash up",
            Kind.UNAVAILABLE,
        )


@contextmanager
def running_database(deployment: Context) -> Iterator[None]:
    """The deployment's database answers while this is open: the configured one, the one of `up`, or one of our own."""
    if deployment.config.database.url:
        yield
        return
    with EmbeddedPostgres(deployment.state).run():
        yield


@asynccontextmanager
async def owner_pool(deployment: Context) -> AsyncIterator[Pool]:
    """Connections with the owner's rights."""
    pool = await connect(deployment.config, deployment.state, OWNER, size=4)
    try:
        yield pool
    finally:
        await pool.close()


def on_the_state(deployment: Context, work: Callable[[Pool], Awaitable[T]]) -> T:
    """What `work` returns, with the owner's connections to a database that is found or started for it."""

    async def run() -> T:
        async with owner_pool(deployment) as pool:
            return await work(pool)

    with running_database(deployment):
        return asyncio.run(run())
