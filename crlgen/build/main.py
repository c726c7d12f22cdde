"""The CRL builder's process. It has no key: the CA signer signs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import ClientSession

from crlgen.build import metrics
from crlgen.build.builder import CrlBuilder
from crlgen.build.disclosure import Disclosure
from crlgen.build.lint import LintWorker
from crlgen.build.outlook import Watch
from crlgen.build.signer import RpcCrlSigner
from crlgen.publish.bring import Bring
from crlgen.publish.folder import FolderPublisher, Publisher
from crlgen.publish.ocsp_urls import OcspPurges
from crlgen.publish.purge import Purger, Webhook
from crlgen.publish.with_copy import WithCopy
from quash.errors import QuashError
from quash.runtime.memory import collect_rarely, keep_freed_memory
from quash.runtime.process import Process
from quash.store.crls import Scope
from quash.store.database import connect
from quash.store.hints import Hints
from quash.store.roles import CRL_BUILDER

_CHECK = "crls"
_EVERY = 0.2  # seconds from step to step at least: each looks at all scopes, and a mass revocation hints at each batch
_AGAIN = 10.0  # seconds: after what nobody foresaw


async def main(process: Process) -> None:
    """Builds until cancelled; ready while every scope's CRL is out and nothing that is due fails."""
    process.health.set(_CHECK, ok=False, detail="starting")
    keep_freed_memory()
    collect_rarely()
    pool = await connect(process.config, process.state, CRL_BUILDER)
    signer = RpcCrlSigner(process.state.run / "ca-signer.sock")
    linter = LintWorker()
    publisher = publisher_of(process)
    session = ClientSession()
    purger = Purger(process.config.publish.purge, Webhook(session), process.clock)
    builder = CrlBuilder(
        pool, signer, publisher, process.clock, process.config, linter=linter, announce=partial(_purge_scope, purger)
    )
    disclosure = Disclosure(pool, publisher, process.clock)
    works = {
        "crl.whole_lint": partial(_lint_whole, process, builder),
        "crl.disclosure": partial(_beside, process, builder, "crl.disclosure", disclosure),
        "crl.outlook": partial(_watch, process, builder, Watch(pool, process.clock)),
    }
    if isinstance(publisher, WithCopy):
        bring = Bring(pool, publisher.truth, publisher.copy, process.clock)  # standing by too: the folder is this one's
        works["crl.bring"] = partial(_beside, process, None, "crl.bring", bring)
    if process.config.publish.purge:
        ocsp = OcspPurges(pool, purger, process.clock, process.config.ocsp_base)
        works["crl.purge"] = partial(_purge, process, builder, purger, ocsp)
    beside = [asyncio.create_task(_keep_on(process, name, work)) for name, work in works.items()]
    hints = Hints(pool, "crl")
    said = ""
    try:
        while True:
            again_at = process.clock.monotonic() + _EVERY
            said = await _step(process, builder, said)
            await process.clock.sleep(max(0.0, again_at - process.clock.monotonic()))
            await hints.wait(builder.pause())
    finally:
        for task in beside:
            task.cancel()
        await session.close()
        await linter.close()
        await hints.close()
        await builder.close()
        await pool.close()


def publisher_of(process: Process) -> Publisher:
    """The bucket of the configuration, with a copy in the state folder, or that folder alone."""
    folder = FolderPublisher(process.state.crl)
    if (s3 := process.config.publish.s3) is None:
        return folder
    from crlgen.publish.s3 import S3Publisher  # noqa: PLC0415 - few need the library

    return WithCopy(S3Publisher(s3), folder)


async def _keep_on(process: Process, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Nobody awaits what goes on beside the builder: a fault of ours is logged, and is not the end of it."""
    while True:
        try:
            await work()
        except Exception:  # else a full disk at the database would end it for good, and nobody would know
            metrics.ALARMS.labels(f"{name}.unforeseen").inc()
            process.log.exception(f"{name}.unforeseen")
        await process.clock.sleep(_AGAIN)


def _purge_scope(purger: Purger, scope: Scope) -> None:
    purger.add((scope.url, *scope.former_urls), f"crl/{scope.issuer}")


async def _purge(process: Process, builder: CrlBuilder, purger: Purger, ocsp: OcspPurges) -> None:
    """Sends purges for as long as the process runs. A hook that is down is logged; it is nobody's readiness."""
    said: dict[str, str] = {}
    while True:
        with contextlib.suppress(QuashError):  # the database is away: building says so already
            if purger.wants_ocsp and builder.leading:
                await ocsp.step()
        await purger.step()
        if purger.problems != said:
            said = dict(purger.problems)
            process.log.log(logging.WARNING if said else logging.INFO, "crl.purge", problems=said)
        await process.clock.sleep(purger.pause())


async def _beside(process: Process, builder: CrlBuilder | None, event: str, work: Disclosure | Bring) -> None:
    """Keeps what CCADB reads, or the bucket, up to date for as long as the process runs, or while `builder` leads."""
    said = ""
    while True:
        try:
            if builder is None or builder.leading:
                await work.step()
            problem = ""
        except QuashError as error:
            problem = str(error)
        if problem != said:
            process.log.log(logging.WARNING if problem else logging.INFO, event, problem=problem)
        said = problem
        await process.clock.sleep(10.0)


async def _watch(process: Process, builder: CrlBuilder, watch: Watch) -> None:
    """Says what is coming when it is something else than before."""
    said: dict[str, list[str]] = {}
    while True:
        try:
            if builder.leading:
                await watch.step()
        except QuashError as error:
            process.log.warning("crl.outlook_failed", code=error.code, detail=error.message)
        if watch.warnings != said:
            said = dict(watch.warnings)
            process.log.log(logging.WARNING if said else logging.INFO, "crl.outlook", warnings=said)
        await process.clock.sleep(10.0)


async def _lint_whole(process: Process, builder: CrlBuilder) -> None:
    """Goes on linting what was published, a piece at a time, for as long as the process runs."""
    while builder.afterwards is not None:
        done = 0
        with contextlib.suppress(QuashError):  # the linter is down: building says so already
            done = await builder.afterwards.step()
        await process.clock.sleep(0.05 if done else 1.0)


async def _step(process: Process, builder: CrlBuilder, said: str) -> str:
    """One step; returns what is missing. That is logged when it is not what was `said` before, not every second."""
    try:
        if done := await builder.step():
            process.log.info("crl.published", count=done)
        missing = "; ".join(f"{name}: {problem}" for name, problem in builder.problems.items())
    except QuashError as error:
        missing = str(error)
    if missing != said:
        process.log.log(logging.ERROR if missing else logging.INFO, "crl.missing", missing=missing)
    process.health.set(_CHECK, ok=not missing, detail=missing)
    return missing
