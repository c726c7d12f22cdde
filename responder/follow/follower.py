"""The follower: takes the feed's news, judges them, applies them to the node's cache, each batch in one commit.

A batch is read again until its commit stands, and the position is part of that commit: nothing is skipped by a crash, a
full disk or a lost database, and what comes twice changes nothing (a record is a maximum). In a backlog, urgent rows
are taken up between two batches (`responder.follow.urgent_lane`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from prometheus_client import Counter, Gauge

from quash.cache.layout import NEWER_FORMAT
from quash.cache.writer import CacheWriter, Catalog, Changes
from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.store import feed
from quash.store.database import Connection, Pool, acquire
from quash.store.news import Batch, Position
from responder.follow.judge import Verdict, judge
from responder.follow.trust import Limits, Trust
from responder.follow.urgent_lane import UrgentLane

APPLIED = Counter("quash_follower_records_applied_total", "Records that were new to the cache or greater than its own")
AHEAD = Counter("quash_follower_ahead_total", "Feed rows of the urgent lane that overtook a backlog before them")
REFUSED = Counter("quash_follower_refused_total", "Alarm: what the feed carried and this node refused", ["reason"])
REBUILDS = Counter("quash_follower_rebuilds_total", "Times that the cache was begun anew", ["reason"])
HEARTBEAT = Gauge("quash_follower_heartbeat_seconds", "Newest applied heartbeat, Unix time")
FILE_BYTES = Gauge("quash_cache_file_bytes", "Size of the cache file")
USED_BYTES = Gauge("quash_cache_used_bytes", "Octets of its pages that hold something")

READ_LIMIT = 500  # feed rows, each a batch of records, or a heartbeat
OCTETS_AT_ONCE = 2_400_000  # 16,000 P-256 records: enough for a commit, and urgent rows wait some tenths of a second
SWEEP_EVERY, SWEEP_KEYS = 1.0, 2_000
SWEEP_AFTER = 7 * 86_400  # seconds past nextUpdate: expired long ago, not late
LOGGED = 20  # refusals of one batch that are told one by one; the metric counts all
CLOCK_TOLERANCE = 30.0  # seconds between our clock and the database's, before ours is the suspect

DatabaseTime = Callable[[Connection], Awaitable[float]]


class Follower:
    """Keeps one cache up with the feed; `step` does what is due now.

    `step` raises `store.unavailable`, `cache.full`, `cache.unavailable` and `follower.clock`; a later call goes on
    where it stood. A cache that turns out to be damaged is begun anew; `cache.given_up` is for a new start.
    """

    def __init__(
        self,
        pool: Pool,
        writer: CacheWriter,
        clock: Clock,
        log: Any,
        *,
        limits: Limits | None = None,
        read_limit: int = READ_LIMIT,
        database_time: DatabaseTime = feed.database_time,
    ) -> None:
        self._pool = pool
        self._writer = writer
        self._clock = clock
        self._log = log
        self._limits = limits or Limits()
        self._read_limit = read_limit
        self._database_time = database_time
        self._reader = feed.news_reader("follower", heaviest=OCTETS_AT_ONCE)
        self._sweep_key = b""
        self._swept_at = clock.monotonic()
        # The feed's floor when we began from its start; None: we did not, or did not look yet.
        self._floor_at_start: int | None = None
        try:
            self._trust = Trust(writer.catalog(), self._limits)
            self._resume()
        except QuashError as error:
            self._rebuild_damaged(error)

    @property
    def at_head(self) -> bool:
        """Whether the cache has held everything since it was begun."""
        return self._writer.complete()

    async def step(self) -> int:
        """Applies all news that there are and sweeps a little; returns how many feed rows it took up."""
        try:
            done = await self._take_up()
            self._housekeep()
        except QuashError as error:
            self._rebuild_damaged(error)
            return 0
        return done

    async def _take_up(self) -> int:
        done, more = 0, True
        lane: UrgentLane | None = None
        async with acquire(self._pool) as conn:
            while more:
                batch = await self._read(conn)
                if batch is None:
                    lane = None
                    continue
                rows = [row for row in batch.rows if not lane.has(row)] if lane else batch.rows
                self._apply(batch, await self._judge(conn, rows, self._trust))
                done += len(batch.rows)
                more = batch.more
                if more:
                    lane = lane or UrgentLane(self._reader.position, self._trust)
                    await self._overtake(conn, lane)
        return done

    async def _overtake(self, conn: Connection, lane: UrgentLane) -> None:
        """Takes up all that is urgent before the next piece of a backlog; never a heartbeat, nor a position.

        Of issuers only those that are new: how a known one has changed, its turn in the feed tells.
        """
        more = True
        while more and (batch := await lane.read(conn, self._read_limit)) is not None:
            try:
                verdict = await self._judge(conn, batch.rows, lane.trust)
            except QuashError as error:
                if error.code != NEWER_FORMAT:
                    raise
                lane.stop()
                return
            if batch.rows:
                issuers = [row for row in verdict.issuers if not self._trust.knows(row.issuer_id)]
                APPLIED.inc(self._writer.apply(Changes(verdict.records, verdict.templates, issuers)))
                AHEAD.inc(len(batch.rows))
            lane.accept(batch)
            more = batch.more

    async def _read(self, conn: Connection) -> Batch | None:
        """The next batch; None when it turned out that we must begin from the feed's start."""
        before = self._reader.position
        if before.tx == 0 and self._floor_at_start is None:
            self._floor_at_start = await feed.floor(conn)
        batch = await self._reader.read(conn, self._read_limit)
        if before.history and _system(before) != _system(batch.position):
            self._rebuild("database", "the feed is another database's: ids mean something else there")
            return None
        if before.history not in {"", batch.position.history} or batch.position.tx < before.tx:
            # After a failover or from a backup every row comes again. The cache stays: what was revoked stays revoked.
            self._from_start()
            return None
        # Looked at after the read, so that a partition that was dropped before it shows. Whoever began at the start
        # when the floor was where it is has missed nothing, however low the transactions are that it still reads.
        if await feed.floor(conn) > max(before.tx, self._floor_at_start or 0):
            self._rebuild("outdated", "the cache is older than the feed's oldest partition")
            return None
        if self._reader.position != before:  # a copy of the server's disk was put back, and has passed our position
            self._from_start()
            return None
        return batch

    async def _judge(self, conn: Connection, rows: Sequence[Any], trust: Trust) -> Verdict:
        now = self._clock.now()
        verdict = judge(rows, trust, now)
        if any(refusal.code == "future" for refusal in verdict.refused):
            await self._check_clock(conn, now)
        for number, refusal in enumerate(verdict.refused):
            REFUSED.labels(refusal.code).inc()
            if number < LOGGED:
                self._log.error("follower.refused", reason=refusal.code, detail=refusal.detail)
        return verdict

    async def _check_clock(self, conn: Connection, now: float) -> None:
        """Before anything is refused for ever as from the future: is it our own clock that is behind?"""
        behind = await self._database_time(conn) - now
        if behind > CLOCK_TOLERANCE:
            REFUSED.labels("clock").inc()
            raise QuashError(
                "follower.clock",
                f"this node's clock is {behind:.0f} s behind the database's: set it; nothing is applied until then",
                Kind.UNAVAILABLE,
            )

    def _apply(self, batch: Batch, verdict: Verdict) -> None:
        changes = verdict.changes(batch.position.encode(), complete=not batch.more)
        if batch.rows or batch.position != self._reader.position or not self.at_head:
            APPLIED.inc(self._writer.apply(changes))
        self._reader.accept(batch)
        if verdict.heartbeat is not None:
            HEARTBEAT.set(verdict.heartbeat)

    def _resume(self) -> None:
        position = self._writer.position()
        if position is not None:
            try:
                self._reader.resume(Position.decode(position))
            except ValueError as error:
                raise QuashError("cache.damaged", f"its position in the feed: {error}", Kind.INTERNAL) from error

    def _rebuild_damaged(self, error: QuashError) -> None:
        """Where the error says that the file is damaged; any other one is raised again."""
        if error.code != "cache.damaged":
            raise error
        self._rebuild("damaged", error.message)

    def _rebuild(self, reason: str, detail: str) -> None:
        REBUILDS.labels(reason).inc()
        self._log.error("follower.rebuild", reason=reason, detail=detail)
        self._writer.rebuild()
        self._trust = Trust(Catalog(), self._limits)
        self._sweep_key = b""
        self._from_start()

    def _from_start(self) -> None:
        self._reader.resume(Position())
        self._floor_at_start = None

    def _housekeep(self) -> None:
        """Looks at a few records more for long expired ones, and reports sizes."""
        if self._clock.monotonic() < self._swept_at + SWEEP_EVERY:
            return
        self._swept_at = self._clock.monotonic()
        # The heartbeat's word on the time as well: a clock that jumps ahead must not empty the cache.
        heartbeat = self._writer.heartbeat()
        if heartbeat is not None:
            expired_before = int(min(self._clock.now(), heartbeat)) - SWEEP_AFTER
            self._sweep_key = self._writer.sweep(self._sweep_key, SWEEP_KEYS, expired_before)
        size = self._writer.size()
        FILE_BYTES.set(size.file)
        USED_BYTES.set(size.used)


def _system(position: Position) -> str:
    """A history is the system's identifier and its timeline."""
    return position.history.partition("/")[0]
