"""Connections: each process has one pool, of its own least-privilege role.

Every connection looks names up in the schema `quash` alone, commits synchronously (`quash.store.news` relies on it) and
is closed by the server when a transaction idles for a minute, since an open transaction holds every reader's position
back. Over a network, both ends notice within half a minute that the other is gone, whatever their systems' settings.
Types: xid8 is int, pg_snapshot is (xmin, xmax, running), jsonb is Python values by orjson, numeric is Decimal.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, TypeAlias, cast

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from quash.errors import Kind, QuashError
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.passwords import read_password

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
Pool: TypeAlias = asyncpg.Pool

SCHEMA = "quash"
EMBEDDED_DATABASE = "quash"

# Of a connection over a network, at both ends: idle for so long, then probed so often; unacknowledged for so long.
_IDLE, _BETWEEN, _PROBES, _UNACKNOWLEDGED = 15, 5, 3, 30  # seconds, and a count
_SOCKET_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _BETWEEN),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED * 1000),
)
_CONNECT_WITHIN = 10.0  # seconds, each host of the URL

_SETTINGS = {
    # pg_temp last: it is searched first when it is not named.
    "search_path": f"{SCHEMA}, pg_temp",
    "timezone": "UTC",
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "60s",
    # The server's own end; it has no meaning on a Unix socket, and is not looked at there.
    "tcp_keepalives_idle": f"{_IDLE}",
    "tcp_keepalives_interval": f"{_BETWEEN}",
    "tcp_keepalives_count": f"{_PROBES}",
    "tcp_user_timeout": f"{_UNACKNOWLEDGED}s",
    "jit": "off",  # compiling costs more than our short statements take
}

# The database is away, starting, stopping or full, or it had to choose between two of us: nothing of this call's
# transaction stands, and the same call may succeed later.
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # disk, memory or connections
    asyncpg.PostgresIOError,
    asyncpg.TransactionRollbackError,  # a deadlock, or a serialization failure
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a failover made this server a standby
    asyncpg.InternalClientError,  # the server's farewell crossed our query
)
_CLOSED = (
    "connection is closed",
    "connection has been closed",
    "connection was closed",
    "connection has been released",
    "pool is clos",  # this process is ending, and a request of it still works
)


def target(config: Config, state: State) -> dict[str, Any]:
    """asyncpg's arguments that name the server and the database, without user or password."""
    if config.database.url:
        return {"dsn": config.database.url}
    return {"host": str(state.run / "pg"), "port": 5432, "database": EMBEDDED_DATABASE}


async def connect(config: Config, state: State, role: str, *, size: int | None = None) -> Pool:
    """Opens the pool of a role, which replaces lost connections by itself.

    The password is read from the role's file in the state folder. `size` overrides `database.pool_size`.
    Raises `store.unavailable` when no server answers, `store.login_refused`, `store.no_database`, and
    `store.password_missing`.
    """
    with connecting():
        return await asyncpg.create_pool(
            **target(config, state),
            **_login(state, role),
            connect=_open,
            connection_class=Session,
            reset=_reset,
            min_size=1,
            max_size=size or config.database.pool_size,
        )


_RESET: Final = "select pg_advisory_unlock_all(); reset idle_session_timeout"


