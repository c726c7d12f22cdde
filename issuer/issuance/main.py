"""The issuing API's process: no key, no right to status but reservations that it gives up itself."""

from __future__ import annotations

import asyncio
from asyncio import TaskGroup
from collections.abc import Callable
from functools import partial
from socket import gethostname
from typing import Final

from issuer import api, idempotency, openapi
from issuer.checks.keys import KeyChecks
from issuer.checks.lint import LintGate
from issuer.checks.registries import Registries
from issuer.checks.workers import Workers
from issuer.ct.submit import CtLogs
from issuer.issuance import validation_api
from issuer.issuance.api import add_routes
from issuer.issuance.configuration import Watch
from issuer.issuance.finals import BATCH, Finals
from issuer.issuance.issue import Issuance
from issuer.issuance.means import Logging, SignCertificate
from issuer.issuance.openapi import API
from issuer.issuance.visible import PublicAnswers
from issuer.rate_limit import RateLimit
from quash.errors import QuashError
from quash.pki.serials import format_serial
from quash.runtime import rpc
from quash.runtime.memory import collect_rarely
from quash.runtime.process import Process
from quash.store.database import connect
from quash.store.roles import ISSUING

_POLL: Final = 1.0
_LOOK: Final = 60.0
_SIGNER_TIMEOUT: Final = 30.0


def ca_signer(lines: rpc.Lines, kind: str) -> SignCertificate:
    """Asks the CA signer's process on its socket for a certificate or a precertificate."""

    async def sign(issuer_id: int, serial: bytes) -> bytes:
        request = {"type": kind, "issuer_id": issuer_id, "serial": format_serial(serial)}
        _, der = await lines.call(request, timeout=_SIGNER_TIMEOUT)
        return der

    return sign


async def main(process: Process) -> None:
    """Serves orders, and drives those that a crash or an outage left, until cancelled."""
    collect_rarely()
    process.health.set("api", False, "starting")
    process.health.set("orders", False, "starting")
    process.health.set("linters", False, "starting")
    config = process.config
    registries = Registries(process.state.root / "names")
    pool = await connect(config, process.state, ISSUING)
    lines = rpc.Lines(process.state.run / "ca-signer.sock")
    try:
        async with (
            PublicAnswers(config.visible_at, process.clock) as answers,
            Workers.running(config.checks.workers, config.checks.timeout) as workers,
            KeyChecks(config.checks, workers) as check_key,
            CtLogs(config.ct, process.state.root / config.ct.log_list, process.clock) as logs,
        ):
            gate = LintGate(config.lint, workers, process.clock)
            issuance = Issuance(
                pool=pool,
                config=config,
                clock=process.clock,
                sign=ca_signer(lines, "certificate"),
                answers=answers,
                check_key=check_key,
                linting=gate,
                registries=registries,
                logging=Logging(ca_signer(lines, "precertificate"), logs) if config.ct.log_list else None,
            )
            app = api.application(pool, process.clock)
            add_routes(app, pool, config, issuance)
            validation_api.add_routes(app, pool, issuance)
            openapi.add_route(app, API)
            files = api.tls_files(process.state)
            limit = RateLimit(
                process.clock, reads=config.issuer.reads_per_minute, changes=config.issuer.changes_per_minute
            )
            app.middlewares.extend((limit.middleware(), idempotency.middleware(pool, process.clock)))
            async with api.listening(app, files, config.issuer.host, config.issuer.port) as port, TaskGroup() as group:
                process.log.info("issuer.listening", host=config.issuer.host, port=port)
                process.health.set("api", True)
                group.create_task(_meet_linters(process, gate))
                if process.read_config is not None:
                    watch = Watch(pool, config, process.read_config, gethostname(), process.clock)
                    group.create_task(_watch_configuration(process, watch))
                if config.ct.log_list:
                    group.create_task(_log_finals(process, Finals(pool, logs, process.clock)))
                await _drive(process, issuance, workers, registries, logs if config.ct.log_list else None)
    finally:
        lines.close()
        pool.terminate()


async def _drive(
    process: Process, issuance: Issuance, workers: Workers, registries: Registries, logs: CtLogs | None
) -> None:
    """Unfinished orders, each second: nobody sends a hint for what nobody finished."""
    age = process.config.names.max_age_days * 86_400
    while True:
        process.health.set("checks", workers.ready, "" if workers.ready else "no worker is warm yet")
        if logs is not None:
            _check(process, "ct", logs.check)
        if process.config.issuance.require_validation:
            _check(process, "names", partial(registries.check_age, age, int(process.clock.now())))
        try:
            await issuance.step()
            process.health.set("orders", True)
        except QuashError as error:
            process.health.set("orders", False, str(error))
            process.log.warning("orders.wait", code=error.code, detail=error.message)
        await asyncio.sleep(_POLL)


async def _meet_linters(process: Process, gate: LintGate) -> None:
    """D48: not ready before each configured linter has told its version; the first order would tell it too late."""
    known = False
    while not known:
        try:
            await gate.meet()
            known = True
            process.health.set("linters", True)
        except QuashError as error:
            process.health.set("linters", False, str(error))
            process.log.warning("linters.wait", code=error.code, detail=error.message)
            await asyncio.sleep(_POLL)


async def _watch_configuration(process: Process, watch: Watch) -> None:
    """G22: each minute; a database that is away only delays what is told."""
    begun = False
    while True:
        try:
            if not begun:
                await watch.begin()
            begun = True
            if await watch.look():
                process.log.warning("configuration.changed", detail="the files differ from what is in force")
        except QuashError as error:
            process.log.warning("configuration.wait", code=error.code, detail=error.message)
        await asyncio.sleep(_LOOK)


async def _log_finals(process: Process, finals: Finals) -> None:
    """E6: beside everything else, and in batches; its age is a metric, no reason to be unready."""
    while True:
        try:
            if await finals.step() == BATCH:
                continue
        except Exception as error:  # noqa: BLE001 - no fault here may end the issuing API
            process.log.warning("ct.finals_wait", error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(_POLL)


def _check(process: Process, what: str, check: Callable[[], None]) -> None:
    """E9, G48: an old list of logs or of names, or a missing one, is an alarm before it is a refusal."""
    try:
        check()
        process.health.set(what, True)
    except QuashError as error:
        process.health.set(what, False, str(error))
