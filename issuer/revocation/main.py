"""The process `admin`: the admin API on its own port."""

from __future__ import annotations

import asyncio

from aiohttp import web

from issuer.api import application, listening, tls_files
from issuer.issuance.visible import PublicAnswers
from issuer.rate_limit import RateLimit
from issuer.revocation import openapi
from issuer.revocation.api import AdminApi
from issuer.revocation.case_api import CaseApi
from issuer.revocation.cases import CaseWatcher
from issuer.revocation.key_api import KeyApi
from issuer.revocation.officer_api import OfficerApi
from issuer.revocation.signers import SignersApi
from issuer.revocation.visible import Watches
from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.process import Process
from quash.store.database import Pool, acquire, connect
from quash.store.roles import ADMIN

_CHECK = 5.0  # seconds between looks at the database, and at what cases wait for


async def main(process: Process) -> None:
    """Serves until it is cancelled; ready while it listens and the database answers."""
    process.health.set("database", False, "not connected yet")
    process.health.set("listening", False)
    config = process.config
    background: list[asyncio.Task[None]] = []
    pool = await connect(config, process.state, ADMIN)
    try:
        async with (
            Watches(pool, config, process.clock) as watches,
            PublicAnswers(config.visible_at, process.clock) as answers,
        ):
            app = application(pool, process.clock)
            add_routes(app, pool, config, process.clock, watches)
            limit = RateLimit(
                process.clock, reads=config.admin.reads_per_minute, changes=config.admin.changes_per_minute
            )
            app.middlewares.append(limit.middleware())
            watcher = CaseWatcher(pool, answers, process.clock)
            background.append(asyncio.create_task(_watch(process, watcher)))
            async with listening(app, tls_files(process.state), config.admin.host, config.admin.port) as port:
                process.log.info("admin.listening", host=config.admin.host, port=port)
                process.health.set("listening", True)
                while True:
                    try:
                        async with acquire(pool) as conn:
                            await conn.fetchval("select 1")
                        process.health.set("database", True)
                    except QuashError as error:
                        process.health.set("database", False, error.code)
                    await process.clock.sleep(_CHECK)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        pool.terminate()


def add_routes(app: web.Application, pool: Pool, config: Config, clock: Clock, watches: Watches) -> None:
    """Every route of the admin API; the document that describes them comes last."""
    AdminApi(pool, config, clock, watches).add_routes(app)
    SignersApi(pool, clock).add_routes(app)
    OfficerApi(pool, clock).add_routes(app)
    KeyApi(pool, config, clock).add_routes(app)
    CaseApi(pool, clock).add_routes(app)
    openapi.add_route(app)


async def _watch(process: Process, watcher: CaseWatcher) -> None:
    """Beside the API: responders that do not answer must not hold it up."""
    while True:
        try:
            await watcher.step()
        except QuashError as error:
            process.log.warning("cases.not_watched", code=error.code, detail=error.message)
        except Exception:
            process.log.exception("cases.unforeseen")
        await process.clock.sleep(_CHECK)