class Session(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """asyncpg's connection, which knows whether it has what whoever gets it next from the pool must not inherit.

    That are advisory locks and one setting alone (`quash.store.leases`): no cursor of ours outlives its transaction.
    So few sessions are put in order, and not each one as asyncpg would, which costs as much as many a question.
    """

    __slots__ = ("_owed", "locks")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._owed = 0
        self.locks: list[tuple[int, bool]] = []
        """Advisory locks that it may have: number, and whether shared, as often as it took them (`store.locks`)."""

    def owe(self) -> None:
        """To be called before something is taken that outlives the transaction."""
        self._owed += 1

    def paid(self) -> None:
        """Once it was given back, and the server said so: whoever is cut off in between still owes it."""
        self._owed -= 1

    async def settle(self) -> None:
        if self._owed:
            await self.execute(_RESET)
            self._owed = 0
            self.locks.clear()


async def _reset(session: Session) -> None:
    await session.settle()


def owe(conn: Connection) -> None:
    """`Session.owe`, of a connection as `connect` and `connect_once` make them; one that is gone owes nothing."""
    if not is_lost(conn):
        cast("Session", conn).owe()


def paid(conn: Connection) -> None:
    """`Session.paid`, likewise."""
    if not is_lost(conn):
        cast("Session", conn).paid()


def locks_of(conn: Connection) -> list[tuple[int, bool]]:
    """`Session.locks`, likewise: one that is gone has none."""
    return [] if is_lost(conn) else cast("Session", conn).locks


async def connect_once(config: Config, state: State, role: str, **overrides: Any) -> asyncpg.Connection:
    """Opens one connection outside of any pool, for a session that must live long (LISTEN, a lease) or a command."""
    with connecting():
        return await _open(**{**target(config, state), **_login(state, role, init=False), **overrides})


async def _open(*arguments: Any, **named: Any) -> asyncpg.Connection:
    """`asyncpg.connect`, whose connection ends soon after its server is out of reach, also while nothing is asked."""
    conn = await asyncpg.connect(*arguments, **{"timeout": _CONNECT_WITHIN, "connection_class": Session, **named})
    sock = conn._transport.get_extra_info("socket")  # asyncpg has no other way to it
    if sock.family != socket.AF_UNIX:
        for level, option, value in _SOCKET_OPTIONS:
            sock.setsockopt(level, option, value)
    return conn


class acquire:  # noqa: N801 - used as the function that it would be, were it asked less often
    """A connection of the pool; whatever ends because the database is lost raises `store.unavailable`.

    What was committed stays so: a database that is lost while the connection goes back is nobody's error.
    """

    __slots__ = ("_conn", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Connection:
        with connecting():
            self._conn = await self._pool.acquire()
        return self._conn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(QuashError), translated():  # the pool throws such a connection away
            await self._pool.release(self._conn)
        if isinstance(error, Exception) and (told := _translation(error)) is not None:
            raise told from error


def is_lost(conn: Connection) -> bool:
    """Whether we know already that a connection is gone.

    A pool takes a broken connection back by itself; what it had handed out for it then refuses every question.
    """
    try:
        return bool(conn.is_closed())
    except asyncpg.InterfaceError:
        return True


@contextmanager
def connecting() -> Iterator[None]:
    """`translated`, and also what the system says when nobody answers."""
    try:
        with translated():
            yield
    except OSError as error:  # TimeoutError is one
        raise _unavailable(error) from error


@contextmanager
def translated() -> Iterator[None]:
    """Raises `store.unavailable` for errors of a lost database; every other error passes unchanged."""
    try:
        yield
    except Exception as error:
        if (told := _translation(error)) is None:
            raise
        raise told from error


def _translation(error: Exception) -> QuashError | None:
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return QuashError("store.login_refused", f"the database refuses us: {error}", Kind.UNAVAILABLE)
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        said = f"{error}: run `quash init` with database.owner_url, or make it"
        return QuashError("store.no_database", said, Kind.UNAVAILABLE)
    # Of the interface's errors, most are mistakes of the caller.
    closed = isinstance(error, asyncpg.InterfaceError) and any(words in str(error) for words in _CLOSED)
    return _unavailable(error) if closed or isinstance(error, _LOST) else None


def _unavailable(error: Exception) -> QuashError:
    said = str(error) or type(error).__name__
    return QuashError("store.unavailable", f"the database is not available: {said}", Kind.UNAVAILABLE)


def _login(state: State, role: str, *, init: bool = True) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "user": role,
        "password": read_password(state, role),
        "server_settings": {**_SETTINGS, "application_name": role},
    }
    return {**arguments, "init": set_codecs} if init else arguments


async def set_codecs(conn: Connection) -> None:
    """Makes jsonb Python values on this connection."""
    await conn.set_type_codec("jsonb", schema="pg_catalog", encoder=_dump, decoder=orjson.loads, format="text")


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()
