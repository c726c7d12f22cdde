"""The transactions of flow 1: each whole or not at all, from the state it starts from alone; and what it commits is a
serial that is known and can be revoked (A8, E8).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from quash.errors import QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import new_serial
from quash.runtime.clock import FakeClock
from quash.store import acts, blocked_keys, certificates, issuers, issuing, orders, revocations
from quash.store.certificates import Certificate
from quash.store.database import Connection
from quash.store.issuers import Issuer
from quash.store.issuing import Obstacles
from quash.store.lint_results import LintResult
from quash.store.locks import kill_switch_lock, locks_to_sign, order_lock, spki_lock, try_order_lock
from quash.store.orders import Order
from quash.store.revocations import Revocation
from quash.store.roles import ADMIN, ISSUING
from tests.support.issuing import add_hierarchy

_SPKI = b"a DER SPKI"
_KEY = hashlib.sha256(_SPKI).digest()
_TABLES = ("certificate", "certificate_order", "lint_result", "outbox", "act", "final_submission")


@dataclass
class Desk:
    """One session of the issuing role, one of the admin role, and what an order needs."""

    database: Any
    conn: Connection
    admin: Connection
    issuer: Issuer
    now: int

    async def order(self, state: str = "pending") -> Order:
        made = Order(uuid4(), self.now, "operator:ann", "tls-dv", b"csr", state, None, None, None, None, self.now)
        if state != "pending":
            made = replace(made, code="order.test")
        await orders.add(self.conn, made)
        return made

    def row(self, serial: bytes | None = None) -> Certificate:
        serial = serial or new_serial()
        bucket = certificates.bucket_of(serial, self.issuer.bucket_count)
        until = self.now + 86_399
        return Certificate(
            self.issuer.id, serial, "reserved", "tls-dv", None, _KEY, None, self.now, until, None, bucket
        )

    def linted(self, order: Order, document: str = "dv-precertificate") -> list[LintResult]:
        found = [{"severity": "notice", "code": "a", "message": "b"}]
        return [LintResult(self.now, order.id, document, name, "1", found, False) for name in ("one", "two")]

    async def reserve(self, order: Order, row: Certificate) -> bool:
        return await issuing.reserve(self.conn, order.id, row, b"tbs", at=self.now + 1, linted=self.linted(order))

    async def reserved(self) -> tuple[Order, Certificate]:
        order, row = await self.order(), self.row()
        assert await self.reserve(order, row)
        return replace(order, issuer_id=row.issuer_id, serial=row.serial), row

    async def complete(
        self, order: Order, *, news: bool = False, logged: bool = False, answered: bool = False
    ) -> str | None:
        how = {"news": news, "logged": logged, "answered": answered}
        return await issuing.complete(
            self.conn, order, b"final", self.now + 2, **how, action="certificate.issue", subject={}
        )

    async def final_tbs(self, order: Order, row: Certificate, tbs: bytes) -> bool:
        linted = self.linted(order, "dv-certificate")
        async with order_lock(self.conn, order.id) as lock:
            return await issuing.set_final_tbs(self.conn, row.issuer_id, row.serial, tbs, linted=linted, lock=lock)

    @asynccontextmanager
    async def signing(self, serial: bytes | None = None) -> AsyncIterator[Obstacles]:
        """The locks that issuing holds to sign, and what is found under them."""
        async with locks_to_sign(self.conn, _KEY) as locks:
            yield await issuing.obstacles(self.conn, locks, self.issuer.id, _KEY, serial)

    async def until_waiting(self, other: Connection) -> None:
        """Until our session waits for a lock that `other` has."""
        waits = "select count(*) from pg_locks where not granted and pid = $1"
        while not await other.fetchval(waits, self.conn.get_server_pid()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def counts(self) -> dict[str, int]:
        async with self.database.owner.acquire() as conn:
            return {table: await conn.fetchval(f"select count(*) from {table}") for table in _TABLES}

    async def revoke(self, row: Certificate) -> None:
        act = await acts.record(self.admin, at=self.now, actor="operator:bob", action="test", subject={})
        reason, at = Reason.superseded, self.now
        await revocations.add(self.admin, [Revocation(row.issuer_id, row.serial, 1, reason, at, at, row.shard, act)])


@pytest.fixture
async def desk(database: Any, clock: FakeClock) -> Desk:
    hierarchy = await add_hierarchy(database.owner, clock)
    conn, admin = [await (await database.pool(role)).acquire() for role in (ISSUING, ADMIN)]
    return Desk(database, conn, admin, hierarchy["tls-ov"], int(clock.now()))


async def test_t1_commits_serial_bytes_key_and_what_linters_said(desk: Desk) -> None:
    """And `read` gives order and reservation of one moment; before it, the order alone."""
    order, row = await desk.order(), desk.row()
    assert await issuing.read(desk.conn, order.id) == (order, None)
    assert await desk.reserve(order, row)
    found = await issuing.read(desk.conn, order.id)
    assert found is not None
    (read, reservation) = found
    assert (read.issuer_id, read.serial, read.state, read.updated_at) == (
        row.issuer_id,
        row.serial,
        "pending",
        desk.now + 1,
    )
    assert reservation is not None
    assert (reservation.certificate, reservation.tbs, reservation.order_id) == (row, b"tbs", order.id)
    assert (await desk.counts())["lint_result"] == 2
    assert await issuing.read(desk.conn, uuid4()) is None


@pytest.mark.parametrize("state", ["held", "ready", "issued", "refused"])
async def test_t1_is_for_pending_orders(desk: Desk, state: str) -> None:
    """In any other state there is nothing of it: no serial, no linter's word."""
    order = await desk.order(state)
    before = await desk.counts()
    assert not await desk.reserve(order, desk.row())
    assert await desk.counts() == before


