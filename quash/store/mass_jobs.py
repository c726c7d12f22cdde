"""Mass revocations: their state, the set of certificates that each is about, and how far it is.

draft (a list is being sent) -> gathering (the job runner completes the set) -> ready (it is fixed, with its hash and a
preview) -> running <-> paused -> done; aborted from any state but done. What is revoked stays revoked (C16).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quash.store.database import Connection
from quash.store.mass_sets import Cursor, Key


@dataclass(frozen=True, slots=True)
class MassJob:
    """One job; times in Unix seconds, `reason` as CRLReason. What gathering finds is None before.

    `selection`: `{"list": true}`, `{"spki_sha256": hex}`, `{"case": number}`, `{"filter": fields of Wanted}` or
    `{"issuer": name, "after": seconds, "before": seconds}`.
    `done` counts certificates that were dealt with, `changed` those of them whose status did change, `exempt` those of
    the set that are left out. Pace: `max_per_second` or `finish_by`; no batch before `next_at`.
    """

    id: int
    state: str
    selection: dict[str, Any]
    reason: int
    revoked_at: int | None
    act_id: int
    created_at: int
    listed: int | None
    total: int | None
    sha256: bytes | None
    preview: dict[str, Any] | None
    start_act_id: int | None
    after_issuer: int
    after_rank: int
    after_serial: bytes
    done: int
    changed: int
    per_second: float | None
    updated_at: int
    max_per_second: float | None
    finish_by: int | None
    next_at: float
    exempt: int

    @property
    def cursor(self) -> Cursor:
        return self.after_issuer, self.after_rank, self.after_serial

    @property
    def seconds_left(self) -> float | None:
        """Until all is revoked, at the rate of its last batches; None: not running, or no rate yet."""
        if self.state != "running" or not self.per_second or self.total is None:
            return None
        return (self.total - self.done) / self.per_second


_COLUMNS = (
    "id, state, selection, reason, revoked_at, act_id, created_at, listed, total, sha256, preview, start_act_id,"
    " after_issuer, after_rank, after_serial, done, changed, per_second, updated_at,"
    " max_per_second, finish_by, next_at, exempt"
)


async def add(
    conn: Connection,
    *,
    state: str,
    selection: Mapping[str, Any],
    reason: int,
    revoked_at: int | None,
    act_id: int,
    now: int,
    max_per_second: float | None = None,
    finish_by: int | None = None,
) -> MassJob:
    """Adds a job in state draft or gathering, and hints the job runner at commit."""
    row = await conn.fetchrow(
        "insert into mass_job (state, selection, reason, revoked_at, act_id, created_at, updated_at, max_per_second,"
        f" finish_by) values ($1, $2, $3, $4, $5, $6, $6, $7, $8) returning {_COLUMNS}",
        state,
        dict(selection),
        reason,
        revoked_at,
        act_id,
        now,
        max_per_second,
        finish_by,
    )
    await _hint(conn)
    return MassJob(**row)


async def get(conn: Connection, job_id: int, *, lock: bool = False) -> MassJob | None:
    """One job; `lock`: until the transaction ends, so that no batch and no other change comes between."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from mass_job where id = $1{' for update' if lock else ''}",
        job_id,
    )
    return MassJob(**row) if row else None


async def try_lock(conn: Connection, job_id: int) -> MassJob | None:
    """The job, locked until the transaction ends; None: somebody else is at it."""
    row = await conn.fetchrow(f"select {_COLUMNS} from mass_job where id = $1 for update skip locked", job_id)
    return MassJob(**row) if row else None


async def page(conn: Connection, before: int | None, limit: int) -> list[MassJob]:
    """Below a number, newest first."""
    rows = await conn.fetch(
        f"select {_COLUMNS} from mass_job where $1::bigint is null or id < $1 order by id desc limit $2", before, limit
    )
    return [MassJob(**row) for row in rows]


async def in_state(conn: Connection, *states: str) -> list[MassJob]:
    """Oldest first."""
    rows = await conn.fetch(f"select {_COLUMNS} from mass_job where state = any($1) order by id", list(states))
    return [MassJob(**row) for row in rows]


async def ended_since(conn: Connection, since: int) -> list[MassJob]:
    """Those that ended since then, in Unix seconds, oldest first."""
    rows = await conn.fetch(
        f"select {_COLUMNS} from mass_job where state in ('done', 'aborted') and updated_at >= $1 order by id", since
    )
    return [MassJob(**row) for row in rows]


async def set_state(conn: Connection, job_id: int, state: str, now: int) -> None:
    """Under the job's lock."""
    await conn.execute("update mass_job set state = $2, updated_at = $3 where id = $1", job_id, state, now)
    await _hint(conn)


