"""The release before on this schema: nothing that its processes read, write or call was taken away or made stricter.

Rows that a test happens to write prove little of a schema; this compares all of it. tests/integration/test_upgrade.py
runs the processes themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from quash.store.database import Connection
from tests.support.postgres import Database
from tests.support.releases import said_by, unpack

_MIGRATE = """
import asyncio, pathlib, sys
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.database import connect_once
from quash.store.migrate import migrate
from quash.store.roles import OWNER

async def main(state, url):
    conn = await connect_once(Config.model_validate({"database": {"url": url}}), State(pathlib.Path(state)), OWNER)
    await migrate(conn, 0)

asyncio.run(main(*sys.argv[1:]))
"""
# What a statement of the release before needs, a line each.
_OFFERS = """
select format('%s.%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'quash'::regnamespace and c.relkind in ('r', 'p', 'v') and a.attnum > 0 and not a.attisdropped
union all
select format('%s(%s) %s', p.proname, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid))
from pg_proc p where p.pronamespace = 'quash'::regnamespace and p.prorettype <> 'trigger'::regtype
union all
select format('%s may %s %s.%s', grantee, privilege_type, table_name, column_name)
from information_schema.column_privileges where table_schema = 'quash' and grantee <> 'quash_owner'
union all
select format('%s may %s %s', grantee, privilege_type, table_name)
from information_schema.table_privileges
where table_schema = 'quash' and grantee <> 'quash_owner' and privilege_type = 'DELETE'
union all
select format('%s may call %s', grantee, routine_name)
from information_schema.routine_privileges where routine_schema = 'quash' and grantee <> 'quash_owner'
"""
# What may refuse it, with the table that it is about.
_DEMANDS = """
select c.relname, format('%s.%s not null', c.relname, a.attname)
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'quash'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
    and a.attnotnull and not a.atthasdef and a.attidentity = ''
union all
select c.relname, format('%s: %s', c.relname, pg_get_constraintdef(x.oid))
from pg_constraint x join pg_class c on c.oid = x.conrelid
where x.connamespace = 'quash'::regnamespace and x.contype in ('c', 'f', 'u', 'x')
union all
select tablename, format('%s: %s', tablename, indexdef) from pg_indexes
where schemaname = 'quash' and indexdef like 'CREATE UNIQUE %'
union all
select c.relname, format('%s: %s', c.relname, pg_get_triggerdef(t.oid))
from pg_trigger t join pg_class c on c.oid = t.tgrelid
where c.relnamespace = 'quash'::regnamespace and not t.tgisinternal
"""
_TABLES = "select relname from pg_class where relnamespace = 'quash'::regnamespace and relkind in ('r', 'p')"

TAKEN_AWAY = {
    "quash_issuing may INSERT lint_result.id": "an identity: always given by the database",
}
"""What this release no longer offers, and why the one before does without it."""
DEMANDED = {
    "lint_result: CHECK ((num_nonnulls(order_id, serial) = 1)) NOT VALID": "its rows have an order_id and no serial",
    "validated_identifier: CHECK ((kind = ANY (ARRAY['dns'::text, 'email'::text, 'organization'::text,"
    " 'person'::text])))": "it knows the first three",
}
"""What this release demands in addition, and why all that the one before writes satisfies it."""


@dataclass(frozen=True)
class Schema:
    tables: set[str]
    offers: set[str]
    demands: set[tuple[str, str]]
    """Table, and what of it."""


async def read(conn: Connection) -> Schema:
    tables, offers = [{row[0] for row in await conn.fetch(sql)} for sql in (_TABLES, _OFFERS)]
    return Schema(tables, offers, {tuple(row) for row in await conn.fetch(_DEMANDS)})


@pytest.fixture
async def both(database: Database, tmp_path: Path) -> tuple[Schema, Schema]:
    """The schema as the release before makes it, and as this one does."""
    conn = await database.connection()
    this = await read(conn)
    await conn.execute("drop schema quash cascade")
    said_by(unpack(tmp_path), _MIGRATE, str(database.state.root), database.config.database.url)
    return await read(conn), this


async def test_nothing_is_taken_away_and_nothing_demanded(both: tuple[Schema, Schema]) -> None:
    """Tables, columns with their types, functions and rights stay; what refuses rows of known tables is explained."""
    before, this = both
    assert before.offers - this.offers == set(TAKEN_AWAY)
    assert {what for table, what in this.demands - before.demands if table in before.tables} == set(DEMANDED)
