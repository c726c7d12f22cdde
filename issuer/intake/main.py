"""The process `intake`: the public report endpoint on its own port, with a database role that may only insert."""

from __future__ import annotations

import sys
from contextlib import suppress

from issuer.checks.workers import Workers
from issuer.intake.api import IntakeApi
from issuer.intake.server import listening
from quash.errors import QuashError
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
            app = IntakeApi(pool, config, process.clock, workers).application()
            async with listening(app, config):
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
        pool.terminate()
