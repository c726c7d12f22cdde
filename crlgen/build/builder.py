"""Flow 3, CRLs: from revocations in the database to published files.

Whether a scope is due is derived each time from what is published: on schedule, or when a revocation is not visible in
the snapshot that the published CRL was made from. One builder works at a time (a lease); the others stand by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crlgen.build import files, metrics
from crlgen.build.lateness import lateness
from crlgen.build.lint import Linter, WholeLint
from crlgen.build.make import RETIRED, Workshop
from crlgen.build.schedule import MASS, REVOKED, Memory, why_due
from crlgen.build.signer import CrlSigner
from crlgen.publish.folder import Publisher
from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.store import crls
from quash.store.database import Pool, acquire
from quash.store.leases import Holder, Lease

_HOURLY = 3600.0
_TRUST_AGAIN = 60.0
_BROUGHT = 120.0  # seconds within which what a command wrote into a folder has reached the bucket


class CrlBuilder:
    """Keeps the CRL of every scope of the online issuers published.

    After each step `problems` says what is missing: the published CRL stays where a new one fails.
    """

    def __init__(
        self,
        pool: Pool,
        signer: CrlSigner,
        publisher: Publisher,
        clock: Clock,
        config: Config,
        *,
        linter: Linter | None = None,
        announce: Callable[[crls.Scope], None] | None = None,
    ) -> None:
        """Without `linter` nothing is linted, for tests of something else; `announce` is told of each published CRL."""
        self._pool = pool
        self._publisher = publisher
        self._clock = clock
        self._announce = announce
        self._config = config.crl
        self.afterwards = WholeLint(linter) if linter else None
        self._workshop = Workshop(pool, signer, publisher, clock, config.crl, linter, self.afterwards)
        self._holder = Holder(pool, "crl-builder")
        self._memory: dict[tuple[int, str], Memory] = {}
        self._lease: Lease | None = None
        self._trusted = False
        self._distrust = ""
        self._trust_again_at = 0.0
        self._lost_scopes = ""
        self._lost_scopes_again_at = 0.0

    async def step(self) -> int:
        """Publishes every CRL that is due; returns how many. With nothing due it costs one query.

        What goes wrong with one scope is the problem of that scope alone; a lost database raises `store.unavailable`.
        """
        lease = await self._holder.hold()
        metrics.LEADING.set(lease is not None)
        if lease is not self._lease:
            self._forget()
            self._lease = lease
        if lease is None:
            return 0
        trusted = await self._establish_trust()
        async with acquire(self._pool) as conn:
            states = await crls.states(conn, offline=True)
        done = 0
        waiting = [state for state in states if not state.offline]
        try:
            if trusted:
                await self._look_for_lost_scopes()
                for state in states:
                    if state.offline:
                        await self._watch_over(state)
                    elif await self._take_care(state, lease):
                        done += 1
                        waiting.remove(state)
        except QuashError as error:
            if error.code != "lease.lost":
                raise
            await self._holder.let_go()
        finally:
            self._note_lateness(waiting)
        return done

    @property
    def problems(self) -> Mapping[str, str]:
        """What a person should know: the scope's path, or a subject -> what is missing and why. Empty: all is well."""
        general = {"trust": self._distrust, "scopes": self._lost_scopes}
        said = {memory.path: (memory.problem, memory.lacks, memory.late) for memory in self._memory.values()}
        scopes = {path: "; ".join(filter(None, all_)) for path, all_ in said.items()}
        whole = self.afterwards.problems if self.afterwards else {}
        return whole | {name: text for name, text in (general | scopes).items() if text}

    @property
    def leading(self) -> bool:
        """Whether this builder holds the lease; the others stand by."""
        return self._lease is not None

    def pause(self) -> float:
        """Seconds, at most one, until the next step may have something to do that is known already."""
        waits = [
            max(memory.waiting_since + self._config.coalesce, memory.rest_until, memory.retry_at)
            - self._clock.monotonic()
            for memory in self._memory.values()
            if memory.waiting_since is not None
        ]
        return max(0.01, min([1.0, *waits]))

    async def close(self) -> None:
        """Gives up the lease."""
        await self._holder.let_go()

    def _forget(self) -> None:
        """A lease that was away: another builder may have published, or another database server have taken over."""
        self._memory.clear()
        self._trusted, self._distrust, self._lost_scopes = False, "", ""
        self._trust_again_at = self._lost_scopes_again_at = 0.0

    def _remember(self, state: crls.ScopeState) -> Memory:
        scope = state.scope
        return self._memory.setdefault((scope.issuer_id, scope.scope), Memory(scope.path))

    async def _establish_trust(self) -> bool:
        """Once, at start: every entry that is published must be revoked in the database (design 5, Trust).

        Otherwise the database is older than the CRLs (a restored backup, a lost failover), and whatever it says would
        un-revoke: nothing is published until a person has repaired it.
        """
        if self._trusted:
            return True
        if self._clock.monotonic() < self._trust_again_at:
            return False
        async with acquire(self._pool) as conn:
            states = await crls.states(conn, offline=True)
        try:
            for state in states:
                memory = self._remember(state)
                await files.look(self._pool, self._publisher, self._clock, state, memory)
                await files.check_misfit(self._pool, self._publisher, state, memory)
                await self._compare(state, memory)
        except QuashError as error:
            if error.code != files.LOST_REVOCATIONS:
                raise
            metrics.ALARMS.labels(error.code).inc()
            self._distrust = str(error)
            self._trust_again_at = self._clock.monotonic() + _TRUST_AGAIN
            return False
        self._trusted, self._distrust = True, ""
        for state in states:  # what was published before a crash may not have been announced
            if self._remember(state).published is not None:
                self._tell(state.scope)
        return True

    async def _take_care(self, state: crls.ScopeState, lease: Lease) -> int:
        """One scope: 1 when a CRL went out."""
        memory = self._remember(state)
        started = self._clock.monotonic()
        try:
            tag = await self._publisher.head(state.scope.path)
            if self._should_look(state, memory, tag) and await files.look(
                self._pool, self._publisher, self._clock, state, memory
            ):
                self._found_out(state, memory)
                self._tell(state.scope)
                return 0
            if self._clock.monotonic() >= memory.compared_at + _HOURLY:
                await self._compare(state, memory)
            why = why_due(state, memory, self._clock.now(), started, self._config)
            if why is None:
                settled = self._clock.monotonic() >= memory.retry_at and memory.waiting_since is None
                if settled or memory.retired:  # the last CRL of an issuer that has ended is served on
                    await files.keep_copy(self._publisher, state, memory)
                if settled and memory.problem:
                    self._found_out(state, memory)
                return 0
            if why == REVOKED and await self._swells(state, memory):
                return 0
            made = await self._workshop.make(state, memory, lease, tag)
        except QuashError as error:
            self._went_wrong(state, memory, error)
            return 0
        finished = self._clock.monotonic()
        metrics.LATE.labels(state.scope.issuer, state.scope.scope).set(0)
        memory.succeeded(finished, finished - started)
        metrics.published(state.scope, made, why, finished - started)
        self._tell(state.scope)
        return 1

    async def _swells(self, state: crls.ScopeState, memory: Memory) -> bool:
        """Whether a mass revocation is at this scope just now."""
        if state.published is None:
            return False
        async with acquire(self._pool) as conn:
            count, newest = await crls.waiting(conn, state.scope, state.published.covers, MASS)
        return memory.swells(count, newest, self._clock.monotonic())

    async def _watch_over(self, state: crls.ScopeState) -> None:
        """A scope whose key is offline: commands publish its CRLs. What they publish is announced; what is wrong, said.

        Where a bucket is what the world sees, their files are brought there within a minute (`Bring`).
        """
        memory = self._remember(state)
        try:
            tag = await self._publisher.head(state.scope.path)
            if self._should_look(state, memory, tag):
                before = memory.published
                await files.look(self._pool, self._publisher, self._clock, state, memory)
                await self._compare(state, memory)
                if memory.published is not None and (before is None or before.number != memory.published.number):
                    self._tell(state.scope)
        except QuashError as error:
            self._went_wrong(state, memory, error)
            return
        if memory.good or state.published is None:
            self._found_out(state, memory)
            return
        memory.wrong_since = memory.wrong_since or self._clock.now()
        if not memory.problem and self._clock.now() >= memory.wrong_since + _BROUGHT:
            code = "crl.file_damaged" if tag else "crl.file_missing"
            metrics.ALARMS.labels(code).inc()
            memory.problem = (
                f"{code}: it is not the CRL published last: put that back, or sign another (quash root crl)"
            )

    def _tell(self, scope: crls.Scope) -> None:
        """A CRL of this scope is out, and caches in front may keep the one before (G1)."""
        if self._announce is not None:
            self._announce(scope)

    def _went_wrong(self, state: crls.ScopeState, memory: Memory, error: QuashError) -> None:
        if error.code in ("lease.lost", "store.unavailable"):
            raise error
        if error.code == RETIRED:
            self._retire(state, memory)
        else:
            self._failed(state, memory, error)

    def _retire(self, state: crls.ScopeState, memory: Memory) -> None:
        """Every certificate of the issuer has ended, and all below them (B6): its last CRL stays where it is."""
        memory.retire(self._clock.monotonic())
        metrics.MISSING.labels(state.scope.issuer, state.scope.scope).set(0)

    def _found_out(self, state: crls.ScopeState, memory: Memory) -> None:
        """All is as it should be: what failed does not any more, or had succeeded although it seemed to fail."""
        memory.mended()
        metrics.MISSING.labels(state.scope.issuer, state.scope.scope).set(0)

    def _note_lateness(self, states: list[crls.ScopeState]) -> None:
        """Also of scopes that nothing went wrong with: a hanging step, or no trust, makes them late all the same."""
        now = self._clock.now()
        for state in states:
            memory, scope = self._remember(state), state.scope
            if memory.wrong_since is None and not (memory.good and memory.published and not memory.differs):
                memory.wrong_since = now
            late = None if memory.retired else lateness(state, memory, now, self._config)
            metrics.LATE.labels(scope.issuer, scope.scope).set(late.seconds if late else 0)
            alarming = late is not None and late.alarming
            if alarming and not memory.alarmed:
                metrics.ALARMS.labels("crl.late").inc()
            memory.alarmed = alarming
            memory.late = f"crl.late: {late}" if late and (memory.problem or alarming) else ""

    async def _compare(self, state: crls.ScopeState, memory: Memory) -> None:
        """Before anything is signed, and once an hour; the job runner compares what strangers see with the database."""
        await files.compare(self._pool, state, memory)
        memory.compared_at = self._clock.monotonic()

    def _should_look(self, state: crls.ScopeState, memory: Memory, tag: str | None) -> bool:
        """When the file or the newest number is not the one last seen, and now and then in any case: octets rot."""
        newest = state.newest.number if state.newest else 0
        return memory.seen != (tag, newest) or self._clock.monotonic() >= memory.looked_at + _HOURLY

    def _failed(self, state: crls.ScopeState, memory: Memory, error: QuashError) -> None:
        memory.failed(self._clock.monotonic(), str(error), unavailable=error.kind is Kind.UNAVAILABLE)
        metrics.ALARMS.labels(error.code).inc()
        metrics.MISSING.labels(state.scope.issuer, state.scope.scope).set(1)

    async def _look_for_lost_scopes(self) -> None:
        """Revocations that no CRL would ever show: peers lost some that way when the number of shards changed."""
        if self._clock.monotonic() < self._lost_scopes_again_at:
            return
        async with acquire(self._pool) as conn:
            lost = await crls.without_scope(conn)
        named = ", ".join(f"{issuer} {'full' if shard is None else f'shard {shard}'}" for issuer, shard in lost)
        self._lost_scopes = f"crl.scope_missing: revocations that no CRL shows: {named}" if lost else ""
        self._lost_scopes_again_at = self._clock.monotonic() + _HOURLY
