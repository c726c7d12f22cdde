"""New since: no committed row is ever skipped, however late it commits, at whatever point the reader stops."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from quash.store import roles
from quash.store.news import Batch, NewsReader, Position

INSERT = "insert into outbox (lane, kind, issuer_id) values ($1, 'issuer', $2) returning id"
COLUMNS = ("lane", "issuer_id")


def reader(**more: Any) -> NewsReader:
    return NewsReader("outbox", COLUMNS, "test", **more)


async def take(news: NewsReader, conn: Any, limit: int = 100) -> list[int]:
    """The ids of everything there is, read and accepted batch by batch."""
    ids: list[int] = []
    while True:
        batch = await news.read(conn, limit)
        news.accept(batch)
        ids += [row["news_id"] for row in batch.rows]
        if not batch.more:
            return ids


async def test_a_late_commit_is_delivered(database: Any) -> None:
    """The first writer takes the lower id and the lower transaction, and commits after the reader saw the second."""
    first, second, looking = [await database.connection() for _ in range(3)]
    news = reader()
    late = first.transaction()
    await late.start()
    low = await first.fetchval(INSERT, 0, 1)
    high = await second.fetchval(INSERT, 0, 1)
    assert low < high
    assert await take(news, looking) == [high]
    assert await take(news, looking) == []
    await late.commit()
    assert await take(news, looking) + await take(news, looking) == [low]  # the end of its sweep, and the next one


async def test_a_reader_that_asks_other_tables_reads_no_further_than_it_must(database: Any) -> None:
    """A mass revocation that nobody has counted yet: ten of it are read by reading ten, not all and sorting them."""
    await database.owner.execute("""
        insert into act (at, actor, action, subject) values (1, 'a', 'certificate.revoke-many', '{}');
        insert into issuer
            (name, kind, subject, spki, signature_algorithm, ocsp_path, max_age, bucket_count, created_at)
            values ('ca', 'root', '', '', 'x', 'ca', 1, 1, 1);
        insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)
            select 1, int4send(n), 'imported', 'x', 9, 0, 0 from generate_series(1, 5000) n;
        insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id)
            select 1, int4send(n), 1, 4, 5, 0, 1 from generate_series(1, 5000) n;
    """)
    conn = await database.connection()
    read = "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = $1"
    where = "exists (select from act a where a.id = act_id and a.action like 'certificate.revoke-%')"
    news = NewsReader("revocation", ("serial",), "test", where=where, in_order=True)
    for _ in range(7):  # a plan for these values five times, then one for all
        await conn.execute("select pg_stat_force_next_flush()")
        before = await database.owner.fetchval(read, "revocation")
        assert len((await news.read(conn, 10)).rows) == 10
        await conn.execute("select pg_stat_force_next_flush()")
        assert await database.owner.fetchval(read, "revocation") - before < 100


async def test_the_position_that_is_kept_delivers_the_late_commit_after_a_restart(database: Any) -> None:
    """The durable position stays below a transaction that was open, whatever was delivered above it."""
    first, second, looking = [await database.connection() for _ in range(3)]
    late = first.transaction()
    await late.start()
    low = await first.fetchval(INSERT, 0, 1)
    high = await second.fetchval(INSERT, 0, 1)
    before = reader()
    await take(before, looking)
    await before.save(looking, before.position, 1)
    await late.commit()
    after = reader()
    assert await after.load(looking) == before.position
    assert await take(after, looking) == [low, high]


async def test_a_long_foreign_transaction_does_not_make_rows_come_again(database: Any) -> None:
    """With xmin held back, delivered rows stay delivered and new ones come at once."""
    foreign, writing, looking = [await database.connection() for _ in range(3)]
    news = reader()
    async with foreign.transaction():
        await foreign.execute("select pg_current_xact_id()")
        for _ in range(5):
            ids = [await writing.fetchval(INSERT, 0, 1) for _ in range(3)]
            assert await take(news, looking, limit=2) == ids
    assert await take(news, looking) == []


async def test_with_a_full_memory_rows_come_again_and_new_ones_still_come(database: Any) -> None:
    """The memory is bounded; beyond it delivery is repeated, and neither stops nor skips."""
    foreign, writing, looking = [await database.connection() for _ in range(3)]
    news = reader(remember=2)
    delivered: Counter[int] = Counter()
    async with foreign.transaction():
        await foreign.execute("select pg_current_xact_id()")
        for _ in range(6):
            new = await writing.fetchval(INSERT, 0, 1)
            delivered.update(await take(news, looking, limit=1))
            assert delivered[new] == 1
    assert max(delivered.values()) > 1
    delivered.update(await take(news, looking))
    assert await take(news, looking) == []


async def test_a_batch_that_was_not_accepted_comes_again(database: Any) -> None:
    """A reader that failed to deal with its rows reads the same ones."""
    conn = await database.connection()
    ids = [await conn.fetchval(INSERT, 0, 1) for _ in range(3)]
    news = reader()
    for _ in range(2):
        batch = await news.read(conn, 2)
        assert [row["news_id"] for row in batch.rows] == ids[:2]
    assert await take(news, conn) == ids


async def test_one_large_transaction_is_read_in_parts(database: Any) -> None:
    """The limit cuts through a transaction; its rows come once each and the position waits for the last."""
    conn = await database.connection()
    await conn.execute("insert into outbox (lane, kind, issuer_id) select 1, 'issuer', 1 from generate_series(1, 25)")
    news, sizes = reader(), []
    tx = await conn.fetchval("select max(tx) from outbox")
    while True:
        batch = await news.read(conn, 10)
        news.accept(batch)
        sizes.append(len(batch.rows))
        assert (batch.position.tx > tx) == (not batch.more)
        if not batch.more:
            break
    assert sizes == [10, 10, 5]


async def test_a_commit_behind_a_half_read_sweep_is_delivered_after_a_restart(database: Any) -> None:
    """It commits behind where the reader stands between two batches; later batches do not move the position past it."""
    first, second, looking = [await database.connection() for _ in range(3)]
    late = first.transaction()
    await late.start()
    low = await first.fetchval(INSERT, 0, 1)
    high = [await second.fetchval(INSERT, 0, 1) for _ in range(3)]
    news = reader()
    news.accept(await news.read(looking, 1))
    await late.commit()
    for _ in range(2):
        news.accept(await news.read(looking, 1))
    again = reader()
    again.resume(news.position)
    assert await take(again, looking) == [low, *high]
    assert await take(news, looking) + await take(news, looking) == [low]  # the end of its sweep, and the next one


async def test_only_the_wanted_rows_and_columns_come(database: Any) -> None:
    """`where` narrows the rows; the columns are there by name."""
    conn = await database.connection()
    await conn.fetchval(INSERT, 1, 7)
    await conn.fetchval(INSERT, 0, 8)
    batch = await reader(where="lane = 0").read(conn)
    assert [(row["lane"], row["issuer_id"]) for row in batch.rows] == [(0, 8)]


async def test_rows_that_are_not_wanted_are_passed_by_once(database: Any) -> None:
    """The position of one lane goes past another lane's rows, or each read would look at them all again."""
    conn = await database.connection()
    news = reader(where="lane = 0")
    await conn.fetchval(INSERT, 0, 1)
    await take(news, conn)
    before = news.position.tx
    for _ in range(3):
        await conn.fetchval(INSERT, 1, 1)
    assert await take(news, conn) == []
    assert news.position.tx == before + 3
    late = await database.connection()
    transaction = late.transaction()
    await transaction.start()
    low = await late.fetchval(INSERT, 0, 1)
    await conn.fetchval(INSERT, 1, 1)
    assert await take(news, conn) == []
    await transaction.commit()
    assert await take(news, conn) == [low]


