"""Crashes, damage and lies: what the builder does when something it relies on is wrong."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from crlgen.publish.folder import FolderPublisher
from quash.errors import Kind, QuashError
from quash.pki.serials import format_serial
from quash.store import crls
from quash.store.database import acquire
from tests.support.crl_bench import DAY, Bench


class Crash(BaseException):
    """The process dies here: nothing of ours may catch it."""


def alarms(code: str) -> float:
    return REGISTRY.get_sample_value("quash_crl_alarms_total", {"code": code}) or 0.0


def missing(issuer: str = "ca", scope: str = "full") -> float:
    return REGISTRY.get_sample_value("quash_crl_missing", {"issuer": issuer, "scope": scope}) or 0.0


STEPS = {
    "before the number is taken": ("reserve", "before", 2),
    "after the number is taken": ("reserve", "after", 3),
    "after signing, before its record": ("signed", "before", 3),
    "after the record, before publishing": ("signed", "after", 3),
    "after publishing, before its record": ("published", "before", 2),
    "after everything": ("published", "after", 2),
}


@pytest.mark.parametrize("where", STEPS)
async def test_crash_skips_a_number_and_repeats_none(bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Killed between any two steps, the builder goes on after a restart: no number twice, no revocation unpublished."""
    function, moment, number = STEPS[where]
    ca = await bench.issuer()
    await bench.settle()
    serial = await bench.revoked(ca)
    original = getattr(crls, function)

    async def dying(*arguments: Any, **named: Any) -> None:
        if moment == "after":
            await original(*arguments, **named)
            if arguments[0].is_in_transaction():
                await arguments[0].execute("commit")  # dying right after it, not within
        raise Crash

    await bench.builder.step()
    await bench.clock.advance(2)
    monkeypatch.setattr(crls, function, dying)
    with pytest.raises(Crash):
        await bench.builder.step()
    monkeypatch.undo()
    await bench.crash()
    await bench.settle()
    await bench.settle()
    assert set(bench.listed()) == {serial}
    assert bench.read().number == number
    rows = await bench.database.owner.fetch("select number, published_at from crl order by number desc limit 1")
    assert (int(rows[0]["number"]), rows[0]["published_at"] is not None) == (number, True)
    assert bench.builder.problems == {}


@pytest.mark.parametrize("persisted", [False, True])
async def test_publisher_that_fails_and_perhaps_did_it_anyway(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, persisted: bool
) -> None:
    """A put that fails, whether or not the file reached the folder, ends with the revocation published once.

    Purge hooks are told when it is out (G1).
    """
    announced = list[str]()
    await bench.start(announce=lambda scope: announced.append(scope.path))
    ca = await bench.issuer()
    await bench.settle()
    serial = await bench.revoked(ca)
    put = FolderPublisher.put

    async def failing(self: FolderPublisher, name: str, body: bytes, replaces: str | None) -> str:
        if persisted:
            await put(self, name, body, replaces)
        raise QuashError("publish.failed", "disk full")

    monkeypatch.setattr(FolderPublisher, "put", failing)
    await bench.settle()
    assert "publish.failed" in bench.builder.problems["ca.crl"]
    assert announced == ["ca.crl"], "the first"
    monkeypatch.undo()
    await bench.clock.advance(5)
    await bench.settle()
    await bench.settle()
    assert set(bench.listed()) == {serial}
    assert bench.read().number == (2 if persisted else 3)
    states = await crls_states(bench)
    assert states[0].published is not None
    assert states[0].published.number == bench.read().number
    assert announced == ["ca.crl"] * 2


async def crls_states(bench: Bench) -> list[crls.ScopeState]:
    async with acquire(bench.database.owner) as conn:
        return await crls.states(conn)


