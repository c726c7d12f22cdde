"""`quash up`: the whole system under one supervisor, initialised first when the state is new."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

from rich.console import Console

from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    Context,
    SetOption,
    StateOption,
    context,
    reports_errors,
)
from quash.cli.tour import tour
from quash.errors import Kind, QuashError
from quash.runtime.clock import SystemClock
from quash.runtime.config import Config
from quash.runtime.log import configure, logger
from quash.runtime.overview import Overview
from quash.runtime.state import State, StateLock
from quash.runtime.supervisor import LISTEN_FD, SUPERVISOR_PID, Child, Supervisor, listening_socket
from quash.store.embedded import EmbeddedPostgres

# In the order of their start; responder workers and the demo's logs are added by `_children`, PostgreSQL before.
PROCESSES = ("ca-signer", "presigner", "follower", "issuer", "admin", "jobs", "ledger", "crl-builder", "crl-origin")
_READY_WITHIN = 120.0
_LAST_RUN_ENDS_WITHIN = 30.0
_FAILED_STARTS = 4


@reports_errors
def up(
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Runs everything until Ctrl-C; a second run continues from the same state."""
    deployment = context(config, state, set_)
    arguments = ["--config", str(config), "--state", str(state), *(a for s in set_ or () for a in ("--set", s))]
    lock = deployment.state.lock()
    try:
        children_lock = _after_last_run(deployment.state)
        # Not uvloop: its subprocesses know neither user nor umask.
        asyncio.run(_up(deployment, arguments, children_lock.fd))
    finally:
        lock.release()


def _after_last_run(state: State) -> StateLock:
    """The lock for our children, free once those of a supervisor that was killed have ended: they hold its ports."""
    deadline = time.monotonic() + _LAST_RUN_ENDS_WITHIN
    while True:
        try:
            return state.children_lock()
        except QuashError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


async def _up(deployment: Context, arguments: list[str], children_lock: int) -> None:
    configure("supervisor")
    console = Console(stderr=True)
    supervisor = Supervisor(SystemClock(), logger(), inherited=(children_lock,))
    stop = asyncio.Event()
    for sig in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sig, stop.set)
    running = asyncio.create_task(_run(deployment, arguments, supervisor, console))
    try:
        await asyncio.wait({running, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running  # raises what went wrong
            await stop.wait()
    finally:
        running.cancel()
        if stop.is_set():
            console.print("stopping")
        await supervisor.stop()


async def _run(deployment: Context, arguments: list[str], supervisor: Supervisor, console: Console) -> None:
    config, state = deployment.config, deployment.state
    if not config.issuance.require_validation:
        console.print("[yellow]issuance.require_validation is false: identifiers are NOT validated (demo)[/]")
    listen = listening_socket(config.responder.host, config.responder.port)
    try:
        _check_ports(config)
        if not config.database.url:
            with console.status("starting PostgreSQL"):
                await _start_postgres(deployment, supervisor)
        await _initialise(arguments, console)
        children = _children(deployment, arguments, listen.fileno())
        overview = Overview({child.name: state.run / f"{child.name}.health" for child in children})
        async with overview.serve(config.metrics.host, config.metrics.port):
            with console.status("starting the processes") as status:
                for child in children:
                    await supervisor.start(child)
                await _until_ready(overview, status.update)
            print(_ready_line(deployment), flush=True)
            print(tour(deployment, arguments), flush=True)
            await asyncio.Event().wait()
    finally:
        listen.close()


def _check_ports(config: Config) -> None:
    """Says at once that a port is taken: the process that needs it would only be restarted again and again."""
    for listener in (config.crl_origin, config.issuer, config.admin, config.metrics):
        listening_socket(listener.host, listener.port).close()


async def _start_postgres(deployment: Context, supervisor: Supervisor) -> None:
    postgres = EmbeddedPostgres(deployment.state)
    postgres.initialise()
    child = Child(
        "postgres",
        postgres.command(),
        stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown
        spawn_arguments=postgres.spawn_arguments(),
        foundation=True,
        log=postgres.log,
    )
    alive = partial(_stays_up, supervisor, child.name)
    await supervisor.start(child, partial(asyncio.to_thread, postgres.wait_ready, alive))


def _stays_up(supervisor: Supervisor, name: str) -> bool:
    """A server that ended again and again will not come up: its log says why."""
    return supervisor.restarts[name] < _FAILED_STARTS


async def _initialise(arguments: list[str], console: Console) -> None:
    """In a process of its own, since it handles CA keys and this one must not."""
    console.print("checking schema and hierarchy")
    environment = {**os.environ, SUPERVISOR_PID: str(os.getpid())}
    init = await asyncio.create_subprocess_exec(*_quash("init"), *arguments, "--quiet", env=environment)
    if await init.wait() != 0:
        raise QuashError("up.init_failed", "`quash init` failed: see above", Kind.UNAVAILABLE)


def _children(deployment: Context, arguments: list[str], listen_fd: int) -> list[Child]:
    logs = deployment.state.root / "log"
    logs.mkdir(exist_ok=True)
    names = (*PROCESSES, *(["ct-log"] if deployment.config.ct_log.enabled else []))
    children = [Child(name, [*_quash("serve"), name, *arguments], log=logs / f"{name}.log") for name in names]
    workers = [
        Child(
            f"responder-{n}",
            [*_quash("serve"), "responder", *arguments],
            environment={LISTEN_FD: str(listen_fd)},
            pass_fds=(listen_fd,),
            log=logs / f"responder-{n}.log",
        )
        for n in range(1, deployment.config.responder.workers + 1)
    ]
    return children + workers


def _quash(verb: str) -> list[str]:
    return [sys.executable, "-m", "quash.cli.main", verb]


async def _until_ready(overview: Overview, say: Callable[[str], None]) -> None:
    try:
        async with asyncio.timeout(_READY_WITHIN):
            while late := [name for name, report in (await overview.reports()).items() if not report["ready"]]:
                say("waiting for " + ", ".join(late))
                await asyncio.sleep(0.1)
    except TimeoutError:
        reports = await overview.reports()
        problems = [
            f"{name}: {check} {said['detail']}"
            for name, report in reports.items()
            for check, said in report["checks"].items()
            if not said["ok"]
        ]
        raise QuashError("up.not_ready", "; ".join(problems) + "; see the log folder", Kind.UNAVAILABLE) from None


def _ready_line(deployment: Context) -> str:
    c = deployment.config
    return (
        f"ready  ocsp http://{c.responder.host}:{c.responder.port}  crl http://{c.crl_origin.host}:{c.crl_origin.port}"
        f"  issuer https://{c.issuer.host}:{c.issuer.port}  admin https://{c.admin.host}:{c.admin.port}"
        f"  metrics http://{c.metrics.host}:{c.metrics.port}/metrics"
    )
