"""Leases: at most one holder acts under a name, proven without any wall clock.

Holding is a session's advisory lock, which PostgreSQL frees when it loses the session. A holder that was paused may not
have noticed; so each acquisition also raises the name's fence, and each transaction under the lease compares it:

* `check` locks the row for share until the transaction ends, so a new holder's raise waits for it: whatever was
  checked before the raise commits before the new holder begins.
* After the raise, `check` of the old holder sees another fence, and its transaction fails.

Hence all writes of one holder are committed, or never will be, before those of the next begin.

A holder whose process or machine stands still, or is cut off, must not keep the lease: a stopped process still has a
kernel that answers for its connection. So the holder says something every few seconds, and the server itself ends a
session of which it hears nothing for `SILENCE`. A transaction that such a holder left open under its fence is given
`STRAGGLING` more, then the next holder ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Final, Self

import asyncpg

from quash.errors import Kind, QuashError
from quash.store.database import Connection, Pool, connecting, is_lost, owe, paid, translated

SILENCE: Final = 30.0
"""Seconds after which the server ends the session of a holder that says nothing."""
STRAGGLING: Final = 10.0
"""Seconds that the next holder waits for a transaction of the one before."""
_BEAT: Final = 5.0
HELD: Final = "with held as (select from lease where name = $1 and fence = $2 for share)"
"""Begins a statement for `Lease.write`: `held` has one row while the lease holds, and none after."""


class Lease:
    """The lease `name`, held by a session; `fence` is greater than that of every holder before."""

    def __init__(self, session: Connection, name: str, fence: int) -> None:
        self._session = session
        self.name = name
        self.fence = fence

    @classmethod
    async def acquire(cls, session: Connection, name: str) -> Self | None:
        """Takes the lease for as long as `session` lives; None: another one holds it. Never waits for its holder.

        The session is the caller's and stays outside of transactions here; a session pooled by the server will not do.
        """
        owe(session)
        # In one statement: who stops right after it must not have a lock without an end.
        taken = await session.fetchval(
            "select case when pg_try_advisory_lock($1)"
            " then set_config('idle_session_timeout', $2, false) is not null else false end",
            _key(name),
            _milliseconds(SILENCE),
        )
        if not taken:
            paid(session)
            return None
        while (fence := await cls._raise_fence(session, name)) is None:
            # Of our role, and with a lock on a fence: what the holder before left. It is no holder any more.
            await session.execute(
                "select pg_terminate_backend(pid, 5000) from pg_locks join pg_stat_activity using (pid)"
                " where relation = 'lease'::regclass and mode = 'RowShareLock' and usename = current_user"
                " and pid <> pg_backend_pid()"
            )
        return cls(session, name, fence)

    @staticmethod
    async def _raise_fence(session: Connection, name: str) -> int | None:
        """The new fence; None when a transaction under the old one does not end."""
        try:
            async with session.transaction():
                await session.execute(f"set local lock_timeout = {_milliseconds(STRAGGLING)}")
                fence: int = await session.fetchval(
                    "insert into lease (name, fence) values ($1, 1)"
                    " on conflict (name) do update set fence = lease.fence + 1 returning fence",
                    name,
                )
                return fence
        except asyncpg.LockNotAvailableError:
            return None

    async def keep(self) -> None:
        """Says something now and then, until the session is gone or the task that does this is cancelled.

        It ends the session when no answer comes: the server does so too, and we know of it before.
        """
        while not self.lost:
            await asyncio.sleep(_BEAT)
            try:
                await self._session.execute("select 1", timeout=_BEAT)
            except BaseException as error:  # cancelled in the middle of it as well: nobody else can use it then
                with contextlib.suppress(asyncpg.InterfaceError):
                    self._session.terminate()
                if not isinstance(error, Exception):
                    raise
                return

    @property
    def lost(self) -> bool:
        """Whether we know already that the session is gone; only `check` is proof that it is not."""
        return is_lost(self._session)

    async def check(self, conn: Connection) -> None:
        """Proves, in the caller's transaction and until it ends, that the lease holds; raises `lease.lost`.

        `conn` may be any connection, but must be in a transaction at the isolation level read committed.
        """
        if not conn.is_in_transaction():
            raise RuntimeError("a lease is checked inside the transaction that it protects")
        if await conn.fetchval("select fence from lease where name = $1 for share", self.name) != self.fence:
            raise _taken(self.name)

    async def write(self, conn: Connection, statement: str, *arguments: object) -> None:
        """What `check` and a statement do in a transaction, in one question; raises `lease.lost`, nothing is written.

        `statement`: `HELD`, CTEs that write what they select from `held`, and a select from it; `arguments` from $3 on.
        """
        if await conn.fetchrow(statement, self.name, self.fence, *arguments) is None:
            raise _taken(self.name)

    async def look(self, conn: Connection) -> None:
        """As `check`, of this moment alone and without a lock: for one who writes nothing. Raises `lease.lost`."""
        if await conn.fetchval("select fence from lease where name = $1", self.name) != self.fence:
            raise _taken(self.name)

    async def release(self) -> None:
        """Gives the lease back; the fence stays spent."""
        if not self.lost:
            with translated():
                await self._session.execute("reset idle_session_timeout")
                await self._session.execute("select pg_advisory_unlock($1)", _key(self.name))
                paid(self._session)


class Holder:
    """Keeps a lease for one component: takes it when it is free, on a session of its own out of the pool."""

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool = pool
        self._name = name
        self._session: Connection | None = None
        self._lease: Lease | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._offers = False

    async def hold(self) -> Lease | None:
        """The lease, when it is ours or can be had now. Raises `store.unavailable`."""
        if self._lease is not None and self._lease.lost:
            await self.let_go()
        if self._lease is None:
            with connecting():
                self._session = self._session or await self._pool.acquire()
                try:
                    self._lease = await Lease.acquire(self._session, self._name)
                except BaseException:
                    await self.let_go()
                    raise
            if self._lease is not None:
                await self.offer(ready=False)
                self._keeping = asyncio.create_task(self._lease.keep())
        return self._lease

    async def offer(self, *, ready: bool) -> None:
        """Tells the lease's holder whether this one, which stands by, could do its work: with a lock that it shares.

        So it ends with the session, like the lease; without a session nothing is told. Raises `store.unavailable`.
        """
        if self._session is None or ready == self._offers:
            return
        with translated():
            if ready:
                owe(self._session)
                self._offers = await self._session.fetchval(
                    "select pg_try_advisory_lock_shared($1)", _offer(self._name)
                )
            else:
                await self._session.execute("select pg_advisory_unlock_shared($1)", _offer(self._name))
                self._offers = False
            if not self._offers:
                paid(self._session)

    async def relieved(self, conn: Connection) -> bool:
        """Whether another one offers to take over. It may be gone by the time that we have gone."""
        return bool(
            await conn.fetchval(
                "select exists (select from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and granted"
                " and database = (select oid from pg_database where datname = current_database())"
                " and (classid::bigint << 32) | objid::bigint = $1 and objsubid = 1)",
                _offer(self._name),
            )
        )

    async def let_go(self) -> None:
        """Gives up lease and session, for example after `lease.lost`."""
        session, self._session, self._lease = self._session, None, None
        self._offers = False
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        if session is not None:
            with translated():
                await self._pool.release(session)  # which frees the session's advisory locks


def _taken(name: str) -> QuashError:
    return QuashError("lease.lost", f"another process holds the lease {name} by now", Kind.CONFLICT)


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


def _offer(name: str) -> int:
    return _key(f"{name} offered")


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(b"quash.lease:" + name.encode()).digest()[:8], "big", signed=True)
