"""New since, where servers fail: a crash that hands transaction numbers out again, a standby, a failover."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store import feed
from quash.store.database import Connection, connect_once
from quash.store.embedded import SUPERUSER, EmbeddedPostgres
from quash.store.news import NewsReader, Position
from quash.store.passwords import read_password
from quash.store.roles import OWNER
from quash.store.setup import set_up
from tests.support.postgres import folder_for_servers

INSERT = "insert into outbox (lane, kind, issuer_id) values (0, 'issuer', 1) returning tx"
# The log of transactions is then written at commits alone, so that a crash forgets all that did not commit.
LAZY = {"fsync": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB", "autovacuum": "off"}


@pytest.fixture
def server() -> Iterator[tuple[State, EmbeddedPostgres]]:
    """A server that is set up, and stopped."""
    with folder_for_servers() as folder:
        state = State(folder / "var")
        with EmbeddedPostgres(state, settings={"fsync": "off"}).run():
            asyncio.run(set_up(Config(), state, FakeClock()))
        yield state, EmbeddedPostgres(state, settings=LAZY)


class Killable:
    """A server as a supervisor starts it, to be killed."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres

    def __enter__(self) -> Killable:
        with self._postgres.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._postgres.command(), stdout=log, stderr=log, **self._postgres.spawn_arguments()
            )
        self._postgres.wait_ready(lambda: self.process.poll() is None)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def reader() -> NewsReader:
    return NewsReader("outbox", ("issuer_id",), "test")


async def connection(state: State) -> Connection:
    return await connect_once(Config(), state, OWNER)


async def take(news: NewsReader, conn: Connection) -> list[int]:
    """The transactions of all the news there are."""
    batch = await news.read(conn)
    news.accept(batch)
    return [row["news_tx"] for row in batch.rows]


def test_numbers_that_a_crash_hands_out_again_are_read(server: tuple[State, EmbeddedPostgres]) -> None:
    """A transaction that left nothing is forgotten in a crash; a later commit under its number is not skipped."""
    state, postgres = server
    news = reader()

    async def before_the_crash() -> int:
        conn = await connection(state)
        first = await conn.fetchval(INSERT)
        lost = conn.transaction()
        await lost.start()
        forgotten: int = await conn.fetchval(INSERT)
        await lost.rollback()
        assert await take(news, conn) == [first]
        conn.terminate()
        return forgotten

    async def after_the_crash(forgotten: int) -> None:
        conn = await connection(state)
        again = await conn.fetchval(INSERT)
        assert again == forgotten, "the crash was to hand this number out again"
        assert await take(news, conn) == [again]
        await conn.close()

    with Killable(postgres):
        forgotten = asyncio.run(before_the_crash())
    with Killable(postgres):
        asyncio.run(after_the_crash(forgotten))


FEED = "insert into feed (written_at, lane, kind, payload) values ($1, 0, 'heartbeat', '\\x00') returning tx"


def test_a_copy_of_the_disk_that_was_put_back_is_read_anew(server: tuple[State, EmbeddedPostgres]) -> None:
    """System and timeline are the same and its numbers have passed the position: its mark is missing there."""
    state, _ = server
    postgres = EmbeddedPostgres(state)
    copy = state.root.parent / "backup"
    news = NewsReader("feed", ("written_at",), "test", stamp="written_at")

    async def write(*times: int) -> list[int]:
        conn = await connection(state)
        found = [int(await conn.fetchval(FEED, each)) for each in times]
        await conn.close()
        return found

    async def follow() -> list[int]:
        conn = await connection(state)
        found = await take(news, conn)
        await conn.close()
        return found

    async def begin() -> list[int]:
        conn = await connection(state)
        await feed.add_partition(conn, 0, 1000)
        await conn.close()
        written = await write(1)
        assert await follow() == written
        return written

    with Killable(postgres):
        before = asyncio.run(begin())
    with Killable(postgres):  # once more, so that the copy is of a server that has recovered
        assert asyncio.run(follow()) == []
    subprocess.run(["cp", "-a", str(postgres.data), str(copy)], check=True)
    with Killable(postgres):
        lost = asyncio.run(write(2, 3, 4))
        assert asyncio.run(follow()) == lost
    kept = Position.decode(news.position.encode())
    assert kept == news.position
    shutil.rmtree(postgres.data)
    subprocess.run(["cp", "-a", str(copy), str(postgres.data)], check=True)
    with Killable(postgres):
        again = asyncio.run(write(12, 13, 14, 15, 16, 17))
        assert again[0] <= lost[-1] < again[-1], "the numbers were to be given out again"
        news.resume(kept)
        assert asyncio.run(follow()) == [*before, *again]
        assert asyncio.run(follow()) == []


@pytest.fixture
def pair(server: tuple[State, EmbeddedPostgres]) -> Iterator[tuple[State, State, EmbeddedPostgres]]:
    """A running primary and a running standby of it: states of both, and the standby."""
    state, primary = server
    with (primary.data / "pg_hba.conf").open("a") as hba:
        hba.write("local replication all scram-sha-256\n")
    copy = state.root.parent / "copy"
    subprocess.run(["cp", "-a", str(state.root), str(copy)], check=True)
    standby_state = State(copy)
    standby = EmbeddedPostgres(standby_state, settings=LAZY)
    (standby.data / "standby.signal").touch()
    password = read_password(state, SUPERUSER)
    with (standby.data / "postgresql.auto.conf").open("a") as settings:
        settings.write(
            f"primary_conninfo = 'host={primary.socket_folder} port=5432 user={SUPERUSER} password={password}'\n"
        )
    with Killable(primary), Killable(standby):
        yield state, standby_state, standby


async def caught_up(primary: Connection, standby: Connection) -> None:
    """Waits until the standby has replayed all that the primary committed."""
    lsn = await primary.fetchval("select pg_current_wal_flush_lsn()")
    async with asyncio.timeout(20):
        while not await standby.fetchval("select pg_last_wal_replay_lsn() >= $1::pg_lsn", lsn):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_standby_delivers_late_commits_and_a_failover_begins_anew(
    pair: tuple[State, State, EmbeddedPostgres],
) -> None:
    """The lists of running transactions of a standby's snapshots are empty; late commits come all the same. Promotion
    begins a new history: everything is read again, and news of the new primary are read."""
    asyncio.run(_on_the_standby(*pair))


async def _on_the_standby(primary_state: State, standby_state: State, _: EmbeddedPostgres) -> None:
    first, second = await connection(primary_state), await connection(primary_state)
    standby = await connection(standby_state)
    news = reader()
    late = first.transaction()
    await late.start()
    low = await first.fetchval(INSERT)
    high = await second.fetchval(INSERT)
    assert low < high
    await caught_up(second, standby)
    assert (await standby.fetchval("select pg_current_snapshot()"))[2] == (), "low is running, and not listed"
    assert await take(news, standby) == [high]
    assert await take(news, standby) == []
    kept = news.position
    await late.commit()
    await caught_up(second, standby)
    assert await take(news, standby) == [low]
    restarted = reader()
    restarted.resume(kept)
    assert await take(restarted, standby) == [low, high]
    await _fail_over(standby_state, standby)
    new = await standby.fetchval(INSERT)
    found: list[int] = await take(news, standby)
    assert found == [low, high, new]


async def _fail_over(state: State, standby: Any) -> None:
    admin = await asyncpg.connect(
        host=str(state.run / "pg"), user=SUPERUSER, password=read_password(state, SUPERUSER), database="postgres"
    )
    assert await admin.fetchval("select pg_promote()")
    await admin.close()
    assert not await standby.fetchval("select pg_is_in_recovery()")
