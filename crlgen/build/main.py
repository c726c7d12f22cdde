"""The CRL builder's process. It has no key: the CA signer signs."""

from __future__ import annotations

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
    try:
        while True:
            await _step(process, builder)
            await hints.wait(builder.pause())
    finally:
        await hints.close()
        await builder.close()
        await pool.close()


async def _step(process: Process, builder: CrlBuilder) -> None:
    try:
        done = await builder.step()
    except QuashError as error:
        process.log.warning("crl.step_failed", code=error.code, error=error.message)
        process.health.set(_CHECK, ok=False, detail=str(error))
        return
    problems = builder.problems
    detail = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    if done:
        process.log.info("crl.published", count=done)
    if detail:
        process.log.error("crl.missing", problems=dict(problems))
    process.health.set(_CHECK, ok=not detail, detail=detail)
