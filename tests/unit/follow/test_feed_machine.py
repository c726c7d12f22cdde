"""A state machine over the whole way of a record: writers, commits, crashes, dropped partitions and followers."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from quash.cache.writer import Changes, LmdbWriter
from quash.runtime.clock import FakeClock
from quash.runtime.log import logger
from quash.store import buckets, feed
from quash.store.buckets import Bucket
from quash.store.database import Connection, Pool
from quash.store.feed import BULK, URGENT
from quash.store.roles import FOLLOWER, PRESIGNER
from responder.follow.follower import READ_LIMIT, Follower
from tests.support.feeding import append
from tests.support.ocsp_issuer import OcspIssuer
from tests.unit.follow.conftest import HOUR, Node

T = TypeVar("T")

SPAN, SPANS = 2 * HOUR, 20
SERIALS = [bytes([1, n]) for n in range(4)]
LIMITS = st.sampled_from([1, 2, READ_LIMIT])
WRITERS, NODES, LANES = st.integers(0, 2), st.integers(0, 1), st.sampled_from([URGENT, BULK])
_ISSUER = """
insert into issuer
    (name, kind, subject, spki, signature_algorithm, ocsp_path, max_age, bucket_count, profiles, created_at)
    values ('tls-dv', 'imported', '', '', 'ecdsa-p256-sha256', 'tls-dv', 1800, 1, '{}', 0);
insert into bucket (issuer_id, bucket, due_at) select id, 0, 0 from issuer;
"""
_BEGIN = "delete from feed_partition; update feed_floor set below = '0'; update bucket set pass_xmin = null"
Order = tuple[int, int]
"""Of records: (version, thisUpdate)."""
NONE: Order = (-1, 0)
Told = tuple[bytes, Order, int, int]
"""A record in the feed: serial, its order, lane, partition."""


class Killed(Exception):  # noqa: N818 (not an error: what kill -9 does, where it is told to)
    """The follower's process is gone."""


class Lanes(LmdbWriter):
    """A node's cache file, looked at before each commit of the feed's reader; `kill` at a commit, before or after it.

    `pieces`: commits of that reader since it began, or began anew.
    """

    look: Callable[[Lanes], None]
    before: Sequence[tuple[bytes, Order, int]] = ()  # what was urgent at the piece before
    kill = (-1, False)
    pieces = 0

    def apply(self, changes: Changes) -> int:
        if changes.position is not None:
            self.look(self)
            self.pieces += 1
        left, after = self.kill
        if left == 0 and not after:
            raise Killed
        applied = super().apply(changes)
        if left == 0:
            raise Killed
        self.kill = (left - 1, after)
        return applied

    def rebuild(self) -> None:
        self.pieces = 0
        super().rebuild()