async def test_an_order_gets_one_serial(desk: Desk) -> None:
    """Of two workers that reserve for it, the second leaves nothing."""
    order, row = await desk.order(), desk.row()
    assert await desk.reserve(order, row)
    before = await desk.counts()
    assert not await desk.reserve(order, desk.row())
    assert await desk.counts() == before
    found = await orders.get(desk.conn, order.id)
    assert found is not None
    assert found.serial == row.serial


async def test_a_taken_serial_is_nobody_elses(desk: Desk) -> None:
    """It raises, and the order is as it was: it draws another serial."""
    _, taken = await desk.reserved()
    order, before = await desk.order(), None
    before = await desk.counts()
    with pytest.raises(asyncpg.UniqueViolationError):
        await desk.reserve(order, desk.row(taken.serial))
    assert await desk.counts() == before
    assert await orders.get(desk.conn, order.id) == order


async def test_t1_cut_off_leaves_nothing(desk: Desk, cluster: Any) -> None:
    """The session ends while the statement waits for the order's row: no serial, no linter's word, a pending order."""
    order, before = await desk.order(), await desk.counts()
    async with desk.database.owner.acquire() as other:
        async with other.transaction():
            await other.fetchval("select id from certificate_order where id = $1 for update", order.id)
            cut_off = asyncio.create_task(desk.reserve(order, desk.row()))
            await desk.until_waiting(other)
            admin = await cluster.admin()
            await admin.execute("select pg_terminate_backend($1, 5000)", desk.conn.get_server_pid())
            await admin.close()
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await cut_off
        assert await orders.get(other, order.id) == order
    assert await desk.counts() == before


async def test_t2_is_for_a_reserved_serial_and_news_once(desk: Desk) -> None:
    """A8: from here on the presigner has to answer for it."""
    _, row = await desk.reserved()
    key = (row.issuer_id, row.serial)
    assert await issuing.set_precertificate(desk.conn, *key, b"pre")
    found = await certificates.get_reservation(desk.conn, *key)
    assert found is not None
    assert (found.certificate.state, found.certificate.der, found.tbs) == ("precertificate", b"pre", None)
    before = await desk.counts()
    assert before["outbox"] == 1
    assert not await issuing.set_precertificate(desk.conn, *key, b"another")
    assert not await issuing.set_precertificate(desk.conn, row.issuer_id, new_serial(), b"pre")
    assert await desk.counts() == before
    assert (await certificates.get(desk.conn, *key)) == replace(found.certificate)


