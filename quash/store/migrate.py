"""Brings the schema `quash` up to date: numbered SQL files, each applied once, in one transaction, by the owner.

Files are never edited once released: the SHA-256 of each applied one is kept and compared. A change goes in two
releases (expand, then contract), so that the processes of the release before keep working beside the new schema.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from quash.errors import Kind, QuashError
from quash.store.database import SCHEMA, Connection
from quash.store.roles import RIGHTS, Rights, apply_rights

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_LOCK = int.from_bytes(hashlib.sha256(b"quash.migrate").digest()[:8], "big", signed=True)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `0001_foundation.sql` has version 1 and name foundation."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.sql.encode()).digest()


def shipped() -> tuple[Migration, ...]:
    """The migrations of this release, in order."""
    found = []
    for entry in resources.files("quash.store.migrations").iterdir():
        if match := _FILE.fullmatch(entry.name):
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


async def migrate(
    owner: Connection, at: int, *, migrations: Sequence[Migration] | None = None, rights: Mapping[str, Rights] = RIGHTS
) -> list[Migration]:
    """Applies what is missing, then the rights of the roles; returns what it applied. `at` is Unix seconds.

    Runs of several machines wait for each other. Raises, with nothing changed: `store.migration_changed` when an
    applied file was edited, `store.schema_newer` when the database knows a migration that this release does not,
    `store.migration_out_of_order` when a new file has a lower number than an applied one.
    """
    wanted = shipped() if migrations is None else tuple(migrations)
    await owner.execute("select pg_advisory_lock($1)", _LOCK)
    try:
        await owner.execute(f"create schema if not exists {SCHEMA}")
        await owner.execute(
            "create table if not exists schema_migration"
            " (version integer primary key, name text not null, sha256 bytea not null, applied_at bigint not null)"
        )
        missing = await _missing(owner, wanted)
        for migration in missing:
            await _apply(owner, migration, at)
        await apply_rights(owner, rights)
        return missing
    finally:
        await owner.execute("select pg_advisory_unlock($1)", _LOCK)


async def _missing(owner: Connection, wanted: Sequence[Migration]) -> list[Migration]:
    applied = {
        row["version"]: row
        for row in await owner.fetch("select version, name, sha256 from schema_migration order by 1")
    }
    by_version = {migration.version: migration for migration in wanted}
    for version, row in applied.items():
        if version not in by_version:
            raise _refusal("schema_newer", version, row["name"], "is of a newer release: run that release")
        if by_version[version].sha256 != row["sha256"]:
            raise _refusal(
                "migration_changed", version, row["name"], "was edited after it was applied: restore the file"
            )
    missing = [migration for migration in wanted if migration.version not in applied]
    if missing and applied and missing[0].version < max(applied):
        raise _refusal(
            "migration_out_of_order", missing[0].version, missing[0].name, "comes before an applied one: renumber it"
        )
    return missing


async def _apply(owner: Connection, migration: Migration, at: int) -> None:
    async with owner.transaction():
        await owner.execute(migration.sql)
        await owner.execute(
            "insert into schema_migration (version, name, sha256, applied_at) values ($1, $2, $3, $4)",
            migration.version,
            migration.name,
            migration.sha256,
            at,
        )


def _refusal(code: str, version: int, name: str, why: str) -> QuashError:
    return QuashError(f"store.{code}", f"migration {version:04d}_{name} {why}", Kind.REFUSED)
