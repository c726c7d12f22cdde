"""The process `admin`: the admin API on its own port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from issuer import idempotency
from issuer.api import application, listening, tls_files
from issuer.issuance.visible import PublicAnswers
from issuer.rate_limit import RateLimit
from issuer.revocation import openapi
from issuer.revocation.api import AdminApi
from issuer.revocation.case_api import CaseApi
from issuer.revocation.case_certificates_api import CaseCertificatesApi
from issuer.revocation.case_papers_api import CasePapersApi
from issuer.revocation.cases import CaseWatcher
from issuer.revocation.exemption_api import ExemptionApi
from issuer.revocation.incident_api import IncidentApi
from issuer.revocation.key_api import KeyApi
from issuer.revocation.mass_api import MassApi
from issuer.revocation.notice_sender import NoticeSender
from issuer.revocation.notices import teller
from issuer.revocation.officer_api import OfficerApi
from issuer.revocation.probe import Probe
from issuer.revocation.progress import ProgressTeller
from issuer.revocation.reports import ReportTaker
from issuer.revocation.search_api import SearchApi
from issuer.revocation.signers import SignersApi
from issuer.revocation.trace_api import TraceApi
from issuer.revocation.visible import Watches
from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.process import Process
from quash.store.database import Pool, acquire, connect
from quash.store.roles import ADMIN

_CHECK = 5.0  # seconds between looks at the database, and at what cases wait for
_PROBE = 0.5  # seconds between looks for new revocations
_PROGRESS = 60.0  # seconds between looks whether progress is to be told
_REPORTS = 2.0  # seconds between looks for new reports


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
            Probe(pool, config, process.clock) as probe,
            NoticeSender(pool, config.notices, process.clock) as sender,
        ):
            app = application(pool, process.clock)
            add_routes(app, pool, config, process.clock, watches)
            limit = RateLimit(
                process.clock, reads=config.admin.reads_per_minute, changes=config.admin.changes_per_minute
            )
            app.middlewares.extend((limit.middleware(), idempotency.middleware(pool, process.clock)))
            tell = teller(config.notices.escalate_to, "cases")
            watcher = CaseWatcher(pool, answers, process.clock, tell)
            taker = ReportTaker(pool, config, process.clock)
            teller_of_progress = ProgressTeller(pool, config.notices, process.clock)
            for name, step, pause in (
                ("cases", watcher.step, _CHECK),
                ("sightings", probe.step, _PROBE),
                ("reports", taker.step, _REPORTS),
                ("notices", sender.step, _CHECK),
                ("progress", teller_of_progress.step, _PROGRESS),
            ):
                background.append(asyncio.create_task(_repeat(process, name, step, pause)))
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
    CaseCertificatesApi(pool, clock).add_routes(app)
    CasePapersApi(pool, clock).add_routes(app)
    SearchApi(pool).add_routes(app)
    TraceApi(pool).add_routes(app)
    IncidentApi(pool, clock, config.notices.explanation_url).add_routes(app)
    MassApi(pool, config, clock).add_routes(app)
    ExemptionApi(pool, clock).add_routes(app)
    openapi.add_route(app)


async def _repeat(process: Process, name: str, step: Callable[[], Awaitable[object]], pause: float) -> None:
    """Beside the API: responders that do not answer must not hold it up."""
    while True:
        try:
            await step()
        except QuashError as error:
            process.log.warning(f"{name}.not_watched", code=error.code, detail=error.message)
        except Exception:  # nobody awaits this task: a fault of ours must be logged, and not end what it repeats
            process.log.exception(f"{name}.unforeseen")
        await process.clock.sleep(pause)
