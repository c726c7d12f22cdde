"""The process `ledger`, with the key that `init` makes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from issuer.audit import main as ledger_process
from issuer.audit.checkpoint_file import NAME
from issuer.audit.verify import Verifier, read_keys, verify_database
from issuer.signer.checkpoint_key import PUBLIC_KEY, ensure_checkpoint_key
from issuer.signer.deployment import Deployment
from quash.runtime.clock import FakeClock
from quash.runtime.process import Process
from quash.runtime.state import State
from quash.store import acts
from quash.store.database import acquire
from quash.store.roles import LEDGER


async def _run_until(process: Process, done: Callable[[], bool]) -> None:
    task = asyncio.ensure_future(ledger_process.main(process))
    try:
        async with asyncio.timeout(20):
            while not done():
                assert not task.done(), task
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_it_chains_within_a_second_and_outlives_a_contradiction(
    database: Any, clock: FakeClock, tmp_path: Path
) -> None:
    """Acts are chained and signed; a database that lost them is an alarm, and keeps nothing else from starting."""
    state = State(tmp_path)
    (state.secrets / f"{LEDGER}.password").symlink_to(database.state.secrets / f"{LEDGER}.password")
    deployment = Deployment(database.config, state, database.owner, clock)
    assert ensure_checkpoint_key(deployment)
    assert not ensure_checkpoint_key(deployment)
    async with acquire(database.owner) as conn:
        await acts.record(conn, at=1, actor="a", action="b", subject={})
    file = state.ledger / NAME
    process = Process("ledger", database.config, state)
    await _run_until(process, lambda: process.health.ready and file.exists())
    verifier = Verifier(read_keys((state.certs / PUBLIC_KEY).read_bytes()))
    async with acquire(database.owner) as conn:
        report = await verify_database(conn, verifier, file)
        assert (report.fault_count, report.covered, report.checkpoints) == (0, 1, 2)
        for table in ("ledger_checkpoint", "ledger"):
            await conn.execute(f"alter table {table} disable trigger append_only")
            await conn.execute(f"delete from {table}")
            await conn.execute(f"alter table {table} enable trigger append_only")
    process = Process("ledger", database.config, state)
    await _run_until(process, lambda: "contradicts" in str(process.health.report()))
    assert process.health.ready
    assert await database.owner.fetchval("select count(*) from ledger") == 0
