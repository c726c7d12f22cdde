"""New since: how every reader of news (feed, outbox, jobs, ledger) takes each committed row, however late it commits.

Sequences number rows before their transactions commit, so "greater than the last one seen" skips late commits: the
peers' lost-entry incident. Here each row carries `tx`, its writing transaction, and a position is a transaction number
P that means: **every row with tx < P was delivered, or will never exist.** A read takes all visible rows with tx >= P.

Proof that no row is lost. A read's statement has one snapshot S; all transactions below xmin(S) have ended.
1. A sweep is a series of reads in the order (tx, id), each continuing where the one before stopped (`limit`), until one
   reaches the end. Let S be the snapshot of its first read. A row with tx < xmin(S) was committed before S, so every
   read of the sweep sees it: it is delivered by this sweep or was before. A row that becomes visible later has
   tx >= xmin(S). Hence P = xmin(S) keeps the promise once the sweep has passed xmin(S); before, P stays at or below the
   transaction where it stands.
2. A crash of the server may forget transactions that wrote no durable commit, and hand their numbers out again. So P
   never exceeds the greatest tx seen in the table, plus one: that one's commit was durable before we could see it
   (synchronous_commit is on), so no number at or below it comes back. A reader of some rows only (`where`) looks for
   it beside them, or it would pass by all the others again at each read: a million of them in a mass revocation.
3. A failover or a restored backup may forget more, but begins a new timeline (or brings another system, or numbers
   below P). A position carries both as its `history`; with any other one the reader starts from the first row.
4. A copy of the server's disk that is put back keeps system and timeline, and its numbers may have passed P by the time
   that a reader comes which was off. Readers that keep their position in the database went back with it. One that keeps
   it elsewhere names a `stamp`, and its position carries the mark of the greatest row that it was given. Where that row
   is there, so is all that was committed before it, and every number above it is given out once: P lies at most one
   above. Where it is missing, the reader starts from the first row.

Rows at or above P come again. `accept` remembers in memory which transactions were delivered, so that a long foreign
transaction, which holds xmin back, does not make a reader deliver for ever what it has; the memory is bounded, and what
it does not hold comes once in each sweep: late news still arrive, readers are idempotent.

On a standby xmin(S) is as good, but the list of running transactions in pg_current_snapshot() is empty there. Nothing
here uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, cast

from quash.store.crl_order import in_index_order
from quash.store.database import Connection, translated

# A standby's control file learns of a new timeline at its next restart point; until then rows may be missing that come
# with the start from the first row.
_HISTORY = """
(select system_identifier from pg_control_system()) || '/' || case when pg_is_in_recovery()
    then (select timeline_id from pg_control_checkpoint())
    else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer end
"""

# `not in (select ...)` is always hashed; `<> all (array)` is compared one by one in generic plans.
_READ = """
select pg_snapshot_xmin(pg_current_snapshot()) as news_xmin, pg_snapshot_xmax(pg_current_snapshot()) as news_xmax,
       {history} as news_history, pg_is_in_recovery() as news_standby, {newest} as news_newest,
       {marked} as news_marked, n.*
from (select) as one left join (
    select tx as news_tx, id as news_id, {columns} from {table}
    where (tx, id) > ($1::xid8, $2::bigint) and tx not in (select unnest($3::xid8[])) {where}
    order by tx, id limit $4
) as n on {fitting}
order by news_tx, news_id
"""
# What a row weighs, and all up to it. Its own weight may exceed what fits: the first row always comes.
_WEIGHED = "{weight} as news_weight, sum({weight}) over (order by tx, id rows unbounded preceding) as news_total"
_FITTING = "news_total - news_weight < ${parameter}::bigint"
_MARKED = "exists (select from {table} where tx = $5::xid8 and id = $6::bigint and {stamp} = $7::bigint)"
# Of all rows, by the index on (tx, id).
_NEWEST = "(select tx from {table} order by tx desc, id desc limit 1)"


class Mark(NamedTuple):
    """The greatest row that a reader was given; `stamp` tells it from another one that has its numbers."""

    tx: int
    id: int
    stamp: int


@dataclass(frozen=True, slots=True)
class Position:
    """Every row of a transaction below `tx` was delivered, in this `history` of this database.

    `mark` is in the encoding, for a position that is kept outside of the database; a release that knows of none takes
    it for a part of the history, and starts from the first row.
    """

    history: str = ""
    tx: int = 0
    mark: Mark | None = None

    def encode(self) -> bytes:
        mark = "/" + ".".join(map(str, self.mark)) if self.mark else ""
        return f"{self.history}{mark} {self.tx}".encode("ascii")

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Raises ValueError for what `encode` did not make."""
        history, _, tx = octets.decode("ascii").partition(" ")
        system, slash, rest = history.partition("/")
        timeline, _, mark = rest.partition("/")
        return cls(f"{system}{slash}{timeline}", int(tx), _mark_of(mark))


