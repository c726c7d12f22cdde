"""The CRL builder's process. It has no key: the CA signer signs."""

from __future__ import annotations

import logging

from crlgen.build.builder import CrlBuilder
from crlgen.build.signer import RpcCrlSigner
from crlgen.publish.folder import FolderPublisher
from quash.errors import QuashError
from quash.runtime.process import Process
from quash.store.database import connect
from quash.store.hints import Hints
from quash.store.roles import CRL_BUILDER

_CHECK = "crls"


async def main(process: Process) -> None:
    """Builds until cancelled; ready while every scope's CRL is out and nothing that is due fails."""
    process.health.set(_CHECK, ok=False, detail="starting")
    pool = await connect(process.config, process.state, CRL_BUILDER)
    signer = RpcCrlSigner(process.state.run / "ca-signer.sock")
    builder = CrlBuilder(pool, signer, FolderPublisher(process.state.crl), process.clock, process.config)
    hints = Hints(pool, "crl")
    said = ""
    try:
        while True:
            said = await _step(process, builder, said)
            await hints.wait(builder.pause())
    finally:
        await hints.close()
        await builder.close()
        await pool.close()


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
