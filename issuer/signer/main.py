"""The process `ca-signer`: the only one that opens CA keys. It also answers requests for new OCSP signers."""

from __future__ import annotations

import asyncio
from typing import Final

from issuer.signer.key_files import KeyFiles, online_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.requests import serve
from issuer.signer.rotation import Rotation
from issuer.signer.service import CaSigner
from quash.errors import QuashError
from quash.runtime.memory import collect_rarely, keep_freed_memory
from quash.runtime.process import Process
from quash.store.database import connect
from quash.store.roles import CA_SIGNER

SOCKET: Final = "ca-signer.sock"
_CHECK_EVERY = 5.0


async def main(process: Process) -> None:
    """Serves typed requests until cancelled. Ready while the database answers and every online CA key opens."""
    process.health.set("keys", False, "not opened yet")
    keep_freed_memory()
    collect_rarely()
    pool = await connect(process.config, process.state, CA_SIGNER)
    keys = KeyRing(online_opener(KeyFiles(process.config, process.state)))
    signer = CaSigner(pool, keys, process.clock)
    rotation = Rotation(pool, signer, process.config, process.clock)
    server = await serve(process.state.run / SOCKET, signer, users=process.config.sockets.ca_signer)
    try:
        while True:
            await _check(process, signer)
            await _rotate(process, rotation)
            await process.clock.sleep(_CHECK_EVERY)
    finally:
        server.close()
        await asyncio.shield(keys.close())
        await pool.close()


async def _check(process: Process, signer: CaSigner) -> None:
    """Opens what is not open, also the keys of issuers that an import added meanwhile, and looks for what is."""
    try:
        await signer.open_keys()
    except QuashError as error:
        process.health.set("keys", False, str(error))
        process.log.warning("signer.keys_unavailable", code=error.code, detail=error.message)
    else:
        process.health.set("keys", True)


async def _rotate(process: Process, rotation: Rotation) -> None:
    """A database that is away ends this step alone: whatever it left is taken up by the next."""
    try:
        await rotation.step()
    except QuashError as error:
        process.log.warning("rotation.failed", code=error.code, detail=error.message)
    except Exception:  # signing goes on, whatever nobody foresaw here
        process.log.exception("rotation.unforeseen")