def damage(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0xFF
    path.write_bytes(body)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def replace_by_html(path: Path) -> None:
    path.write_bytes(b"<html>not a CRL</html>")


@pytest.mark.parametrize("spoil", [damage, truncate, replace_by_html, Path.unlink])
async def test_damaged_file_is_noticed_and_rebuilt_under_a_new_number(bench: Bench, spoil: Any) -> None:
    """Whatever happens to the published file, the next step replaces it; the number rises and nothing is lost."""
    ca = await bench.issuer()
    serials = {await bench.revoked(ca) for _ in range(3)}
    await bench.settle()
    before = alarms("crl.file_damaged") + alarms("crl.file_missing")
    spoil(bench.path("ca.crl"))
    assert await bench.builder.step() == 1
    assert bench.read().number == 2
    assert set(bench.listed()) == serials
    assert alarms("crl.file_damaged") + alarms("crl.file_missing") == before + 1


async def test_damage_while_the_builder_was_down_is_noticed_at_start(bench: Bench) -> None:
    """A restart compares every file with the database's record of it."""
    ca = await bench.issuer()
    serial = await bench.revoked(ca)
    await bench.settle()
    damage(bench.path("ca.crl"))
    await bench.start()
    assert await bench.builder.step() == 1
    assert (bench.read().number, set(bench.listed())) == (2, {serial})


async def test_octets_that_rot_in_place_are_noticed_within_the_hour(bench: Bench) -> None:
    """A file whose size and times did not change is read again now and then."""
    ca = await bench.issuer()
    await bench.revoked(ca)
    await bench.settle()
    path = bench.path("ca.crl")
    found = path.stat()
    damage(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert await bench.builder.step() == 0
    await bench.clock.advance(3600)
    assert await bench.builder.step() == 1
    assert bench.read().number == 2


async def test_older_crl_put_back_is_replaced(bench: Bench) -> None:
    """A rollback of the folder is not taken for what was published, and its lower number is not reused."""
    ca = await bench.issuer()
    await bench.settle()
    old = bench.path("ca.crl").read_bytes()
    serial = await bench.revoked(ca)
    await bench.settle()
    bench.path("ca.crl").write_bytes(old)
    assert await bench.builder.step() == 1
    assert (bench.read().number, set(bench.listed())) == (3, {serial})


async def test_crl_of_another_scope_is_not_believed(bench: Bench) -> None:
    """Files exchanged between shards are seen for what they are: both are rebuilt, and nothing moves across."""
    ca = await bench.issuer("dv", shards=2)
    first, second = await bench.revoked(ca, shard=0), await bench.revoked(ca, shard=1)
    await bench.settle()
    zero, one = bench.path("dv/0.crl"), bench.path("dv/1.crl")
    zero_body, one_body = zero.read_bytes(), one.read_bytes()
    zero.write_bytes(one_body)
    one.write_bytes(zero_body)
    await bench.start()
    assert await bench.builder.step() == 2
    assert set(bench.listed("dv/0.crl")) == {first}
    assert set(bench.listed("dv/1.crl")) == {second}
    assert bench.builder.problems == {}


async def test_bad_signature_leaves_the_old_crl_and_raises_the_alarm(bench: Bench) -> None:
    """A CA signer gone wrong cannot replace a sound CRL; metric and `problems` say which scope and why."""
    ca = await bench.issuer()
    await bench.settle()
    before = bench.path("ca.crl").read_bytes()
    serial = await bench.revoked(ca)
    bench.signer.tamper = lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])
    count = alarms("signature.invalid")
    await bench.settle()
    assert bench.path("ca.crl").read_bytes() == before
    assert "signature.invalid" in bench.builder.problems["ca.crl"]
    assert missing() == 1
    assert alarms("signature.invalid") == count + 1
    assert await bench.builder.step() == 0
    assert missing() == 1, "it stays until a CRL is out"
    bench.signer.tamper = None
    await bench.settle(300)
    assert set(bench.listed()) == {serial}
    assert (bench.builder.problems, missing()) == ({}, 0)


async def test_clock_gone_back_more_than_five_minutes_is_refused(bench: Bench) -> None:
    """Nothing is signed with a clock behind the published CRL; a small step only makes thisUpdate rise slowly."""
    ca = await bench.issuer()
    await bench.settle()
    first = bench.read().this_update
    bench.clock.step(-200)
    await bench.revoked(ca)
    await bench.settle()
    assert bench.read().this_update == first + 1
    bench.clock.step(-200)
    await bench.revoked(ca)
    signed = len(bench.signer.signed)
    await bench.settle()
    assert "crl.clock_went_back" in bench.builder.problems["ca.crl"]
    assert (bench.read().number, len(bench.signer.signed)) == (2, signed)
    bench.clock.step(400)
    await bench.settle(300)
    assert (bench.read().number, len(bench.listed())) == (3, 2)
    assert bench.builder.problems == {}


async def test_count_that_differs_from_the_database_is_refused_then_read_anew(bench: Bench) -> None:
    """Kept entries that went wrong are caught by the database's own count; the next try starts from the database."""
    ca = await bench.issuer()
    await bench.settle()
    serials = [await bench.revoked(ca) for _ in range(3)]
    await bench.settle()
    (memory,) = bench.builder._memory.values()
    assert memory.entries is not None
    length = len(memory.entries.encoded) // 3
    memory.entries = replace(memory.entries, encoded=memory.entries.encoded[length:], count=2)
    serials.append(await bench.revoked(ca))
    before = bench.path("ca.crl").read_bytes()
    await bench.settle()
    assert "crl.count_differs" in bench.builder.problems["ca.crl"]
    assert bench.path("ca.crl").read_bytes() == before
    await bench.settle(10)
    assert set(bench.listed()) == set(serials)
    assert bench.builder.problems == {}


async def restore_without(bench: Bench, serial: bytes) -> None:
    """What a restored backup looks like: a revocation that was published is not there any more."""
    async with acquire(bench.database.owner) as conn:
        await conn.execute("alter table revocation disable trigger append_only")
        await conn.execute("delete from revocation where serial = $1", serial)
        await conn.execute("alter table revocation enable trigger append_only")


