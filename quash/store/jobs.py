"""Jobs: durable, resumable work. The one kind so far is `siblings`: revoke all certificates of a compromised key."""

from __future__ import annotations

from dataclasses import dataclass

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class Job:
    """One job; `reason` as CRLReason, times in Unix seconds, `act_id` the act that caused it.

    `total` and `done` count certificates; `done` includes the first batch, which committed with the job itself.
    """

    id: int
    kind: str
    state: str
    spki_sha256: bytes
    reason: int
    revoked_at: int
    total: int
    done: int
    act_id: int
    created_at: int
    updated_at: int


_COLUMNS = "id, kind, state, spki_sha256, reason, revoked_at, total, done, act_id, created_at, updated_at"


async def add(
    conn: Connection,
    *,
    spki_sha256: bytes,
    reason: int,
    revoked_at: int,
    total: int,
    done: int,
    act_id: int,
    created_at: int,
) -> Job:
    """Adds a running job and hints its runner, both with the commit of the transaction."""
    row = await conn.fetchrow(
        "insert into job (kind, state, spki_sha256, reason, revoked_at, total, done, act_id, created_at, updated_at)"
        f" values ('siblings', 'running', $1, $2, $3, $4, $5, $6, $7, $7) returning {_COLUMNS}",
        spki_sha256,
        reason,
        revoked_at,
        total,
        done,
        act_id,
        created_at,
    )
    await conn.execute("select pg_notify('job', '')")
    return Job(**row)


async def running(conn: Connection) -> list[Job]:
    """Unfinished jobs, oldest first."""
    rows = await conn.fetch(f"select {_COLUMNS} from job where state = 'running' order by id")
    return [Job(**row) for row in rows]


async def page(conn: Connection, before: int | None, limit: int) -> list[Job]:
    """Jobs below a number, newest first."""
    rows = await conn.fetch(
        f"select {_COLUMNS} from job where $1::bigint is null or id < $1 order by id desc limit $2", before, limit
    )
    return [Job(**row) for row in rows]


async def get_running_for_update(conn: Connection, job_id: int) -> Job | None:
    """The job, locked until the transaction ends; None: it is done, or another runner works on it."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from job where id = $1 and state = 'running' for update skip locked",
        job_id,
    )
    return Job(**row) if row else None


async def advance(conn: Connection, job_id: int, *, by: int, finished: bool, at: int) -> None:
    """Counts what one batch did, in that batch's transaction."""
    await conn.execute(
        "update job set done = done + $2, state = case when $3 then 'done' else state end, updated_at = $4"
        " where id = $1",
        job_id,
        by,
        finished,
        at,
    )


async def covers_key(conn: Connection, spki_sha256: bytes, *, reason: int, revoked_at: int) -> bool:
    """Whether a running job will reach every certificate of this key with this reason and at least as early a date."""
    found = await conn.fetchval(
        "select exists (select from job where state = 'running' and spki_sha256 = $1 and reason = $2"
        " and revoked_at <= $3)",
        spki_sha256,
        reason,
        revoked_at,
    )
    return bool(found)


async def find_by_act(conn: Connection, act_id: int) -> Job | None:
    """The job that an act caused."""
    row = await conn.fetchrow(f"select {_COLUMNS} from job where act_id = $1", act_id)
    return Job(**row) if row else None


async def of_key(conn: Connection, spki_sha256: bytes) -> list[Job]:
    """The jobs for a key, oldest first."""
    rows = await conn.fetch(f"select {_COLUMNS} from job where spki_sha256 = $1 order by id", spki_sha256)
    return [Job(**row) for row in rows]