class FeedMachine(RuleBasedStateMachine):
    """Whatever is interleaved, a node that has just read holds, of each serial, the maximum of what is committed.

    A writer is a presigner's transaction: it tells what the database says by then, and may commit late, not at all, or
    be lost with its connection. A pass tells of every serial, and lets old partitions be dropped.

    A node that reads holds what is urgent before the second piece of a backlog, and what its heartbeat promises.
    """

    database: Any
    loop: asyncio.Runner
    pool: Pool
    issuer: OcspIssuer

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(coroutine)

    @initialize()
    def begin_with_an_empty_feed(self) -> None:
        """Three writers and two nodes; nobody knows of any serial."""
        self.clock = FakeClock()
        self.known: dict[bytes, int] = {}  # serial -> version, as committed in the database
        self.open: dict[int, tuple[Any, list[Told]]] = {}
        self.most: dict[bytes, Order] = {}  # of all committed records
        self.urgent: list[tuple[bytes, Order, int]] = []  # those of the urgent lane in the feed, and their partition
        self.promised: dict[int, dict[bytes, Order]] = {}  # by heartbeat: what was committed before it
        self.start = int(self.clock.now()) // SPAN * SPAN
        self.folders = [Path(tempfile.mkdtemp()) for _ in range(2)]
        self.run(self._begin())

    async def _begin(self) -> None:
        async with self.database.owner.acquire() as conn:
            for each in await feed.partitions(conn):
                await conn.execute(f"drop table feed_{each.starts_at}")
            await conn.execute(_BEGIN)
            for number in range(SPANS):
                await feed.add_partition(conn, self.start + number * SPAN, self.start + (number + 1) * SPAN)
        self.writers = [await self.database.connection() for _ in range(3)]
        self.passing = await self.database.connection(PRESIGNER)
        self.nodes = [self._node(folder) for folder in self.folders]
        self.followers = [self._follower(node, 2) for node in self.nodes]
        await self.nodes[0].feed(*self.nodes[0].announcement())

    def _node(self, folder: Path) -> Node:
        writer = Lanes(folder, map_size=1 << 24)
        node = Node(self.database, folder, self.clock, writer, self.issuer)
        writer.look = lambda writer: self._assert_overtaken(node, writer)
        return node

    def _follower(self, node: Node, read_limit: int) -> Follower:
        async def database_time(_: Connection) -> float:
            return self.clock.now()

        return Follower(
            self.pool, node.writer, self.clock, logger(), read_limit=read_limit, database_time=database_time
        )

    @property
    def now(self) -> int:
        return int(self.clock.now())

    def _record(self, serial: bytes) -> tuple[bytes, bytes, Order]:
        version = self.known[serial]
        revoked = None if version == 0 else (1, self.start)
        record = self.issuer.record(serial, self.now, version=version, revoked=revoked)
        return serial, record, (version, self.now)

    @property
    def partition(self) -> int:
        return self.now // SPAN * SPAN

    def _committed(self, records: list[Told]) -> None:
        for serial, order, lane, partition in records:
            self.most[serial] = max(order, self.most.get(serial, NONE))
            if lane == URGENT:
                self.urgent.append((serial, order, partition))

    @rule(serial=st.sampled_from(SERIALS), revoke=st.booleans(), writer=WRITERS, stay=st.booleans(), lane=LANES)
    def write(self, serial: bytes, writer: int, lane: int, *, revoke: bool, stay: bool) -> None:
        """Tells of one serial, in the writer's transaction, which is committed or stays open."""
        self.known[serial] = self.known.get(serial, -1) + 1 if revoke else self.known.get(serial, 0)
        _, record, order = self._record(serial)
        if writer not in self.open:
            transaction = self.writers[writer].transaction()
            self.run(transaction.start())
            self.open[writer] = (transaction, [])
        row = self.nodes[0].records((serial, record), lane=lane)
        self.run(append(self.writers[writer], [row], self.now))
        self.open[writer][1].append((serial, order, lane, self.partition))
        if not stay:
            self.commit(sorted(self.open).index(writer))

    @precondition(lambda self: self.open)
    @rule(which=WRITERS)
    def commit(self, which: int) -> None:
        transaction, records = self.open.pop(sorted(self.open)[which % len(self.open)])
        self.run(transaction.commit())
        self._committed(records)

    @precondition(lambda self: self.open)
    @rule(which=WRITERS, crash=st.booleans())
    def lose(self, which: int, *, crash: bool) -> None:
        """Rolled back, or its process died: the server ends the session."""
        writer = sorted(self.open)[which % len(self.open)]
        transaction, _ = self.open.pop(writer)
        self.run(self._replace(writer) if crash else transaction.rollback())

    async def _replace(self, writer: int) -> None:
        pid = self.writers[writer].get_server_pid()
        self.writers[writer].terminate()
        self.writers[writer] = await self.database.connection()
        while await self.writers[writer].fetchval("select true from pg_stat_activity where pid = $1", pid):  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    @rule()
    def refresh(self) -> None:
        """A complete pass: whatever the database knows by then is told again."""
        self.run(self._refresh())

    async def _refresh(self) -> None:
        xmin = await buckets.snapshot_xmin(self.passing)
        told = [self._record(serial) for serial in self.known]
        async with self.passing.transaction():
            if told:
                row = self.nodes[0].records(*((serial, record) for serial, record, _ in told), lane=BULK)
                await append(self.passing, [row], self.now)
            bucket = Bucket(1, 0, 0, 1)
            await buckets.finish_pass(
                self.passing, bucket, passed_at=self.now, pass_xmin=xmin, due_at=self.now, signer_id=None
            )
        self._committed([(serial, order, BULK, self.partition) for serial, _, order in told])

    @rule()
    def beat(self) -> None:
        """A heartbeat promises a node at the feed's head all that was committed before it."""
        self.run(self.nodes[0].feed(self.nodes[0].heartbeat()))
        self.promised.setdefault(self.now, dict(self.most))

    @rule(seconds=st.sampled_from([1, SPAN]))
    def wait(self, seconds: int) -> None:
        """Perhaps into the next partition, which begins with issuers and signers."""
        if self.now + seconds >= self.start + SPANS * SPAN:
            return
        before = self.now // SPAN
        self.run(self.clock.advance(seconds))
        if self.now // SPAN != before:
            self.run(self.nodes[0].feed(*self.nodes[0].announcement()))

    @rule()
    def drop(self) -> None:
        """The oldest partition, if nobody needs it; a writer that is still at it keeps it."""
        self.run(self._drop())

    async def _drop(self) -> None:
        known = await feed.partitions(self.passing)
        starts_at, over = known[0].starts_at, known[0].ends_at <= self.now
        if over and await feed.drop_partition(self.passing, starts_at, self.now):
            self.urgent = [each for each in self.urgent if each[2] != starts_at]

    @rule(node=NODES)
    def follow(self, node: int) -> None:
        self._step(node)
        assert self._held(self.nodes[node]) == self.most

    @rule(node=NODES, commits=st.integers(0, 6), after=st.booleans(), limit=LIMITS)
    def kill(self, node: int, commits: int, limit: int, *, after: bool) -> None:
        """While it reads, right before or after one of its commits, of either lane."""
        writer = self._writer(node)
        writer.kill = (commits, after)
        try:
            self._step(node)
        except Killed:
            self._assert_honest(node)
            self.restart(node, limit, wipe=False)
        writer.kill = Lanes.kill

    @precondition(lambda self: self.open)
    @rule(node=NODES, which=WRITERS, pieces=st.integers(0, 4))
    def commit_meanwhile(self, node: int, which: int, pieces: int) -> None:
        """A late commit, somewhere between two pieces; perhaps it is for the next step."""
        writer = self._writer(node)
        writer.pieces = 0

        async def meanwhile() -> list[Told]:
            step = asyncio.ensure_future(self.followers[node].step())
            while writer.pieces < pieces and not step.done():  # noqa: ASYNC110 (it is the step that goes on)
                await asyncio.sleep(0)
            transaction, records = self.open.pop(sorted(self.open)[which % len(self.open)])
            await transaction.commit()
            await step
            return records

        self._committed(self.run(meanwhile()))
        self._assert_honest(node)

    def _step(self, node: int) -> None:
        self._writer(node).pieces = 0
        self.run(self.followers[node].step())
        self._assert_honest(node)

    def _writer(self, node: int) -> Lanes:
        writer = self.nodes[node].writer
        assert isinstance(writer, Lanes)
        return writer

    @rule(node=NODES, limit=LIMITS, wipe=st.booleans())
    def restart(self, node: int, limit: int, *, wipe: bool) -> None:
        """As after kill -9; perhaps with a cache that was deleted, or that was never there."""
        self.nodes[node].writer.environment.close()
        if wipe:
            shutil.rmtree(self.folders[node])
            self.folders[node].mkdir()
        self.nodes[node] = self._node(self.folders[node])
        self.followers[node] = self._follower(self.nodes[node], limit)

    def _held(self, node: Node) -> dict[bytes, Order]:
        held = {serial: node.held(serial) for serial in SERIALS}
        return {serial: (each.version, each.this_update) for serial, each in held.items() if each is not None}

    def _assert_overtaken(self, node: Node, writer: Lanes) -> None:
        """Before any piece of a backlog but the first, all is there that was urgent at the piece before."""
        if writer.pieces:
            held = self._held(node)
            assert all(held.get(serial, NONE) >= order for serial, order, _ in writer.before)
        writer.before = list(self.urgent)

    def _assert_honest(self, node: int) -> None:
        """A node that says that it is complete holds all that its heartbeat promises, wherever it stands."""
        writer = self._writer(node)
        heartbeat = writer.heartbeat()
        if writer.complete() and heartbeat is not None:
            held = self._held(self.nodes[node])
            assert all(held.get(serial, NONE) >= order for serial, order in self.promised[heartbeat].items())

    def teardown(self) -> None:
        """When every writer is done, both nodes have the same, and a new one has it from what the feed still holds."""
        if not hasattr(self, "nodes"):
            return
        try:
            while self.open:
                self.commit(0)
            self.restart(1, 1, wipe=True)
            for node in (0, 1):
                self.follow(node)
        finally:
            for node in (0, 1):
                self.nodes[node].writer.environment.close()
                shutil.rmtree(self.folders[node])
            for conn in (*self.writers, self.passing):
                conn.terminate()


@pytest.mark.parametrize(("examples", "steps"), [(10, 30), pytest.param(100, 60, marks=pytest.mark.long)])
def test_a_node_holds_the_maximum_of_what_is_committed(cluster: Any, examples: int, steps: int) -> None:
    """On real PostgreSQL with real signatures."""
    with asyncio.Runner() as loop:
        name, database = loop.run(cluster.take())
        loop.run(database.owner.execute(_ISSUER))
        fields = {"database": database, "loop": loop, "pool": loop.run(database.pool(FOLLOWER)), "issuer": OcspIssuer()}
        machine = type("Machine", (FeedMachine,), fields)
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            loop.run(database.close())
            loop.run(cluster.give_back(name))
