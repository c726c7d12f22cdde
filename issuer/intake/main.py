"""The process `intake`: the public report endpoint on its own port, with a database role that may only insert."""

from __future__ import annotations

import ssl
import sys
from contextlib import suppress

from aiohttp import web

from issuer.checks.workers import Workers
from issuer.intake.api import IntakeApi
from quash.errors import QuashError
from quash.runtime.config import Intake
from quash.runtime.process import Process
from quash.store.database import acquire, connect
from quash.store.roles import INTAKE

_CHECK = 5.0  # seconds between looks at the database
_WORKER = (sys.executable, "-m", "issuer.checks.worker", "issuer.intake.tasks")
_CONNECTIONS = 4


async def main(process: Process) -> None:
    """Serves until it is cancelled; ready while it listens and the database answers."""
    process.health.set("database", False, "not connected yet")
    process.health.set("listening", False)
    config = process.config.intake
    pool = await connect(process.config, process.state, INTAKE, size=_CONNECTIONS)
    try:
        async with Workers.running(config.workers, config.proof_seconds, _WORKER) as workers:
            runner = IntakeApi(pool, config, process.clock, workers).runner()
            await runner.setup()
            try:
                await web.TCPSite(runner, config.host, config.port, ssl_context=_tls(config)).start()
                process.log.info("intake.listening", host=config.host, port=config.port)
                process.health.set("listening", True)
                while True:
                    process.health.set("database", False, "does not answer")
                    with suppress(QuashError):
                        async with acquire(pool) as conn:
                            await conn.fetchval("select 1")
                        process.health.set("database", True)
                    await process.clock.sleep(_CHECK)
            finally:
                await runner.cleanup()
    finally:
        pool.terminate()


def _tls(config: Intake) -> ssl.SSLContext | None:
    """None: a proxy in front speaks TLS."""
    if config.certificate is None or config.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config.certificate, config.key)
    return context
