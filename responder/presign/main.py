"""The presigner process: steps on every hint of the outbox, beside it every 250 ms, and 50 ms while it hears none."""

from __future__ import annotations

import asyncio

from quash.errors import QuashError
from quash.runtime.memory import collect_rarely
from quash.runtime.process import Process
from quash.store.database import Pool, connect
from quash.store.hints import Hints
from responder.presign import live_socket
from responder.presign.agreement import ClockAgreement
from responder.presign.crew import SigningCrew
from responder.presign.crl_origin import CrlOrigin
from responder.presign.desk import SigningDesk
from responder.presign.key_places import maker, opener
from responder.presign.live import LiveSigner
from responder.presign.metrics import alarm
from responder.presign.presigner import Presigner

ROLE = "quash_presigner"
POLL, POLL_BESIDE_HINTS = 0.05, 0.25
RETRY = 1.0
_CONNECTIONS = 5  # lease, hints, work, live signing and one to spare


async def main(process: Process) -> None:
    """Runs until it is cancelled; a database that is away, or a clock that is off, is waited for."""
    process.health.set("presign", False, "starting")
    collect_rarely()
    pool = await _connect(process)
    open_key, workers = opener(process.config, process.state), process.config.presign.workers
    hints = Hints(pool, "outbox")
    presigner = Presigner(
        pool,
        open_key,
        process.clock,
        process.config.presign,
        process.state.crl,
        make_key=maker(process.config, process.state),
        crew=SigningCrew(open_key, workers) if workers else None,
        crl_origin=CrlOrigin(process.config.crl_base, process.clock),
        cache=process.state.cache,
        hinted=hints.wait,
    )
    live = LiveSigner(
        pool,
        presigner,
        SigningDesk(open_key),  # keys of its own: nobody waits behind a batch
        ClockAgreement(process.clock),
        validity=process.config.presign.validity,
        queue=process.config.presign.live_queue,
    )
    signing = asyncio.create_task(live.run())
    server = await live_socket.serve(process.state.run / "presigner.sock", live, process.config.sockets.presigner)
    try:
        while True:
            if not await _step(process, presigner):
                await process.clock.sleep(RETRY)
            elif not presigner.unfinished:
                await hints.wait(POLL, listening=POLL_BESIDE_HINTS)
    finally:
        server.close()
        signing.cancel()
        await asyncio.gather(signing, return_exceptions=True)
        await hints.close()
        await presigner.close()
        pool.terminate()


async def _connect(process: Process) -> Pool:
    while True:
        try:
            return await connect(process.config, process.state, ROLE, size=_CONNECTIONS)
        except QuashError as error:
            process.health.set("presign", False, str(error))
            process.log.warning("presign.waiting", code=error.code, detail=error.message)
            await process.clock.sleep(RETRY)


async def _step(process: Process, presigner: Presigner) -> bool:
    """One step; False: it failed, and health and log say why."""
    try:
        await presigner.step()
    except QuashError as error:
        process.health.set("presign", False, str(error))
        alarm(error.code, error.message)
        return False
    except Exception as error:  # the process outlives what nobody foresaw: the next step begins anew
        process.health.set("presign", False, type(error).__name__)
        process.log.exception("presign.unforeseen")
        alarm("presign.unforeseen", "an unforeseen error ended this step: see the log", error=type(error).__name__)
        return False
    process.health.set("presign", True, "leading" if presigner.leading else "standing by")
    process.health.set("keys", not presigner.key_problems, "; ".join(presigner.key_problems.values()))
    return True
