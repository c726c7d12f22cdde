"""What PostgreSQL keeps and joins for CRLs is what `quash.pki.crl` would write."""

from __future__ import annotations

import re
from typing import Any

import asyncpg
import pytest

from quash.pki.crl import ENTRIES, cut_entries, entry
from quash.pki.reasons import ALLOWED_REASONS
from quash.pki.serials import MAX_OCTETS
from quash.store import crl_entries, crl_order, crls
from quash.store.database import acquire

MOMENTS = (0, 951_782_400, 1_800_000_000, 2_524_607_999, 2_524_608_000, 253_402_300_799)
SCOPE = crls.Scope(1, "ca", "full", None, "http://crl.example.test/ca.crl", (), "ca.crl", False)


async def prepare(owner: Any) -> None:
    await owner.execute("""
        insert into act (at, actor, action, subject) values (1, 'a', 'b', '{}');
        insert into issuer
            (name, kind, subject, spki, signature_algorithm, ocsp_path, max_age, bucket_count, created_at)
            values ('ca', 'root', '', '', 'x', 'ca', 1, 1, 1);
    """)


async def revoke(owner: Any, serial: bytes, reason: int, at: int, *, version: int = 1, not_after: int = 9) -> None:
    await owner.execute(
        "insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)"
        " values (1, $1, 'imported', 'x', $2, 0, 0) on conflict do nothing",
        serial,
        not_after,
    )
    await owner.execute(
        "insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id)"
        " values (1, $1, $2, $3, $4, 0, 1)",
        serial,
        version,
        reason,
        at,
    )


async def listed(database: Any, regular: crls.Crl | None = None) -> crl_entries.Listing:
    async with acquire(database.owner) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        return await crl_entries.listing(conn, SCOPE, regular)


