"""Makes the database fit for use: database, roles, schema. `quash init` calls it; again changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg

from quash.errors import Kind, QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.database import EMBEDDED_DATABASE, connect_once, connecting
from quash.store.embedded import SUPERUSER
from quash.store.migrate import Migration, migrate
from quash.store.passwords import read_password
from quash.store.roles import OWNER, create_roles, quoted

_OLDEST = 15
"""Major version of PostgreSQL that our SQL needs."""
_NEW_DATABASE = "template template0 encoding 'UTF8' locale 'C'"  # C: indexes do not depend on the system's locales


async def set_up(config: Config, state: State, clock: Clock) -> list[Migration]:
    """Makes what is missing on a running server and returns the migrations it applied.

    With `database.url` and no `database.owner_url`, roles and database must exist and the password files be in place.
    Raises `store.server_too_old` with nothing changed but those.
    """
    admin = _admin(config, state)
    if admin is not None:
        await _make_database(config, state, admin)
    owner = await connect_once(config, state, OWNER)
    try:
        _check_version(owner)
        return await migrate(owner, int(clock.now()))
    finally:
        await owner.close()


def _check_version(conn: asyncpg.Connection) -> None:
    found = conn.get_server_version()
    if found.major < _OLDEST:
        raise QuashError(
            "store.server_too_old",
            f"the server is PostgreSQL {found.major}: database.url needs version {_OLDEST} or newer",
            Kind.REFUSED,
        )


def _admin(config: Config, state: State) -> dict[str, Any] | None:
    if config.database.owner_url:
        return {"dsn": config.database.owner_url, "password": _owner_password(config.database.owner_password_file)}
    if config.database.url:
        return None
    return {
        "host": str(state.run / "pg"),
        "user": SUPERUSER,
        "password": read_password(state, SUPERUSER),
        "database": "postgres",
    }


def _owner_password(path: Path | None) -> str | None:
    """The first line of the file; none: the server lets the role in without."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        raise QuashError(
            "store.owner_password",
            f"{path} (database.owner_password_file) cannot be read or is empty",
            Kind.UNAVAILABLE,
        ) from None


async def _make_database(config: Config, state: State, arguments: dict[str, Any]) -> None:
    name = _database_name(config)
    with connecting():
        admin = await asyncpg.connect(**arguments)
    try:
        if not await admin.fetchval("select true from pg_database where datname = $1", name):
            await admin.execute(f"create database {quoted(name)} {_NEW_DATABASE}")
        await create_roles(admin, state, name)
    finally:
        await admin.close()


def _database_name(config: Config) -> str:
    if not config.database.url:
        return EMBEDDED_DATABASE
    name = unquote(urlsplit(config.database.url).path.lstrip("/"))
    if not name:
        raise QuashError("store.url_without_database", "database.url must end in /<database>")
    return name
