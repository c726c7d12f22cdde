"""The job runner: finishes what one transaction could not, such as revoking a key's many certificates, by batches."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter

from issuer.revocation.agreement import Sampler
from issuer.revocation.mass_runner import MassRunner
from issuer.revocation.revoke import revoke_siblings
from issuer.revocation.sweep import Sweeper
from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.log import logger
from quash.runtime.memory import collect_rarely
from quash.runtime.process import Process
from quash.store import acts, jobs, outbox, revocations
from quash.store.database import Connection, Pool, acquire, connect
from quash.store.hints import Hints
from quash.store.jobs import Job
from quash.store.locks import spki_lock
from quash.store.roles import JOBS

ACTOR = "job-runner"
FINISHED = "job.finish"
_POLL = 1.0  # seconds, beside the hint
_REVOKED = Counter("quash_job_revocations_total", "Certificates that jobs revoked")


class JobRunner:
    """Runs the unfinished jobs. Any number of runners may: a batch locks its job, and finds what is still to do.

    A crash between two batches loses nothing and repeats nothing: a batch's revocations, acts, news and progress are
    one transaction.
    """

    def __init__(self, pool: Pool, clock: Clock, *, batch: int) -> None:
        self._pool = pool
        self._clock = clock
        self._batch = batch
        # Where each job's search goes on; forgotten with the process, which costs one search from the start.
        self._after: dict[int, tuple[int, bytes]] = {}

    async def step(self) -> int:
        """Finishes all jobs that are running now; returns how many certificates it revoked."""
        revoked = 0
        async with acquire(self._pool) as conn:
            for job in await jobs.running(conn):
                while (done := await self.run_batch(conn, job)) is not None:
                    revoked += done
        return revoked

    async def run_batch(self, conn: Connection, job: Job) -> int | None:
        """Revokes one batch and counts it; None: the job is finished, or another runner has it."""
        async with spki_lock(conn, job.spki_sha256), conn.transaction():
            locked = await jobs.get_running_for_update(conn, job.id)
            return await self._batch_of(conn, locked) if locked is not None else None

    async def _batch_of(self, conn: Connection, job: Job) -> int | None:
        now = int(self._clock.now())
        after = self._after.get(job.id, (-1, b""))
        found = await revocations.unsettled(
            conn, job.spki_sha256, unexpired_at=now, revoked_at=job.revoked_at, limit=self._batch, after=after
        )
        if found:
            cause = await acts.get(conn, job.act_id)
            actor = cause.actor if cause else ACTOR
            # Behind single revocations, which somebody may be waiting for.
            await revoke_siblings(
                conn, found, revoked_at=job.revoked_at, actor=actor, cause=job.act_id, now=now, lane=outbox.BULK
            )
            await jobs.advance(conn, job.id, by=len(found), finished=False, at=now)
            self._after[job.id] = (found[-1].issuer_id, found[-1].serial)
            _REVOKED.inc(len(found))
            return len(found)
        if self._after.pop(job.id, None) is not None:
            return 0  # once more from the start: some may have been added behind the search
        await jobs.advance(conn, job.id, by=0, finished=True, at=now)
        await acts.record(conn, at=now, actor=ACTOR, action=FINISHED, subject={"job": job.id, "cause": job.act_id})
        logger().info("job.finished", job=job.id, cause=job.act_id, done=job.done)
        return None


async def main(process: Process) -> None:
    """The process `jobs`: steps at each hint and once a second, until it is cancelled."""
    process.health.set("database", False, "not connected yet")
    collect_rarely()
    pool = await connect(process.config, process.state, JOBS)
    runner = JobRunner(pool, process.clock, batch=process.config.admin.sibling_batch)
    sweeper = Sweeper(pool, process.clock, batch=process.config.admin.sibling_batch)
    mass = MassRunner(pool, process.clock, batch=process.config.admin.sibling_batch)
    hints = Hints(pool, "job")
    sampling = asyncio.create_task(_sample(process, pool))
    try:
        while True:
            done = 0
            try:
                await sweeper.step()
                await runner.step()
                done = await mass.step()
                process.health.set("database", True)
            except QuashError as error:
                process.health.set("database", False, error.code)
                process.log.warning("jobs.step_failed", code=error.code, error=error.message)
            await hints.wait(0 if done else _POLL)
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
        await hints.close()
        pool.terminate()


async def _sample(process: Process, pool: Pool) -> None:
    """Beside the jobs: asking what is published must not hold them up, nor make the process unready."""
    async with Sampler(pool, process.config, process.clock) as sampler:
        while True:
            try:
                await sampler.step()
            except QuashError as error:
                process.log.warning("agreement.not_checked", code=error.code, detail=error.message)
            except Exception:  # nobody awaits this task: a fault of ours must be logged, and not end the sampling
                process.log.exception("agreement.unforeseen")
            await process.clock.sleep(_POLL)