async def test_kept_entry_is_the_one_that_the_codec_writes(database: Any) -> None:
    """Every length of serial, both kinds of time and each reason: octet for octet as `entry` (B8, B10, B19)."""
    await prepare(database.owner)
    wanted = []
    for size in (1, 2, 15, 16, 17, 20, 21, MAX_OCTETS):
        for at in MOMENTS:
            for reason in ALLOWED_REASONS:
                serial = (bytes((1 + len(wanted) % 127, len(wanted) // 127)) + b"\x55" * size)[:size]
                if any(serial == known for known, _, _ in wanted):
                    continue
                wanted.append((serial, at, int(reason)))
                await revoke(database.owner, serial, int(reason), at)
    found = await listed(database)
    assert cut_entries(found.encoded) == [entry(*each) for each in wanted]
    assert ENTRIES.fullmatch(found.encoded)
    assert (found.count, found.gone) == (len(wanted), 0)


_INSERT = (
    "insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id, entry, not_after)"
    " values (1, $1, 2, 4, 6, 0, $2, $3, $4)"
)


async def test_database_fills_what_a_writer_leaves_out(database: Any) -> None:
    """As processes of the release before write: entry and notAfter, both or one of them."""
    await prepare(database.owner)
    for serial, octets, not_after in (
        (b"\x01", None, None),
        (b"\x02", None, 77),
        (b"\x03", entry(b"\x03", 6, 4), None),
    ):
        await revoke(database.owner, serial, 1, 5, not_after=77)
        await database.owner.execute(_INSERT, serial, 1, octets, not_after)
        row = await database.owner.fetchrow(
            "select entry, not_after from revocation where serial = $1 and version = 2", serial
        )
        assert tuple(row) == (entry(serial, 6, 4), 77)


@pytest.mark.parametrize(
    ("serial", "act", "octets", "not_after", "error"),
    [
        (b"\x01", 1, entry(b"\x01", 6, 1), 77, asyncpg.CheckViolationError),
        (b"\x01", 1, entry(b"\x01", 6, 4), 78, asyncpg.CheckViolationError),
        (b"\x09", 1, entry(b"\x09", 6, 4), 77, asyncpg.CheckViolationError),
        (b"\x09", 1, None, None, asyncpg.NotNullViolationError),
        (b"\x01", 9999, entry(b"\x01", 6, 4), 77, asyncpg.ForeignKeyViolationError),
    ],
    ids=["another reason", "another notAfter", "no certificate", "no certificate, nothing brought", "no act"],
)
async def test_writer_cannot_choose_what_is_kept(
    database: Any, serial: bytes, act: int, octets: bytes | None, not_after: int | None, error: type[Exception]
) -> None:
    """What a writer brings ready-made is compared: with the certificate, with its own encoding, with the acts (B8)."""
    await prepare(database.owner)
    await revoke(database.owner, b"\x01", 1, 5, not_after=77)
    with pytest.raises(error):
        await database.owner.execute(_INSERT, serial, act, octets, not_after)
    assert await database.owner.fetchval("select count(*) from revocation") == 1


async def test_greatest_version_alone_is_listed(database: Any) -> None:
    """An upgrade (B25) replaces the entry, at the end of the list, where its transaction stands."""
    await prepare(database.owner)
    for serial in (b"\x01", b"\x02", b"\x03"):
        await revoke(database.owner, serial, 4, 5)
    await revoke(database.owner, b"\x02", 1, 5, version=2)
    await revoke(database.owner, b"\x02", 1, 4, version=3)
    found = await listed(database)
    assert cut_entries(found.encoded) == [entry(b"\x01", 5, 4), entry(b"\x03", 5, 4), entry(b"\x02", 4, 1)]


async def test_what_may_go_is_counted_and_not_listed(database: Any) -> None:
    """B13: expired before the regular CRL, and covered by it; what came later stays, and so does the unexpired."""
    await prepare(database.owner)
    await revoke(database.owner, b"\x01", 4, 5, not_after=99)
    await revoke(database.owner, b"\x02", 4, 5, not_after=100)
    async with acquire(database.owner) as conn:
        covers = await crl_entries.snapshot(conn)
    await revoke(database.owner, b"\x03", 4, 5, not_after=99)
    regular = crls.Crl(1, 100, 200, 2, None, None, covers, True, 100)
    found = await listed(database, regular)
    assert cut_entries(found.encoded) == [entry(b"\x02", 5, 4), entry(b"\x03", 5, 4)]
    assert (found.count, found.gone) == (2, 1)
    assert await listed(database) == crl_entries.Listing(b"".join(entry(bytes((n,)), 5, 4) for n in (1, 2, 3)), 3, 0)


async def test_idle_scope_does_not_read_the_revocations_of_others(database: Any) -> None:
    """An old CRL of a quiet scope makes nobody walk through a mass revocation that came since, at any look."""
    await prepare(database.owner)
    await database.owner.execute("""
        insert into issuer
            (name, kind, subject, spki, signature_algorithm, key_ref, ocsp_path, max_age, bucket_count, created_at)
            values ('quiet', 'root', '', '', 'x', 'pem:x', 'quiet', 1, 1, 1);
        insert into crl_scope (issuer_id, scope, url, path, idp) values (2, 'full', 'u', 'quiet.crl', false);
        insert into crl (issuer_id, scope, number, this_update, next_update, entries, covers, scheduled, published_at)
            values (2, 'full', 1, 1, 2, 0, pg_current_snapshot(), true, 1);
        insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)
            select 1, int4send(n), 'imported', 'x', 9, 0, 0 from generate_series(1, 20000) n;
        insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id)
            select 1, int4send(n), 1, 4, 5, 0, 1 from generate_series(1, 20000) n;
        analyze;
    """)
    plan = "\n".join(row[0] for row in await database.owner.fetch(f"explain {crls._STATES}", False))
    assert "revocation_order on revocation" in plan
    assert "revocation_tx" not in plan
    async with acquire(database.owner) as conn:
        (state,) = await crls.states(conn)
    assert (state.scope.path, state.dirty_since) == ("quiet.crl", None)


async def test_what_was_added_is_joined_in_the_order_of_its_transactions(database: Any) -> None:
    """The entries that `changes` lists one by one, and whether an upgrade is among them."""
    await prepare(database.owner)
    async with acquire(database.owner) as conn, conn.transaction():
        assert await crl_entries.added(conn, SCOPE, "1:1:") == crl_entries.Added(b"", 0, upgrades=False)
    for serial in (b"\x07", b"\x03", b"\x05"):
        await revoke(database.owner, serial, 4, 5)
    async with acquire(database.owner) as conn, conn.transaction():
        joined = b"".join(each for _, each in await crl_entries.changes(conn, SCOPE, "1:1:"))
        assert joined == b"".join(entry(serial, 5, 4) for serial in (b"\x07", b"\x03", b"\x05"))
        assert await crl_entries.added(conn, SCOPE, "1:1:") == crl_entries.Added(joined, 3, upgrades=False)
    await revoke(database.owner, b"\x03", 1, 4, version=2)
    async with acquire(database.owner) as conn, conn.transaction():
        found = await crl_entries.added(conn, SCOPE, "1:1:")
        assert (found.count, found.upgrades) == (4, True)


async def test_look_at_one_shard_ends_where_the_next_begins(database: Any) -> None:
    """A mass revocation of one shard is not walked through for the others of its issuer either."""
    await prepare(database.owner)
    await database.owner.execute("""
        insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)
            select 1, int4send(n), 'imported', 'x', 9, 0, 0 from generate_series(1, 5000) n;
        insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id, shard)
            select 1, int4send(n), 1, 4, 5, 0, 1, 7 from generate_series(1, 5000) n;
    """)
    async with acquire(database.owner) as conn, conn.transaction():
        await crl_order.in_index_order(conn)
        rows = await conn.fetch(f"explain (analyze) select 1{crl_entries._NEW}", 1, 3, "1:1:")
        assert await crl_entries.changes(conn, SCOPE, "1:1:") == []
    plan = "\n".join(row[0] for row in rows)
    assert "Index Scan using revocation_order" in plan
    (buffers,) = re.findall(r"Index Scan using revocation_order.*?Buffers: shared hit=(\d+)", plan, re.DOTALL)
    assert int(buffers) < 10


async def test_plan_made_while_all_was_small_uses_the_index(database: Any) -> None:
    """A builder keeps its plan from before a mass revocation: reading and sorting would grow with the table."""
    await prepare(database.owner)
    async with acquire(database.owner) as conn, conn.transaction():
        await crl_order.in_index_order(conn)
        plan = "\n".join(row[0] for row in await conn.fetch(f"explain {crls._STATES}", False))
    assert "Index Scan using revocation_order on revocation" in plan
