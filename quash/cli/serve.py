"""`quash serve NAME`: one process in the foreground, as the supervisor and service units run it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    SetOption,
    StateOption,
    context,
    reports_errors,
)
from quash.errors import QuashError
from quash.runtime.process import Main, Process, die_with, run
from quash.runtime.supervisor import CPU, HEALTH_SOCKET, INSTANCE, SUPERVISOR_PID, inherited_or_own

# process -> module whose `main` runs it; only the process itself imports it (security contexts)
PROCESSES = {
    "ca-signer": "issuer.signer.main",
    "presigner": "responder.presign.main",
    "follower": "responder.follow.main",
    "responder": "responder.serve.main",
    "ct-log": "issuer.ct.main",
    "issuer": "issuer.issuance.main",
    "admin": "issuer.revocation.main",
    "intake": "issuer.intake.main",
    "jobs": "issuer.revocation.jobs",
    "ledger": "issuer.audit.main",
    "crl-builder": "crlgen.build.main",
    "crl-origin": "crlgen.origin.main",
    "metrics": "quash.runtime.metrics",
}


@reports_errors
def serve(
    process: Annotated[str, typer.Argument(help="One of: " + ", ".join(PROCESSES))],
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Runs one process until it is told to stop."""
    if process not in PROCESSES:
        raise QuashError("serve.unknown", f"no process {process!r}; there are {', '.join(PROCESSES)}")
    if SUPERVISOR_PID in os.environ:
        die_with(int(os.environ[SUPERVISOR_PID]))
    deployment = context(config, state, set_)
    main: Main = importlib.import_module(PROCESSES[process]).main
    public = deployment.config.responder
    listen = inherited_or_own(public.host, public.port) if process == "responder" else None
    if CPU in os.environ:
        os.sched_setaffinity(0, {int(os.environ[CPU])})
    instance, elsewhere = os.environ.get(INSTANCE, process), os.environ.get(HEALTH_SOCKET)
    health_at = Path(elsewhere) if elsewhere else None
    made = Process(instance, deployment.config, deployment.state, listen=listen, health_at=health_at)
    made.read_config = lambda: context(config, state, set_).config
    uvloop.run(run(made, main))
