"""The sequencer: chains what committed, and signs checkpoints over it. Of several, the holder of the lease works.

Writers of acts insert them with their effects and wait for nobody. The order of the chain is the order in which "new
since" shows the rows, so a transaction that commits late is chained late, never skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Gauge

from issuer.audit.chain import GENESIS, Checkpoint, Entry, digest_of
from issuer.audit.checkpoint_bucket import CONTRADICTED, CheckpointBucket
from issuer.audit.checkpoint_file import CheckpointFile
from quash.errors import Kind, QuashError
from quash.keys import KeyHandle
from quash.pki.algorithms import verify
from quash.runtime.clock import Clock
from quash.runtime.config import Audit
from quash.runtime.log import logger
from quash.store import ledger
from quash.store.database import Connection, Pool, acquire
from quash.store.leases import Holder, Lease
from quash.store.ledger import SOURCES, CheckpointRow, Row
from quash.store.news import NewsReader

LEASE = "ledger"
_PAGE = 1000  # rows of one transaction
_CHAINED = Counter("quash_ledger_chained_total", "Rows that this process chained", ["source"])
_POSITION = Gauge("quash_ledger_position", "Rows in the ledger")
_OUTSIDE = Gauge("quash_ledger_checkpoints_outside_behind", "Checkpoints that the bucket does not have yet")
_CHECKPOINT = Gauge("quash_ledger_checkpoint_position", "The newest checkpoint covers the ledger up to here")


class Sequencer:
    """`step` chains all that is new and makes the checkpoint that is due. `key` is used by this object alone."""

    def __init__(
        self,
        pool: Pool,
        key: KeyHandle,
        file: CheckpointFile,
        clock: Clock,
        config: Audit,
        *,
        bucket: CheckpointBucket | None = None,
    ) -> None:
        self._pool = pool
        self._key = key
        self._key_sha256 = digest_of(key.spki)
        self._file = file
        self._clock = clock
        self._config = config
        self._holder = Holder(pool, LEASE)
        self._fence = 0
        self._bucket = bucket
        self._in_bucket: int | None = None
        self._readers = {source: _reader(source) for source in SOURCES}

    @property
    def leading(self) -> bool:
        return self._fence > 0

    async def step(self) -> int:
        """Returns how many rows it chained; 0 also while another process holds the lease.

        Raises `ledger.contradicts_checkpoint` when the database is older or other than what was signed of it.
        """
        lease = await self._holder.hold()
        if lease is None:
            self._fence = 0
            return 0
        try:
            async with acquire(self._pool) as conn:
                if lease.fence != self._fence:
                    await self._take_over(conn)
                    self._fence = lease.fence
                chained = [await self._chain_source(conn, lease, source) for source in SOURCES]
                await self._checkpoint(conn, lease)
                await self._copy_out(conn)
            await self._copy_to_bucket()
        except QuashError:
            await self.let_go()
            raise
        return sum(chained)

    async def let_go(self) -> None:
        """Gives the lease up; the next step starts from what is durable."""
        self._fence = 0
        await self._holder.let_go()

    async def _take_over(self, conn: Connection) -> None:
        last = self._file.last()
        if last is not None:
            await self._check_history(conn, last)
        for reader in self._readers.values():
            await reader.load(conn)
        _POSITION.set((await ledger.head(conn))[0])

    async def _check_history(self, conn: Connection, last: Checkpoint) -> None:
        """A database that lost what was signed (restored backup, cut tail) is not chained on: it would look whole."""
        known = {row.number: row.line for row in await ledger.checkpoints(conn, last.number - 1)}
        if known.get(last.number) == last.line.decode() and await ledger.hash_at(conn, last.position) == last.hash:
            return
        raise QuashError(
            CONTRADICTED,
            f"the database does not have what checkpoint {last.number} of {self._file.path} signs: find out what was "
            "lost (quash audit verify); to go on, keep the file as evidence and move it away",
            Kind.CONFLICT,
        )

    async def _chain_source(self, conn: Connection, lease: Lease, source: str) -> int:
        reader, chained = self._readers[source], 0
        while True:
            batch = await reader.read(conn, _PAGE)
            if batch.rows:
                async with conn.transaction():
                    await lease.check(conn)
                    links = await self._links(conn, source, batch.rows)
                    await ledger.append(conn, links)
                    await reader.save(conn, batch.position, int(self._clock.now()))
                chained += len(links)
                if links:
                    _POSITION.set(links[-1].position)
                    _CHAINED.labels(source).inc(len(links))
            reader.accept(batch)
            if not batch.more:
                return chained

    async def _links(self, conn: Connection, source: str, rows: Sequence[Any]) -> list[Row]:
        """The rows that are not in the ledger yet, chained behind its newest link."""
        known = await ledger.chained(conn, source, [row["id"] for row in rows])
        position, newest = await ledger.head(conn)
        previous, now, links = newest or GENESIS, int(self._clock.now()), []
        for row in rows:
            if row["id"] in known:
                continue
            position += 1
            content = ledger.read_content(row["content"])
            previous = Entry(position, source, row["id"], now, content).hash_after(previous)
            links.append(Row(position, source, row["id"], now, previous, content))
        return links

    async def _checkpoint(self, conn: Connection, lease: Lease) -> None:
        """Signs what is due. The row commits before the line leaves, so the file is never ahead of a whole database."""
        position, newest = await ledger.head(conn)
        last = await ledger.last_checkpoint(conn)
        now = int(self._clock.now())
        if newest is None or not self._is_due(last, position, now):
            return
        unsigned = Checkpoint(
            number=last.number + 1 if last else 1,
            position=position,
            hash=newest,
            at=now,
            previous=digest_of(last.line.encode()) if last else GENESIS,
            key=self._key_sha256,
        )
        signature = self._key.sign(unsigned.signed)
        verify(self._key.spki, self._key.algorithm, signature, unsigned.signed)
        line = _signed(unsigned, signature).line.decode()
        async with conn.transaction():
            await lease.check(conn)
            await ledger.add_checkpoint(conn, CheckpointRow(unsigned.number, position, now, line))
        _CHECKPOINT.set(position)

    def _is_due(self, last: CheckpointRow | None, position: int, now: int) -> bool:
        if last is None:
            return True
        rows, seconds = position - last.position, now - last.at
        return rows >= self._config.checkpoint_rows or (rows > 0 and seconds >= self._config.checkpoint_seconds)

    async def _copy_out(self, conn: Connection) -> None:
        """Appends to the file what it lacks, also what a crash, a full disk or another machine left out."""
        newest, last = await ledger.last_checkpoint(conn), self._file.last()
        behind = last.number if last else 0
        if newest is None or newest.number <= behind:
            return
        try:
            for row in await ledger.checkpoints(conn, behind):
                self._file.append(row.line.encode())
        except OSError as error:
            raise QuashError(
                "ledger.file_unwritable", f"cannot append to {self._file.path}: {error.strerror}", Kind.UNAVAILABLE
            ) from error

    async def _copy_to_bucket(self) -> None:
        """A bucket that is away holds nothing up: what it lacks is counted, and comes later."""
        if self._bucket is None:
            return
        try:
            if self._in_bucket is None:
                self._in_bucket = await self._bucket.last()
            async with acquire(self._pool) as conn:
                rows = await ledger.checkpoints(conn, self._in_bucket)
            _OUTSIDE.set(len(rows))
            await self._bucket.append(rows)
        except QuashError as error:
            self._in_bucket = None
            if error.code == CONTRADICTED:
                raise
            logger().warning("ledger.bucket", code=error.code, detail=error.message)
            return
        self._in_bucket = rows[-1].number if rows else self._in_bucket
        _OUTSIDE.set(0)


def _signed(checkpoint: Checkpoint, signature: bytes) -> Checkpoint:
    fields = {name: getattr(checkpoint, name) for name in checkpoint.__slots__}
    return Checkpoint(**{**fields, "signature": signature})


def _reader(source: str) -> NewsReader:
    return NewsReader(source, ("id", f"{SOURCES[source]} as content"), f"ledger.{source}")
