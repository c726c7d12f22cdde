"""The process `ct-log`: the demo's three logs of two operators, and the log list that names them."""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from issuer.ct.double import LogDouble, application, list_of
from quash.errors import Kind, QuashError
from quash.runtime.process import Process
from quash.runtime.state import State

LOGS: Final = (
    ("demo-operator-1", "demo-one", "rfc6962"),
    ("demo-operator-1", "demo-two", "static"),
    ("demo-operator-2", "demo-three", "rfc6962"),
)
"""operator, name, kind: enough for Chrome and Apple at every lifetime (E1-E4)."""
_REFRESH: Final = 3600.0  # seconds; the list says how old it is


async def main(process: Process) -> None:
    """Serves the logs until cancelled; the list is written once they answer, and again each hour.

    Raises `ct_log.off` where they are not configured: their list would take the place of the real one (E6).
    """
    if not process.config.ct_log.enabled:
        raise QuashError("ct_log.off", "ct_log.enabled is false: these logs are for demonstrations", Kind.REFUSED)
    process.health.set("logs", False, "starting")
    roots = [
        certificate.public_bytes(Encoding.DER)
        for certificate in x509.load_pem_x509_certificates((process.state.certs / "chain.pem").read_bytes())
        if certificate.subject == certificate.issuer
    ]
    logs = [
        LogDouble(
            operator=operator, name=name, kind=kind, key=_key(process.state, name), roots=roots, clock=process.clock
        )
        for operator, name, kind in LOGS
    ]
    runner = web.AppRunner(application(logs), access_log=None, shutdown_timeout=10)
    await runner.setup()
    try:
        await web.TCPSite(runner, process.config.ct_log.host, process.config.ct_log.port).start()
        host, port = runner.addresses[0][:2]
        process.log.info("ct_log.listening", host=host, port=port)
        while True:
            _write_list(process.state, logs, f"http://{host}:{port}", process.clock.now())
            process.health.set("logs", True)
            await asyncio.sleep(_REFRESH)
    finally:
        await runner.cleanup()


def _write_list(state: State, logs: list[LogDouble], base: str, now: float) -> None:
    file = state.ct / "log_list.json"
    beside = file.with_suffix(".new")
    beside.write_bytes(orjson.dumps(list_of(logs, base, now), option=orjson.OPT_INDENT_2))
    beside.replace(file)


def _key(state: State, name: str) -> ec.EllipticCurvePrivateKey:
    """A log's own key, made at its first start: SCTs of earlier runs stay verifiable. It protects nothing."""
    file = state.ct / f"{name}.pem"
    if not file.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        state.write_secret(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    loaded = load_pem_private_key(file.read_bytes(), None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise QuashError("ct_log.key", f"{file} is no EC key: remove it", Kind.REFUSED)
    return loaded