async def test_the_first_final_tbs_stays_the_only_one(desk: Desk) -> None:
    """D19: whatever SCTs come later; and there is none without a precertificate."""
    order, row = await desk.reserved()
    key = (row.issuer_id, row.serial)
    assert not await desk.final_tbs(order, row, b"early")
    assert await issuing.set_precertificate(desk.conn, *key, b"pre")
    async with try_order_lock(desk.admin, order.id):
        assert not await desk.final_tbs(order, row, b"another worker's")
    assert await desk.final_tbs(order, row, b"first")
    assert not await desk.final_tbs(order, row, b"second")
    async with try_order_lock(desk.admin, order.id) as alone:
        assert alone
    found = await certificates.get_reservation(desk.conn, *key)
    assert found is not None
    assert found.tbs == b"first"
    assert (await desk.counts())["lint_result"] == 2 + 2


@pytest.mark.parametrize("step", ["T2", "T3"])
async def test_locks_end_with_the_commit_and_not_a_moment_earlier(desk: Desk, step: str) -> None:
    """Whoever waits for the key or for the kill switch sees what was committed under the locks (C8, G21)."""
    order, row = await desk.reserved()
    queries: list[str] = []
    async with try_order_lock(desk.conn, order.id) as alone, desk.signing():
        assert alone
        async with desk.conn.transaction():
            if step == "T2":
                assert await issuing.set_precertificate(desk.conn, row.issuer_id, row.serial, b"pre")
            else:
                assert await desk.complete(order)
            for lock in (kill_switch_lock(desk.admin, stop=True), spki_lock(desk.admin, _KEY)):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(lock.__aenter__(), 0.2)
            async with try_order_lock(desk.admin, order.id) as free:
                assert not free
        desk.conn.add_query_logger(lambda record: queries.append(record.query))
        async with asyncio.timeout(10), kill_switch_lock(desk.admin, stop=True), spki_lock(desk.admin, _KEY):
            pass
        async with try_order_lock(desk.admin, order.id) as free:
            assert free
    assert queries == []  # there was nothing left to give back


async def test_a_transaction_that_found_another_state_ends_its_locks_too(desk: Desk) -> None:
    """And what a session took twice it has twice."""
    _, row = await desk.reserved()
    async with desk.signing(), spki_lock(desk.conn, _KEY):
        assert not await issuing.set_precertificate(desk.conn, row.issuer_id, new_serial(), b"pre")
        async with asyncio.timeout(10), kill_switch_lock(desk.admin, stop=True), spki_lock(desk.admin, _KEY):
            pass
    async with spki_lock(desk.conn, _KEY):
        async with spki_lock(desk.conn, _KEY):
            pass
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(spki_lock(desk.admin, _KEY).__aenter__(), 0.2)
    async with asyncio.timeout(10), spki_lock(desk.admin, _KEY):
        pass


@pytest.mark.parametrize("news", [False, True])
@pytest.mark.parametrize("logged", [False, True])
async def test_t3_commits_certificate_order_and_act_together(desk: Desk, *, news: bool, logged: bool) -> None:
    """With news for the presigner and a place in the queue for a log (E6) where they are asked for; and once."""
    order, _ = await desk.reserved()
    assert await desk.complete(order, news=news, logged=logged)
    found = await issuing.read(desk.conn, order.id)
    assert found is not None
    (read, reservation) = found
    assert reservation is not None
    assert (read.state, reservation.certificate.state, reservation.certificate.der) == ("ready", "issued", b"final")
    assert reservation.tbs is None
    after = await desk.counts()
    assert (after["act"], after["outbox"], after["final_submission"]) == (1, news, logged)
    assert not await desk.complete(order, news=news, logged=logged)
    assert await desk.counts() == after


