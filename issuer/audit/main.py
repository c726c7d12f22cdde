"""The process `ledger`: chains acts and signatures twice a second and signs checkpoints with a key of its own."""

from __future__ import annotations

from prometheus_client import Gauge

from issuer.audit.checkpoint_bucket import CONTRADICTED, CheckpointBucket
from issuer.audit.checkpoint_file import NAME, CheckpointFile
from issuer.audit.sequencer import Sequencer
from quash.errors import QuashError
from quash.keys import KeyHandle, open_key
from quash.runtime.config import Config
from quash.runtime.process import Process
from quash.runtime.state import State
from quash.store.database import connect
from quash.store.roles import LEDGER

_POLL = 0.5  # seconds: a row is chained within one second
_BROKEN = Gauge("quash_ledger_broken", "1: the database lost what a checkpoint signed; alarm at once (F8)")
_CONNECTIONS = 2  # the lease, and work


async def main(process: Process) -> None:
    """Steps until it is cancelled; ready while it chains or stands by."""
    process.health.set("ledger", False, "starting")
    pool = await connect(process.config, process.state, LEDGER, size=_CONNECTIONS)
    try:
        key = open_checkpoint_key(process.config, process.state)
        file = CheckpointFile(process.state.ledger / NAME)
        bucket = CheckpointBucket(process.config.audit.s3) if process.config.audit.s3 else None
        sequencer = Sequencer(pool, key, file, process.clock, process.config.audit, bucket=bucket)
        try:
            await _run(process, sequencer)
        finally:
            await sequencer.let_go()
            key.close()
    finally:
        pool.terminate()


async def _run(process: Process, sequencer: Sequencer) -> None:
    while True:
        try:
            await sequencer.step()
            process.health.set("ledger", True, "leading" if sequencer.leading else "standing by")
            _BROKEN.set(0)
        except QuashError as error:
            # A ledger that contradicts its checkpoints needs a person, and must not keep OCSP and CRLs from starting.
            broken = error.code == CONTRADICTED
            process.health.set("ledger", broken, str(error))
            _BROKEN.set(broken)
            process.log.warning("ledger.step_failed", code=error.code, detail=error.message)
        except Exception as error:  # the process outlives what nobody foresaw: the next step begins anew
            process.health.set("ledger", False, type(error).__name__)
            process.log.exception("ledger.unforeseen")
            await sequencer.let_go()
        await process.clock.sleep(_POLL)


def open_checkpoint_key(config: Config, state: State) -> KeyHandle:
    """The key that `quash init` made for this alone. Raises `KeyUnavailable`."""
    passphrase = config.keys.ledger_passphrase_file or state.secrets / "ledger.passphrase"
    return open_key(config.audit.checkpoint_key, state.keys, passphrase, logins=state.run)