async def start(conn: Connection, job_id: int, act_id: int, now: int) -> None:
    """Under the job's lock. `act_id` says who, and when: the date of revocations where none was asked for."""
    await conn.execute(
        "update mass_job set state = 'running', start_act_id = $2, updated_at = $3 where id = $1", job_id, act_id, now
    )
    await _hint(conn)


async def set_pace(
    conn: Connection, job_id: int, max_per_second: float | None, finish_by: int | None, now: int
) -> None:
    """Under the job's lock; from its next batch on, which may begin at once."""
    await conn.execute(
        "update mass_job set max_per_second = $2, finish_by = $3, next_at = 0, updated_at = $4 where id = $1",
        job_id,
        max_per_second,
        finish_by,
        now,
    )
    await _hint(conn)


async def exempt(conn: Connection, job_id: int) -> Mapping[Key, int]:
    """What the job leaves out, each with its decision."""
    rows = await conn.fetch("select issuer_id, serial, exemption_id from mass_job_exempt where job_id = $1", job_id)
    return {(row["issuer_id"], row["serial"]): row["exemption_id"] for row in rows}


async def add_exempt(conn: Connection, job_id: int, decisions: Mapping[Key, int]) -> None:
    """Leaves certificates out, and counts those that are new."""
    await conn.execute(
        "with added as (insert into mass_job_exempt (job_id, issuer_id, serial, exemption_id)"
        "  select $1, i, s, e from unnest($2::smallint[], $3::bytea[], $4::bigint[]) k (i, s, e)"
        "  on conflict do nothing returning 1)"
        " update mass_job set exempt = exempt + (select count(*) from added) where id = $1",
        job_id,
        [issuer_id for issuer_id, _ in decisions],
        [serial for _, serial in decisions],
        list(decisions.values()),
    )


async def _hint(conn: Connection) -> None:
    await conn.execute("select pg_notify('job', '')")


async def set_listed(conn: Connection, job_id: int, listed: int) -> None:
    """What the selection itself named; from here on only siblings are added."""
    await conn.execute("update mass_job set listed = $2 where id = $1", job_id, listed)


async def set_ready(
    conn: Connection,
    job_id: int,
    *,
    total: int,
    sha256: bytes,
    preview: Mapping[str, Any],
    buckets: Sequence[tuple[int, int, int, bool]],
    now: int,
) -> None:
    """Fixes the set. `buckets`: (issuer id, rank, certificates, whether it is signed anew as a whole)."""
    await conn.execute(
        "insert into mass_job_bucket"
        " select $1, * from unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::boolean[])",
        job_id,
        *(list(column) for column in (zip(*buckets, strict=True) if buckets else ((), (), (), ()))),
    )
    await conn.execute(
        "update mass_job set state = 'ready', total = $2, sha256 = $3, preview = $4, updated_at = $5 where id = $1",
        job_id,
        total,
        sha256,
        dict(preview),
        now,
    )


async def whole_buckets(conn: Connection, job_id: int) -> set[tuple[int, int]]:
    """(issuer id, rank) of the buckets that are signed anew as a whole."""
    rows = await conn.fetch("select issuer_id, rank from mass_job_bucket where job_id = $1 and whole", job_id)
    return {(row["issuer_id"], row["rank"]) for row in rows}


async def advance(
    conn: Connection,
    job_id: int,
    cursor: Cursor,
    *,
    done: int,
    changed: int,
    per_second: float | None,
    next_at: float,
    now: int,
) -> None:
    """Counts what one batch did, in that batch's transaction."""
    await conn.execute(
        "update mass_job set after_issuer = $2, after_rank = $3, after_serial = $4, done = done + $5,"
        " changed = changed + $6, per_second = coalesce($7, per_second), next_at = $8, updated_at = $9 where id = $1",
        job_id,
        *cursor,
        done,
        changed,
        per_second,
        next_at,
        now,
    )


async def holding(conn: Connection, issuer_id: int, serial: bytes) -> list[MassJob]:
    """Those that were started with this certificate in their set and not exempt, oldest first.

    A set's order has the rank before the serial: the certificate's ranks are those of its bucket.
    """
    rows = await conn.fetch(
        f"select {_COLUMNS} from mass_job j where j.start_act_id is not null"
        " and exists (select from certificate c join mass_job_bucket b on b.issuer_id = c.issuer_id"
        "  and b.rank % 65536 = c.bucket join mass_job_certificate m on m.job_id = b.job_id"
        "  and m.issuer_id = b.issuer_id and m.rank = b.rank and m.serial = c.serial"
        "  where c.issuer_id = $1 and c.serial = $2 and b.job_id = j.id)"
        " and not exists (select from mass_job_exempt x where x.job_id = j.id and x.issuer_id = $1 and x.serial = $2)"
        " order by id",
        issuer_id,
        serial,
    )
    return [MassJob(**row) for row in rows]