async def test_a_rolled_back_row_is_no_news_and_does_not_move_the_position(database: Any) -> None:
    """The position follows durable commits alone: numbers of transactions that left nothing may come again."""
    conn = await database.connection()
    await conn.fetchval(INSERT, 0, 1)
    news = reader()
    await take(news, conn)
    position = news.position
    for _ in range(3):
        transaction = conn.transaction()
        await transaction.start()
        await conn.fetchval(INSERT, 0, 1)
        await transaction.rollback()
    assert await take(news, conn) == []
    assert news.position == position


async def test_another_history_starts_from_the_first_row(database: Any) -> None:
    """A restored backup, another server or a promoted standby: everything is read again."""
    conn = await database.connection()
    ids = [await conn.fetchval(INSERT, 0, 1) for _ in range(3)]
    news = reader()
    await take(news, conn)
    here = news.position
    for elsewhere in (
        Position(re.sub(r"^\d+", "1", here.history), here.tx),  # another system
        Position(re.sub(r"\d+$", "7", here.history), here.tx),  # another timeline
        Position(here.history, here.tx + 1000),  # the same one, restored from a copy of its disk
    ):
        news.resume(elsewhere)
        assert await take(news, conn) == ids
        assert news.position == here


async def test_a_read_ends_with_the_row_that_makes_it_heavy(database: Any) -> None:
    """At least one row, whatever it weighs; `more` as soon as weight or number may have cut something off."""
    conn = await database.connection()
    for weight in (1, 1, 9, 1, 3, 1, 1, 1):
        await conn.execute(INSERT, 0, weight)
    news = reader(weight="issuer_id", heaviest=4)
    found: list[tuple[list[int], bool]] = []
    for limit in (5, 5, 5, 2, 5):
        batch = await news.read(conn, limit)
        found.append(([row["issuer_id"] for row in batch.rows], batch.more))
        news.accept(batch)
    assert found == [([1, 1, 9], True), ([1, 3], True), ([1, 1, 1], False), ([], False), ([], False)]
    news.resume(Position())
    assert [row["issuer_id"] for row in (await news.read(conn, 2)).rows] == [1, 1]
    news = reader(weight="issuer_id", heaviest=4, stamp="issuer_id")
    assert [row["issuer_id"] for row in (await news.read(conn)).rows] == [1, 1, 9]


