"""Leases: at most one holder acts under a name, proven without any wall clock.

Holding is a session's advisory lock, which PostgreSQL frees when it loses the session. A holder that was paused may not
have noticed; so each acquisition also raises the name's fence, and each transaction under the lease compares it:

* `check` locks the row for share until the transaction ends, so a new holder's raise waits for it: whatever was
  checked before the raise commits before the new holder begins.
* After the raise, `check` of the old holder sees another fence, and its transaction fails.

Hence all writes of one holder are committed, or never will be, before those of the next begin.
"""

from __future__ import annotations

import hashlib
from typing import Self

from quash.errors import Kind, QuashError
from quash.store.database import Connection, Pool, connecting, is_lost, translated


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
        if not await session.fetchval("select pg_try_advisory_lock($1)", _key(name)):
            return None
        fence = await session.fetchval(
            "insert into lease (name, fence) values ($1, 1)"
            " on conflict (name) do update set fence = lease.fence + 1 returning fence",
            name,
        )
        return cls(session, name, fence)

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

    async def look(self, conn: Connection) -> None:
        """As `check`, of this moment alone and without a lock: for one who writes nothing. Raises `lease.lost`."""
        if await conn.fetchval("select fence from lease where name = $1", self.name) != self.fence:
            raise _taken(self.name)

    async def release(self) -> None:
        """Gives the lease back; the fence stays spent."""
        if not self.lost:
            with translated():
                await self._session.execute("select pg_advisory_unlock($1)", _key(self.name))


class Holder:
    """Keeps a lease for one component: takes it when it is free, on a session of its own out of the pool."""

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool = pool
        self._name = name
        self._session: Connection | None = None
        self._lease: Lease | None = None

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
        return self._lease

    async def let_go(self) -> None:
        """Gives up lease and session, for example after `lease.lost`."""
        session, self._session, self._lease = self._session, None, None
        if session is not None:
            with translated():
                await self._pool.release(session)  # which frees the session's advisory locks


def _taken(name: str) -> QuashError:
    return QuashError("lease.lost", f"another process holds the lease {name} by now", Kind.CONFLICT)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(b"quash.lease:" + name.encode()).digest()[:8], "big", signed=True)