async def test_t3_releases_what_is_answered_and_not_revoked(desk: Desk) -> None:
    """A7, C8: a revoked one is committed all the same, since it is signed, and waits to be refused."""
    order, _ = await desk.reserved()
    assert await desk.complete(order, answered=True) == "issued"
    assert await desk.complete(order, answered=True) is None
    order, row = await desk.reserved()
    await desk.revoke(row)
    assert await desk.complete(order, answered=True) == "ready"
    found = await issuing.read(desk.conn, order.id)
    assert found is not None
    assert found[1] is not None
    assert (found[0].state, found[1].certificate.state) == ("ready", "issued")


async def test_t3_is_not_for_an_order_that_ended(desk: Desk) -> None:
    """Refused meanwhile: neither certificate nor act, and the serial stays what it was, to be revoked."""
    order, row = await desk.reserved()
    await orders.refuse(desk.conn, order, "order.test", "over", desk.now)
    before = await desk.counts()
    assert not await desk.complete(order, news=True, logged=True)
    assert await desk.counts() == before
    assert await certificates.get(desk.conn, row.issuer_id, row.serial) == row


async def test_t3_waits_for_whoever_ends_the_order(desk: Desk) -> None:
    """It finds the order refused, once that is committed: what it found pending would have stayed so."""
    order, row = await desk.reserved()
    async with desk.database.owner.acquire() as other:
        async with other.transaction():
            await orders.refuse(other, order, "order.test", "over", desk.now)
            completing = asyncio.create_task(desk.complete(order))
            await desk.until_waiting(other)
        assert not await completing
    assert await certificates.get(desk.conn, row.issuer_id, row.serial) == row


async def test_an_order_ends_in_the_state_in_which_it_was_seen(desk: Desk) -> None:
    """A worker that saw it pending does not refuse what another made ready."""
    order, _ = await desk.reserved()
    assert await desk.complete(order)
    with pytest.raises(QuashError, match=r"order\.conflict"):
        await orders.refuse(desk.conn, order, "order.test", "over", desk.now)
    await orders.refuse(desk.conn, replace(order, state="ready"), "order.test", "over", desk.now)
    with pytest.raises(QuashError, match=r"order\.conflict"):
        await orders.refuse(desk.conn, replace(order, state="refused"), "order.test", "over", desk.now)


async def test_a_new_order_is_locked_before_it_is_seen(desk: Desk) -> None:
    """Whoever takes its lock first is whoever wrote it; afterwards it is free."""
    order = Order(uuid4(), desk.now, "operator:ann", "tls-dv", b"csr", "pending", None, None, None, None, desk.now)
    async with order_lock(desk.conn, order.id) as lock:
        await orders.add_locked(desk.conn, order, lock)
        assert await orders.get(desk.conn, order.id) == order
        async with desk.database.owner.acquire() as other, other.transaction():
            assert not await other.fetchval("select pg_try_advisory_xact_lock($1)", lock)
    async with try_order_lock(desk.admin, order.id) as alone:
        assert alone


async def test_a_key_that_is_ours_is_told(desk: Desk) -> None:
    """D46, G31: a CA's own, or that of a certificate of a profile without subscribers."""

    async def ours(spki: bytes, *profiles: str) -> bool:
        found = await issuing.prospect(desk.conn, desk.issuer.name, spki, profiles)
        assert found is not None
        assert [issuer.name for issuer, _ in found.chain] == ["tls-ov", "root"]
        assert all(certificate is not None for _, certificate in found.chain)
        return found.ours

    await desk.reserved()
    assert await ours(desk.issuer.spki)
    assert not await ours(_SPKI)
    assert await ours(_SPKI, "ocsp-signer", "tls-dv")
    assert await issuing.prospect(desk.conn, "nobody", _SPKI, []) is None


async def test_a_certificate_is_told_with_its_chain(desk: Desk) -> None:
    """One question: whose it is, until when it is valid, and its bytes once it has some."""
    order, row = await desk.reserved()
    found = await issuing.chain_and_certificate(desk.conn, row.issuer_id, row.serial)
    assert found is not None
    assert (found[0], found[1:]) == (await issuers.chain(desk.conn, row.issuer_id), (row.not_after, None))
    assert await desk.complete(order)
    found = await issuing.chain_and_certificate(desk.conn, row.issuer_id, row.serial)
    assert found is not None
    assert found[1:] == (row.not_after, b"final")
    assert await issuing.chain_and_certificate(desk.conn, row.issuer_id, new_serial()) is None