async def test_restored_database_stops_everything_at_start(bench: Bench) -> None:
    """A published entry that the database does not know as revoked: no CRL of any scope is signed until it does."""
    ca, other = await bench.issuer(), await bench.issuer("other")
    lost, kept = await bench.revoked(ca), await bench.revoked(ca)
    await bench.settle()
    await restore_without(bench, lost)
    await bench.revoked(other)
    await bench.start()
    signed = len(bench.signer.signed)
    await bench.settle(2 * DAY)
    assert "crl.database_lost_revocations" in bench.builder.problems["trust"]
    assert format_serial(lost) in bench.builder.problems["trust"]
    assert len(bench.signer.signed) == signed
    assert set(bench.listed()) == {lost, kept}
    await bench.revoke(ca, lost, at=bench.listed()[lost][0])  # a person brings the database up to date
    await bench.settle(61)
    await bench.settle()
    assert bench.builder.problems == {}
    assert len(bench.listed("other.crl")) == 1


async def test_number_rises_above_a_published_one_that_the_database_lost(bench: Bench) -> None:
    """B7: the rows of the newest CRLs are gone, their revocations are not: the file's number and time count too."""
    ca = await bench.issuer()
    for _ in range(3):
        await bench.revoked(ca)
        await bench.settle()
    await bench.settle()
    before = bench.read()
    async with acquire(bench.database.owner) as conn:
        await conn.execute("alter table crl disable trigger user; delete from crl where number >= 2")
        await conn.execute("alter table crl enable trigger user")
    await bench.start()
    await bench.settle()
    crl = bench.read()
    assert crl.number == before.number + 1
    assert crl.this_update > before.this_update
    assert len(crl.entries) == 3
    assert bench.builder.problems == {}


async def test_restored_database_that_does_not_know_the_crls_url(bench: Bench) -> None:
    """A backup from before the origin moved: the file fits no scope as the database has it, and counts all the same."""
    ca = await bench.issuer()
    lost = await bench.revoked(ca)
    await bench.settle()
    await restore_without(bench, lost)
    await bench.database.owner.execute("update crl_scope set url = 'http://elsewhere.example/ca.crl', idp = true")
    await bench.start()
    signed = len(bench.signer.signed)
    await bench.settle(2 * DAY)
    assert format_serial(lost) in bench.builder.problems["trust"]
    assert len(bench.signer.signed) == signed


async def test_revocation_lost_under_a_running_builder_is_refused_at_the_gate(bench: Bench) -> None:
    """Also without a restart, a CRL that would lose a published entry is not published."""
    ca = await bench.issuer()
    await bench.settle()
    lost = await bench.revoked(ca)
    await bench.settle()
    await restore_without(bench, lost)
    await bench.revoked(ca)
    await bench.settle()
    assert "crl.count_differs" in bench.builder.problems["ca.crl"]
    await bench.settle(10)
    assert "crl.entry_lost" in bench.builder.problems["ca.crl"]
    assert set(bench.listed()) == {lost}


async def test_reason_downgraded_in_the_database_is_refused(bench: Bench) -> None:
    """A row changed behind the service's back never reaches a CRL."""
    ca = await bench.issuer()
    serial = await bench.revoked(ca, 1)
    await bench.settle()
    async with acquire(bench.database.owner) as conn:
        await conn.execute("alter table revocation disable trigger append_only")
        await conn.execute("update revocation set reason = 4, entry = crl_entry(serial, revoked_at, 4::smallint)")
        await conn.execute("alter table revocation enable trigger append_only")
    await bench.start()
    await bench.settle(DAY)
    assert "crl.reason_downgraded" in bench.builder.problems["ca.crl"]
    assert bench.listed()[serial][1] == 1


async def test_crl_from_a_server_that_was_ahead_is_made_again(bench: Bench) -> None:
    """After a failover, transaction numbers that the published snapshot calls done may be given out again."""
    ca = await bench.issuer()
    await bench.revoked(ca)
    await bench.settle()
    await bench.database.owner.execute("update crl set covers = '900000000:900000000:'")
    await bench.start()
    assert await bench.builder.step() == 1
    serial = await bench.revoked(ca)
    await bench.settle()
    assert serial in bench.listed()


@pytest.mark.parametrize("restart", [True, False], ids=["at start", "within the hour"])
async def test_covered_revocation_that_the_crl_lacks_is_found_named_and_published(bench: Bench, restart: bool) -> None:
    """Nothing is dirty, and the file is as recorded: only comparing entries finds it, with its serial."""
    ca = await bench.issuer()
    kept = await bench.revoked(ca)
    await bench.settle()
    lost = await bench.revoked(ca)
    await bench.database.owner.execute("update crl set covers = pg_current_snapshot()")
    assert await bench.settle() == 0
    before = alarms("crl.revocations_missing")
    bench.signer.fail = QuashError("rpc.unavailable", "down", Kind.UNAVAILABLE)
    if restart:
        await bench.start()
    await bench.settle(3600)
    assert lost.hex() in bench.builder.problems["ca.crl"]
    assert kept.hex() not in bench.builder.problems["ca.crl"]
    assert alarms("crl.revocations_missing") > before
    bench.signer.fail = None
    await bench.settle(300)
    assert set(bench.listed()) == {kept, lost}
    assert bench.builder.problems == {}
