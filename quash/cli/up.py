"""`quash up`: the whole system under one supervisor, initialised first when the state is new."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

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
from quash.runtime import control
from quash.runtime.clock import SystemClock
from quash.runtime.config import Config
from quash.runtime.log import configure, logger
from quash.runtime.overview import Overview
from quash.runtime.rolling import roll
from quash.runtime.state import State, StateLock
from quash.runtime.supervisor import CPU, LISTEN_FD, SUPERVISOR_PID, Child, Supervisor, listening_socket
from quash.runtime.terminal import Terminal
from quash.store.embedded import EmbeddedPostgres

# In the order of their start; responder workers and the demo's logs are added by `_children`, PostgreSQL before.
PROCESSES = (
    "ca-signer",
    "presigner",
    "follower",
    "issuer",
    "admin",
    "intake",
    "jobs",
    "ledger",
    "crl-builder",
    "crl-origin",
)
_WARN_AFTER = 60.0
_LAST_RUN_ENDS_WITHIN = 60.0  # PostgreSQL writes everything down first
_LAST_RUN_ENDS_QUIETLY = 2.0
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
    began, told = time.monotonic(), False
    while True:
        try:
            return state.children_lock()
        except QuashError:
            waited = time.monotonic() - began
            if waited > _LAST_RUN_ENDS_WITHIN:
                raise
            if waited > _LAST_RUN_ENDS_QUIETLY and not told:
                Console(stderr=True).print("waiting for the processes of the last run to end")
                told = True
        time.sleep(0.1)


async def _up(deployment: Context, arguments: list[str], children_lock: int) -> None:
    configure("supervisor")
    console = Console(stderr=True)
    supervisor = Supervisor(SystemClock(), logger(), inherited=(children_lock,))
    stop, hangup = asyncio.Event(), asyncio.Event()
    loop, terminal = asyncio.get_running_loop(), Terminal()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, stop.set)

    def hang_up() -> None:
        """Somebody's word, or the end of the terminal that we were started from."""
        (stop if terminal.hung_up else hangup).set()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    running = asyncio.create_task(_run(deployment, arguments, supervisor, console, hangup))
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


async def _run(
    deployment: Context, arguments: list[str], supervisor: Supervisor, console: Console, hangup: asyncio.Event
) -> None:
    config, state = deployment.config, deployment.state
    _check_cpus(config)
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
                await _until_ready(overview, status.update, partial(console.print, markup=False, soft_wrap=True))
            if config.drills.allowed:
                holdable = ("follower", "presigner", *(() if config.database.url else ("postgres",)))
                await control.serve(state.run / "supervisor.sock", supervisor, holdable, config.drills.longest)
            print(_ready_line(deployment), flush=True)
            print(tour(deployment, arguments), flush=True)
            await _roll_when_told(hangup, supervisor, deployment)
    finally:
        listen.close()


def _check_ports(config: Config) -> None:
    """Says at once that a port is taken: the process that needs it would only be restarted again and again."""
    for listener in (config.crl_origin, config.issuer, config.admin, config.intake, config.metrics, config.ct_log):
        listening_socket(listener.host, listener.port).close()


def _check_cpus(config: Config) -> None:
    absent = sorted(set(config.responder.cpus) - os.sched_getaffinity(0))
    if absent:
        raise QuashError("up.no_such_cpu", f"responder.cpus: {absent} cannot be used on this machine")


async def _roll_when_told(hangup: asyncio.Event, supervisor: Supervisor, deployment: Context) -> None:
    """SIGHUP: one worker after the other is replaced, and reads the configuration anew; no client notices."""
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            for name in _worker_names(deployment.config):
                await roll(supervisor, name, deployment.state.run)
        except QuashError as error:
            logger().error("up.roll_failed", code=error.code, detail=error.message)
        else:
            logger().info("up.rolled")


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
    config = deployment.config
    names = (*PROCESSES, *(["ct-log"] if config.ct_log.enabled else []))
    children = [Child(name, [*_quash("serve"), name, *arguments], log=logs / f"{name}.log") for name in names]
    workers = [
        Child(
            name,
            [*_quash("serve"), "responder", *arguments],
            environment={LISTEN_FD: str(listen_fd), **({CPU: str(cpu)} if cpu is not None else {})},
            pass_fds=(listen_fd,),
            log=logs / f"{name}.log",
        )
        for name, cpu in zip(_worker_names(config), itertools.cycle(config.responder.cpus or (None,)), strict=False)
    ]
    return children + workers


def _worker_names(config: Config) -> list[str]:
    return [f"responder-{n}" for n in range(1, config.responder.workers + 1)]


def _quash(verb: str) -> list[str]:
    return [sys.executable, "-m", "quash.cli.main", verb]


async def _until_ready(overview: Overview, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Waits as long as it takes: one process that cannot get ready, say over one CRL, must not take OCSP out."""
    warned: set[str] = set()
    due = time.monotonic() + _WARN_AFTER
    while late := {name: report for name, report in (await overview.reports()).items() if not report["ready"]}:
        say("waiting for " + ", ".join(late))
        if time.monotonic() > due and set(late) != warned:
            warn(f"warning: up.not_ready: {_problems(late)}; all others serve on; see the log folder")
            warned = set(late)
        await asyncio.sleep(0.1)


def _problems(late: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{name}: {check} {said['detail']}".rstrip()
        for name, report in late.items()
        for check, said in report["checks"].items()
        if not said["ok"]
    )


def _ready_line(deployment: Context) -> str:
    c = deployment.config
    return (
        f"ready  ocsp http://{c.responder.host}:{c.responder.port}  crl http://{c.crl_origin.host}:{c.crl_origin.port}"
        f"  issuer https://{c.issuer.host}:{c.issuer.port}  admin https://{c.admin.host}:{c.admin.port}"
        f"  reports {'https' if c.intake.certificate else 'http'}://{c.intake.host}:{c.intake.port}"
        f"  metrics http://{c.metrics.host}:{c.metrics.port}/metrics"
    )