@dataclass(frozen=True, slots=True)
class _Progress:
    """Where a reader stands in memory."""

    position: Position
    cursor: tuple[int, int] | None  # (tx, id) of the last row of an unfinished sweep
    sweep_xmin: int  # of that sweep's first snapshot
    seen: int  # greatest tx seen


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read found; `more`: the limit cut it off, read again at once.

    `rows` have the reader's columns by name. `position` is what may be remembered durably once they are dealt with.
    """

    rows: Sequence[Any]
    position: Position
    more: bool
    _progress: _Progress = field(repr=False)
    _complete: frozenset[int] = field(repr=False)


class NewsReader:
    """Reads the news of a table with columns `tx` and `id`: `read`, deal with the rows, keep the position, `accept`.

    One reader has one user at a time. `name` is that of its position in the table reader_position, for those who keep
    it there. `where` narrows the rows, as constant SQL (`lane = 0`); `in_order`: it asks other tables, or for few of
    many rows, and must not have the planner read this one from end to end. `remember` bounds the memory, in
    transactions. `stamp`: one of the columns, a number that differs wherever a restored server gives a row's numbers
    out again; for a position that is kept elsewhere. `weight`: what a row weighs, as constant SQL; a read ends with the
    row that makes it `heaviest`, so that rows may be of very different sizes.
    """

    def __init__(
        self,
        table: str,
        columns: Sequence[str],
        name: str,
        *,
        where: str = "",
        in_order: bool = False,
        remember: int = 100_000,
        stamp: str = "",
        weight: str = "",
        heaviest: int = 0,
    ) -> None:
        self.name = name
        self._in_order = in_order
        self._remember = remember
        self._stamp = stamp
        self._weighed = (heaviest,) if weight else ()
        self._sql = _READ.format(
            history=_HISTORY,
            newest=_NEWEST.format(table=table) if where else "null::xid8",
            marked=_MARKED.format(table=table, stamp=stamp) if stamp else "true",
            table=table,
            columns=", ".join([*columns, *([_WEIGHED.format(weight=weight)] if weight else [])]),
            fitting=_FITTING.format(parameter=8 if stamp else 5) if weight else "true",
            where=f"and ({where})" if where else "",
        )
        self.resume(Position())

    @property
    def position(self) -> Position:
        """Up to where every row was delivered and accepted."""
        return self._progress.position

    def resume(self, position: Position) -> None:
        """Starts from a position that was kept, or with `Position()` from the first row."""
        self._progress = _Progress(position, None, 0, position.tx - 1)
        self._delivered: set[int] = set()

    async def read(self, conn: Connection, limit: int = 10_000) -> Batch:
        """The rows that were not accepted yet, at most `limit`, in the order of their transactions' numbers.

        Until `accept` the same rows come again. Raises `store.unavailable`. Outside of transactions only: rows that the
        caller's own transaction wrote are not yet news.
        """
        if conn.is_in_transaction():
            raise RuntimeError("news are read outside of transactions")
        with translated():
            found = await self._fetch(conn, limit)
            if self._is_elsewhere(found[0]):
                self.resume(Position())
                found = await self._fetch(conn, limit)
        return self._batch(found, limit)

    def accept(self, batch: Batch) -> None:
        """The rows of the last read are dealt with, and shall not come again."""
        advanced = batch.position.tx != self.position.tx
        self._progress = batch._progress
        self._delivered |= batch._complete
        if advanced:
            self._delivered = {tx for tx in self._delivered if tx >= batch.position.tx}
        if len(self._delivered) > self._remember:
            self._delivered = set(sorted(self._delivered)[: self._remember])

    async def load(self, conn: Connection) -> Position:
        """Resumes from the position in the database."""
        row = await conn.fetchrow("select system_id, position from reader_position where reader = $1", self.name)
        position = Position(row["system_id"], row["position"]) if row else Position()
        self.resume(position)
        return position

    async def save(self, conn: Connection, position: Position, at: int) -> None:
        """Keeps a position in the database: in the transaction that deals with the rows, or after it.

        A reader under a lease checks the lease in the same transaction: one that was paused must not move the position.
        """
        await conn.execute(
            "insert into reader_position (reader, system_id, position, updated_at) values ($1, $2, $3, $4)"
            " on conflict (reader) do update set system_id = $2, position = $3, updated_at = $4",
            self.name,
            position.history,
            position.tx,
            at,
        )

    async def _fetch(self, conn: Connection, limit: int) -> list[Any]:
        # ids begin at 1, so (tx, 0) lies before every row of tx
        tx, id_ = self._progress.cursor or (self.position.tx, 0)
        mark = (self.position.mark or Mark(0, 0, 0)) if self._stamp else ()
        values = (tx, id_, sorted(self._delivered), limit, *mark, *self._weighed)
        if not self._in_order:
            return cast("list[Any]", await conn.fetch(self._sql, *values))
        async with conn.transaction(readonly=True):
            await in_index_order(conn)
            return cast("list[Any]", await conn.fetch(self._sql, *values))

    def _is_elsewhere(self, row: Any) -> bool:
        """Whether the position is of another history than the database's. A standby may lag behind it."""
        if self.position.history not in {"", row["news_history"]}:
            return True
        lags = row["news_standby"]
        mark = self.position.mark
        if mark is not None and not row["news_marked"] and not (lags and mark.tx >= row["news_xmin"]):
            return True
        return not lags and self.position.tx > row["news_xmax"]

    def _batch(self, found: list[Any], limit: int) -> Batch:
        before, first = self._progress, found[0]
        rows = [row for row in found if row["news_id"] is not None]
        cut = len(rows) == limit or self._is_full(rows)
        last = rows[-1]["news_tx"] if rows else before.seen
        complete = {row["news_tx"] for row in rows} | ({before.cursor[0]} if before.cursor else set())
        if cut:  # perhaps not all of it
            complete.discard(last)
        seen = max(before.seen, last, 0 if cut else first["news_newest"] or 0)
        xmin = before.sweep_xmin if before.cursor else first["news_xmin"]
        tx = max(before.position.tx, min(xmin, last if cut else seen + 1))
        position = Position(first["news_history"], tx, self._mark(rows))
        cursor = (last, rows[-1]["news_id"]) if cut else None
        return Batch(rows, position, cut, _Progress(position, cursor, xmin, seen), frozenset(complete))

    def _is_full(self, rows: Sequence[Any]) -> bool:
        return bool(rows and self._weighed and rows[-1]["news_total"] >= self._weighed[0])

    def _mark(self, rows: Sequence[Any]) -> Mark | None:
        """Of the greatest row so far; the rows of a batch are in the order of their numbers."""
        before = self.position.mark
        if not self._stamp or not rows:
            return before
        mark = Mark(rows[-1]["news_tx"], rows[-1]["news_id"], rows[-1][self._stamp])
        return mark if before is None else max(before, mark)


def _mark_of(text: str) -> Mark | None:
    if not text:
        return None
    tx, id_, stamp = map(int, text.split("."))
    return Mark(tx, id_, stamp)