async def test_news_are_not_read_inside_a_transaction(database: Any) -> None:
    """There, the caller's own uncommitted rows would pass for news."""
    conn = await database.connection()
    async with conn.transaction():
        with pytest.raises(RuntimeError):
            await reader().read(conn)


@pytest.mark.parametrize("role", [roles.FOLLOWER, roles.PRESIGNER])
async def test_the_least_privileged_readers_can_read_the_feed(database: Any, role: str) -> None:
    """The snapshot and the history need no right beyond reading the table."""
    batch = await NewsReader("feed", ("kind", "payload"), "test").read(await database.connection(role))
    assert re.fullmatch(r"\d+/1", batch.position.history)


@pytest.mark.parametrize("position", [Position(), Position("7710719393350383993/12", 2**63 - 1)])
def test_a_position_survives_encoding(position: Position) -> None:
    """The cache file keeps it as octets."""
    assert Position.decode(position.encode()) == position


WRITERS = st.integers(0, 2)


class LateCommits(RuleBasedStateMachine):
    """Writers begin, insert, commit and roll back in any order, beside a reader that restarts and forgets."""

    database: Any
    loop: asyncio.Runner
    options: dict[str, Any]

    def run(self, coroutine: Any) -> Any:
        return self.loop.run(coroutine)

    @initialize()
    def begin_with_an_empty_table(self) -> None:
        """Three writers, one reader."""
        self.run(self.connect())
        self.open: dict[int, Any] = {}
        self.uncommitted: dict[int, list[int]] = {}
        self.committed: set[int] = set()
        self.delivered: Counter[int] = Counter()
        self.restarted = False
        self.pending: Batch | None = None
        self.kept = Position()
        self.news = reader(**self.options)

    async def connect(self) -> None:
        await self.database.owner.execute("truncate outbox")
        self.writers = [await self.database.connection() for _ in range(3)]
        self.looking = await self.database.connection()

    @rule(writer=WRITERS)
    def begin(self, writer: int) -> None:
        if writer not in self.open:
            self.open[writer] = self.writers[writer].transaction()
            self.uncommitted[writer] = []
            self.run(self.open[writer].start())

    @rule(writer=WRITERS, count=st.integers(1, 4), nested=st.booleans(), lane=st.integers(0, 1))
    def insert(self, writer: int, count: int, nested: bool, lane: int) -> None:
        """Rows of an open transaction, perhaps of a subtransaction, or each of one of its own."""

        async def rows() -> list[int]:
            conn = self.writers[writer]
            if nested and writer in self.open:
                async with conn.transaction():
                    return [await conn.fetchval(INSERT, lane, 1) for _ in range(count)]
            return [await conn.fetchval(INSERT, lane, 1) for _ in range(count)]

        ids = self.run(rows())
        if "where" in self.options and lane:
            return  # not wanted
        if writer in self.open:
            self.uncommitted[writer] += ids
        else:
            self.committed |= set(ids)

    @rule(writer=WRITERS)
    def commit(self, writer: int) -> None:
        if writer in self.open:
            self.run(self.open.pop(writer).commit())
            self.committed |= set(self.uncommitted.pop(writer))

    @rule(writer=WRITERS)
    def roll_back(self, writer: int) -> None:
        if writer in self.open:
            self.run(self.open.pop(writer).rollback())
            self.uncommitted.pop(writer)

    @rule(limit=st.integers(1, 5))
    def read(self, limit: int) -> None:
        self.pending = self.run(self.news.read(self.looking, limit))

    @precondition(lambda self: self.pending is not None)
    @rule(keep=st.booleans())
    def accept(self, keep: bool) -> None:
        """The rows of the last read are dealt with; the position is kept now and then."""
        assert self.pending is not None
        self.news.accept(self.pending)
        self.delivered.update(row["news_id"] for row in self.pending.rows)
        if keep:
            self.kept = self.pending.position
        self.pending = None

    @rule()
    def restart(self) -> None:
        """Memory is lost, the kept position is not."""
        self.restarted = True
        self.pending = None
        self.news = reader(**self.options)
        self.news.resume(self.kept)

    @invariant()
    def only_committed_rows_come(self) -> None:
        if hasattr(self, "delivered"):
            assert set(self.delivered) <= self.committed

    def teardown(self) -> None:
        """When every writer is done, the reader has or gets every committed row; once each when nothing was lost."""
        if not hasattr(self, "delivered"):
            return
        for writer in list(self.open):
            self.commit(writer)
        for _ in range(2):  # the rest of a sweep, and a whole one
            self.delivered.update(self.run(take(self.news, self.looking, 3)))
        assert set(self.delivered) == self.committed
        if not self.restarted and self.options.get("remember") != 1:
            assert set(self.delivered.values()) <= {1}
        assert self.run(take(self.news, self.looking, 3)) == []
        for conn in [*self.writers, self.looking]:
            conn.terminate()


@pytest.mark.parametrize(
    "options",
    [{}, {"remember": 1}, {"where": "lane = 0"}, {"weight": "(id % 3)::integer", "heaviest": 3}],
    ids=["remembers all", "remembers one transaction", "of one lane", "by weight"],
)
def test_writers_committing_out_of_order_lose_no_row(cluster: Any, options: dict[str, Any]) -> None:
    """A state machine on real PostgreSQL: any interleaving of commits, reads, restarts and lost memory."""
    with asyncio.Runner() as loop:
        name, database = loop.run(cluster.take())
        fields = {"database": database, "loop": loop, "options": options}
        machine = type("Machine", (LateCommits,), fields)
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
                ),
            )
        finally:
            loop.run(database.close())
            loop.run(cluster.give_back(name))
