"""Logs on real sockets, and the list that names them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import orjson
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from issuer.ct.double import LogDouble, application, list_of
from issuer.ct.submit import CtLogs
from quash.runtime.clock import Clock
from quash.runtime.config import Ct

THREE = (("Alpha", "alpha-one", "rfc6962"), ("Alpha", "alpha-two", "static"), ("Beta", "beta-one", "rfc6962"))
"""operator, name, kind: the fewest logs that satisfy Chrome and Apple at every lifetime."""
SPARE = (*THREE, ("Beta", "beta-two", "static"), ("Gamma", "gamma-one", "rfc6962"))


@cache
def log_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@asynccontextmanager
async def logs_of(
    file: Path, clock: Clock, roots: Sequence[bytes], which: Sequence[tuple[str, str, str]] = THREE, **config: object
) -> AsyncIterator[tuple[CtLogs, dict[str, LogDouble]]]:
    """Running logs by name, and the client of a list in `file`, which asks them in the order of `which`."""
    doubles = {
        name: LogDouble(operator=operator, name=name, kind=kind, key=log_key(name), roots=roots, clock=clock)
        for operator, name, kind in which
    }
    runner = web.AppRunner(application(doubles.values()), shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    file.write_bytes(orjson.dumps(list_of(doubles.values(), f"http://{host}:{port}", clock.now())))
    order = {name: place for place, (_, name, _) in enumerate(which)}
    settings = Ct.model_validate({"timeout": 5, "hedge": 0.2, **config})
    try:
        async with CtLogs(
            settings, file, clock, lambda logs: logs.sort(key=lambda log: order[log.description])
        ) as client:
            yield client, doubles
    finally:
        await runner.cleanup()
