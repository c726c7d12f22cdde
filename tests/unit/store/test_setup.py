"""`quash init` on any PostgreSQL: through `database.url`, with rights to make roles and nothing more."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from quash.errors import QuashError
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store import roles
from quash.store.database import connect_once
from quash.store.embedded import SUPERUSER, EmbeddedPostgres
from quash.store.migrate import shipped
from quash.store.passwords import ensure_password, password_file, read_password
from quash.store.setup import set_up
from tests.support.postgres import folder_for_servers


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A server that Quash does not run, and its administrator's account, which is no superuser."""

    socket: Path

    def config(self, database: str, *, owner: bool = True) -> Config:
        where = f"?host={self.socket}&port=5432"
        url = {"url": f"postgresql:///{database}{where}"}
        password = self.socket.parent / "dba.password"
        password.write_text("dba\n")
        owned = {"owner_url": f"postgresql://dba@/postgres{where}", "owner_password_file": password} if owner else {}
        return Config.model_validate({"database": {**url, **owned}})


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    """A fresh server of somebody else's."""
    with folder_for_servers() as folder:
        state = State(folder)
        postgres = EmbeddedPostgres(state, settings={"fsync": "off"})
        with postgres.run():
            asyncio.run(_add_administrator(state))
            yield Elsewhere(postgres.socket_folder)


async def _add_administrator(state: State) -> None:
    admin = await asyncpg.connect(
        host=str(state.run / "pg"), user=SUPERUSER, password=read_password(state, SUPERUSER), database="postgres"
    )
    await admin.execute("create role dba with login createrole createdb password 'dba'")
    await admin.close()


async def test_a_server_of_somebody_elses_is_set_up_and_again_without_change(
    elsewhere: Elsewhere, tmp_path: Path, clock: FakeClock
) -> None:
    """Database, roles, passwords and schema are made with CREATEROLE and CREATEDB; a second run finds all in place."""
    state, config = State(tmp_path), elsewhere.config("status")
    assert await set_up(config, state, clock) == list(shipped())
    passwords = {role: read_password(state, role) for role in roles.ROLES}
    assert await set_up(config, state, clock) == []
    assert {role: read_password(state, role) for role in roles.ROLES} == passwords
    assert len(set(passwords.values())) == len(roles.ROLES)
    conn = await connect_once(config, state, roles.FOLLOWER)
    assert await conn.fetchval("select count(*) from feed") == 0
    assert await conn.fetchval("select current_database()") == "status"
    await conn.close()


async def test_with_roles_in_place_the_owners_password_is_enough(
    elsewhere: Elsewhere, tmp_path: Path, clock: FakeClock
) -> None:
    """Without `owner_url` only the schema is brought up to date, by quash_owner."""
    state = State(tmp_path)
    await set_up(elsewhere.config("status"), state, clock)
    assert await set_up(elsewhere.config("status", owner=False), state, clock) == []


async def test_nobody_else_may_connect_to_the_database(elsewhere: Elsewhere, tmp_path: Path, clock: FakeClock) -> None:
    """CONNECT is taken from PUBLIC: another application's role on the same server stays outside."""
    config = elsewhere.config("status")
    await set_up(config, State(tmp_path), clock)
    dba = await asyncpg.connect(config.database.owner_url, password="dba")
    await dba.execute("create role stranger with login password 'stranger'")
    await dba.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(config.database.url, user="stranger", password="stranger")


async def test_a_lost_password_file_is_made_anew(elsewhere: Elsewhere, tmp_path: Path, clock: FakeClock) -> None:
    """`init` makes a new password and gives the server its verifier."""
    state, config = State(tmp_path), elsewhere.config("status")
    await set_up(config, state, clock)
    password_file(state, roles.ADMIN).unlink()
    await set_up(config, state, clock)
    conn = await connect_once(config, state, roles.ADMIN)
    assert await conn.fetchval("select current_user") == roles.ADMIN
    await conn.close()


async def test_a_missing_database_says_who_makes_it(elsewhere: Elsewhere, tmp_path: Path, clock: FakeClock) -> None:
    """The roles are there, the database is not, and nobody with the right to make one was named."""
    state = State(tmp_path)
    await set_up(elsewhere.config("status"), state, clock)
    with pytest.raises(QuashError, match="owner_url") as refused:
        await set_up(elsewhere.config("missing", owner=False), state, clock)
    assert refused.value.code == "store.no_database"


async def test_a_server_that_is_too_old_is_refused(
    elsewhere: Elsewhere, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any migration: their SQL would fail halfway, with words that help nobody."""
    monkeypatch.setattr("quash.store.setup._OLDEST", 99)
    with pytest.raises(QuashError, match="needs version 99") as refused:
        await set_up(elsewhere.config("old"), State(tmp_path), clock)
    assert refused.value.code == "store.server_too_old"
    owner = await connect_once(elsewhere.config("old"), State(tmp_path), roles.OWNER)
    assert await owner.fetchval("select count(*) from pg_tables where schemaname = 'quash'") == 0
    await owner.close()


@pytest.mark.parametrize(
    ("database", "code"),
    [
        (
            {
                "url": "postgresql:///?host={socket}",
                "owner_url": "postgresql://dba@/postgres?host={socket}",
                "owner_password_file": "{socket}/../dba.password",
            },
            "store.url_without_database",
        ),
        ({"url": "postgresql:///status?host={socket}"}, "store.login_refused"),
        ({"url": "postgresql:///x?host={socket}/nowhere"}, "store.unavailable"),
        (
            {
                "url": "postgresql:///x?host={socket}",
                "owner_url": "postgresql://dba@/postgres?host={socket}",
                "owner_password_file": "/dev/null/missing",
            },
            "store.owner_password",
        ),
        (
            {"url": "postgresql:///x?host={socket}", "owner_url": "postgresql://dba@/postgres?host={socket}"},
            "store.login_refused",
        ),
    ],
)
async def test_what_cannot_work_says_so(
    elsewhere: Elsewhere, tmp_path: Path, clock: FakeClock, database: dict[str, str], code: str
) -> None:
    """Each with its code, and nothing is made."""
    state = State(tmp_path)
    ensure_password(state, roles.OWNER)
    settings: dict[str, Any] = {key: value.format(socket=elsewhere.socket) for key, value in database.items()}
    with pytest.raises(QuashError) as refused:
        await set_up(Config.model_validate({"database": settings}), state, clock)
    assert refused.value.code == code


@pytest.mark.parametrize("url", ["postgresql://dba:secret@/x", "postgresql:///x?user=dba&password=secret"])
@pytest.mark.parametrize("key", ["url", "owner_url"])
def test_a_password_in_a_url_is_refused(key: str, url: str) -> None:
    """Secrets come from files, since arguments and configurations are read by many; the error repeats none."""
    with pytest.raises(ValueError, match="no password"):
        Config.model_validate({"database": {key: url}})
