"""The follower: takes the feed's news, judges them, applies them to the node's cache, each batch in one commit.

A batch is read again until its commit stands, and the position is part of that commit: nothing is skipped by a crash, a
full disk or a lost database, and what comes twice changes nothing (a record is a maximum).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import Counter, Gauge

from quash.cache.writer import CacheWriter, Catalog
from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.store import feed
from quash.store.database import Connection, Pool, acquire
from quash.store.news import Batch, NewsReader, Position
from responder.follow.judge import Verdict, judge
from responder.follow.trust import Limits, Trust

APPLIED = Counter("quash_follower_records_applied_total", "Records that were new to the cache or greater than its own")
REFUSED = Counter("quash_follower_refused_total", "Alarm: what the feed carried and this node refused", ["reason"])
REBUILDS = Counter("quash_follower_rebuilds_total", "Times that the cache was begun anew", ["reason"])
HEARTBEAT = Gauge("quash_follower_heartbeat_seconds", "Newest applied heartbeat, Unix time")
FILE_BYTES = Gauge("quash_cache_file_bytes", "Size of the cache file")
USED_BYTES = Gauge("quash_cache_used_bytes", "Octets of its pages that hold something")

READ_LIMIT = 500  # feed rows, each a batch of records, or a heartbeat
RECORDS_AT_ONCE = 16_000  # in a commit: large enough for LMDB, and urgent rows behind them wait a fifth of a second
SWEEP_EVERY, SWEEP_KEYS = 1.0, 2_000
SWEEP_AFTER = 7 * 86_400  # seconds past nextUpdate: expired long ago, not late
LOGGED = 20  # refusals of one batch that are told one by one; the metric counts all
CLOCK_TOLERANCE = 30.0  # seconds between our clock and the database's, before ours is the suspect

DatabaseTime = Callable[[Connection], Awaitable[float]]


class Portion:
    """How many feed rows to read for a commit of about `RECORDS_AT_ONCE` records; never more than `most`.

    A day of heartbeats is read in few steps, and a mass job's rows of a thousand records in small ones.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.rows = min(most, RECORDS_AT_ONCE // 1000)

    def learn(self, rows: int, records: int) -> None:
        """What a batch held. Grows only where there was more, fourfold at most: one batch says little of the next."""
        if rows:
            fitting = RECORDS_AT_ONCE * rows // max(records, 1)
            self.rows = max(1, min(fitting, 4 * self.rows if rows == self.rows else self.rows, self._most))


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
        self._portion = Portion(read_limit)
        self._database_time = database_time
        self._reader = NewsReader("feed", ("lane", "kind", "payload", "written_at"), "follower", stamp="written_at")
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
        while more:
            async with acquire(self._pool) as conn:
                batch = await self._read(conn)
                # Before the connection goes back, which costs a question to the server.
                if batch is not None:
                    self._apply(batch, await self._judge(conn, batch))
                    done += len(batch.rows)
                    more = batch.more
        return done

    async def _read(self, conn: Connection) -> Batch | None:
        """The next batch; None when it turned out that we must begin from the feed's start."""
        before = self._reader.position
        if before.tx == 0 and self._floor_at_start is None:
            self._floor_at_start = await feed.floor(conn)
        batch = await self._reader.read(conn, self._portion.rows)
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

    async def _judge(self, conn: Connection, batch: Batch) -> Verdict:
        now = self._clock.now()
        verdict = judge(batch.rows, self._trust, now)
        self._portion.learn(len(batch.rows), len(verdict.records) + len(verdict.refused))
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