async def test_release_is_for_what_is_ready_and_not_revoked(desk: Desk) -> None:
    """A7, C8: not before T3, not after a revocation; and again it changes nothing."""
    order, row = await desk.reserved()
    assert not await issuing.release(desk.conn, order, desk.now + 3)
    assert await desk.complete(order)
    assert await issuing.release(desk.conn, order, desk.now + 3)
    assert await issuing.release(desk.conn, order, desk.now + 9)
    found = await orders.get(desk.conn, order.id)
    assert found is not None
    assert (found.state, found.updated_at) == ("issued", desk.now + 3)

    order, row = await desk.reserved()
    assert await desk.complete(order)
    await desk.revoke(row)
    assert not await issuing.release(desk.conn, order, desk.now + 3)
    found = await orders.get(desk.conn, order.id)
    assert found is not None
    assert found.state == "ready"


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_after_each_transaction_the_serial_is_known_and_revocable(desk: Desk, steps: int) -> None:
    """A8, E8: also by its key, as sibling search finds it (C8), and the re-check sees the revocation."""
    order, row = await desk.reserved()
    key = (row.issuer_id, row.serial)
    if steps > 0:
        assert await issuing.set_precertificate(desk.conn, *key, b"pre")
    if steps > 1:
        assert await desk.final_tbs(order, row, b"final tbs")
    if steps > 2:
        assert await desk.complete(order)
    siblings = await certificates.siblings(desk.admin, _KEY, desk.now, 10)
    assert [each.serial for each in siblings] == [row.serial]
    await desk.revoke(row)
    async with desk.signing(row.serial) as found:
        assert found == issuing.Obstacles(stopped=False, blocked=False, revoked=True)


async def test_the_look_under_the_locks_sees_what_was_committed_while_it_waited(desk: Desk) -> None:
    """C9, C8: blocking a key commits under its lock; whoever signs next with the key is told, by the same question."""
    act = await acts.record(desk.admin, at=desk.now, actor="operator:bob", action="test", subject={})
    _, row = await desk.reserved()

    async def look() -> Obstacles:
        async with desk.signing(row.serial) as found:
            return found

    async with spki_lock(desk.admin, _KEY):
        looking = asyncio.create_task(look())
        await desk.until_waiting(desk.admin)
        await blocked_keys.block(desk.admin, _KEY, reason="ours", added_at=desk.now, act_id=act)
        await desk.revoke(row)
        await issuers.set_stopped(desk.admin, None, stopped=True, at=desk.now, act_id=act)
    assert await looking == Obstacles(stopped=True, blocked=True, revoked=True)


async def test_obstacles_are_told_apart(desk: Desk) -> None:
    """Kill switch (G21) of the issuer or of all, a blocked key (C9); another key or issuer is not met."""
    act = await acts.record(desk.admin, at=desk.now, actor="operator:bob", action="test", subject={})

    async def look() -> tuple[bool, bool]:
        async with desk.signing() as found:
            assert not found.revoked
        prospect = await issuing.prospect(desk.conn, desk.issuer.name, _SPKI, [])
        assert prospect is not None
        assert prospect.obstacles == found
        return found.stopped, found.blocked

    assert await look() == (False, False)
    await blocked_keys.block(desk.admin, bytes(32), reason="other", added_at=desk.now, act_id=act)
    await issuers.set_stopped(desk.admin, desk.issuer.id - 1, stopped=True, at=desk.now, act_id=act)
    assert await look() == (False, False)
    await blocked_keys.block(desk.admin, _KEY, reason="ours", added_at=desk.now, act_id=act)
    assert await look() == (False, True)
    for issuer in (desk.issuer.id, None):
        await issuers.set_stopped(desk.admin, issuer, stopped=True, at=desk.now, act_id=act)
        assert await look() == (True, True)
        await issuers.set_stopped(desk.admin, issuer, stopped=False, at=desk.now, act_id=act)
        assert await look() == (False, True)
