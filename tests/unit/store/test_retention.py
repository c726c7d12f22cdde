"""F4, G24: what must be kept two years cannot be deleted at all (docs/adr/0003-nothing-is-deleted.md)."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from quash.store.roles import RIGHTS

MAY_GO = {
    *("feed", "feed_floor", "feed_partition", "reader_position", "outbox"),
    *("idempotent_request", "sighting_due"),
    *("bucket", "lease", "measured_rate", "proven_certificate", "schema_migration"),
}


async def test_every_other_table_refuses_its_own_owner(database: Any) -> None:
    """Whatever table is added: it is named here with a reason in the decision, or it refuses."""
    rows = await database.owner.fetch(
        "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = 'quash' and c.relkind in ('r', 'p') and not c.relispartition"
    )
    tables = {row["relname"] for row in rows}
    assert tables >= MAY_GO
    assert len(tables - MAY_GO) > 40
    for table in sorted(tables - MAY_GO):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"^{table} is append-only"):
            await database.owner.execute(f"delete from {table}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="is append-only"):
            await database.owner.execute(f"truncate {table} cascade")


def test_no_role_may_delete_anything_else() -> None:
    """And none may truncate at all."""
    may = {
        (table, right)
        for rights in RIGHTS.values()
        for table, privileges in rights.items()
        for right in privileges
        if right in ("delete", "truncate")
    }
    assert may == {("outbox", "delete"), ("idempotent_request", "delete"), ("sighting_due", "delete")}
