"""Requests for a new OCSP signer: the presigner asks with a key that it made, the CA signer grants or refuses.

What the CA signer writes goes through functions bound to one open request (0010_signer_rotation.sql); each is
idempotent, so that a crash at any point, or a second CA signer, leads to the same one certificate.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from quash.store import acts, locks, outbox
from quash.store.database import Connection

SWITCH = "signer.switch"


@dataclass(frozen=True, slots=True)
class SignerRequest:
    """One open request. `switch_id` None: a renewal. `csr`: DER PKCS#10. `serial`: reserved for it already."""

    id: int
    issuer_id: int
    switch_id: int | None
    key_ref: str
    csr: bytes
    serial: bytes | None
    created_at: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for an issuer so far. `newest_at`: Unix seconds of the newest request, None: there is none.

    `switch_id`: of the newest order of a switch that no request has fulfilled; `tried`: some request was made for it.
    """

    issuer_id: int
    requests: int
    open: bool
    newest_at: int | None
    switch_id: int | None
    tried: bool


async def add(
    conn: Connection, *, issuer_id: int, switch_id: int | None, key_ref: str, csr: bytes, created_at: int
) -> None:
    """Asks; an issuer has at most one open request, and a second one is dropped."""
    await conn.execute(
        "insert into signer_request (issuer_id, switch_id, key_ref, csr, created_at) values ($1, $2, $3, $4, $5)"
        " on conflict do nothing",
        issuer_id,
        switch_id,
        key_ref,
        csr,
        created_at,
    )


async def asked(conn: Connection, issuer_ids: Collection[int]) -> dict[int, Asked]:
    """What was asked for these issuers."""
    rows = await conn.fetch(
        "select i.issuer_id, count(r.id) as requests, coalesce(bool_or(r.state = 'open'), false) as open,"
        " max(r.created_at) as newest_at, o.switch_id, coalesce(bool_or(r.switch_id >= o.switch_id), false) as tried"
        " from unnest($1::smallint[]) as i (issuer_id)"
        " cross join lateral (select max(s.id) as switch_id from signer_switch s where s.issuer_id = i.issuer_id"
        "  and not exists (select from signer_request d where d.state = 'done' and d.switch_id >= s.id"
        "   and d.issuer_id = s.issuer_id)) o"
        " left join signer_request r using (issuer_id) group by i.issuer_id, o.switch_id",
        list(issuer_ids),
    )
    return {row["issuer_id"]: Asked(**row) for row in rows}


async def open_requests(conn: Connection) -> list[SignerRequest]:
    """Requests that nobody has decided, oldest first."""
    rows = await conn.fetch(
        "select id, issuer_id, switch_id, key_ref, csr, serial, created_at from signer_request"
        " where state = 'open' order by id"
    )
    return [SignerRequest(**row) for row in rows]


async def reserve(
    conn: Connection,
    request_id: int,
    *,
    serial: bytes,
    tbs: bytes,
    spki_sha256: bytes,
    ski: bytes,
    not_before: int,
    not_after: int,
    bucket: int,
) -> bytes | None:
    """T1. Returns the serial that counts, which may be another's; None: the request is decided."""
    reserved: bytes | None = await conn.fetchval(
        "select signer_reserve($1, $2, $3, $4, $5, $6, $7, $8)",
        request_id,
        serial,
        tbs,
        spki_sha256,
        ski,
        not_before,
        not_after,
        bucket,
    )
    return reserved


async def finish(
    conn: Connection, request_id: int, *, der: bytes, algorithm: str, not_before: int, not_after: int, at: int
) -> bool:
    """T3: certificate, active signer and news; the signer before it is retiring. False: the request is decided."""
    return bool(
        await conn.fetchval(
            "select signer_finish($1, $2, $3, $4, $5, $6)", request_id, der, algorithm, not_before, not_after, at
        )
    )


async def refuse(conn: Connection, request_id: int, code: str, at: int) -> bool:
    """Decides against a request, and revokes the serial that it may have reserved (A8)."""
    return bool(await conn.fetchval("select signer_refuse($1, $2, $3)", request_id, code, at))


_UNANSWERED = """
select s.id from signer_switch s left join lateral (select r.state from signer_request r
    where r.issuer_id = s.issuer_id and r.switch_id >= s.id order by r.id desc limit 1) r on true
where s.issuer_id = $1 and coalesce(r.state, 'open') = 'open' order by s.id desc limit 1
"""


async def order_switch(conn: Connection, issuer_id: int, issuer: str, *, actor: str, at: int) -> tuple[int, int]:
    """An operator's order for a new signer at once, in the caller's transaction; returns its id and its act's.

    One that is neither fulfilled nor refused yet stands for both: who orders a switch and then blocks the key, in
    whatever order, means one. That somebody else wanted it too is an act all the same (F1, F3).
    """
    await locks.switch_lock(conn, issuer_id)
    act_id = await acts.record(conn, at=at, actor=actor, action=SWITCH, subject={"issuer": issuer})
    if (waiting := await conn.fetchval(_UNANSWERED, issuer_id)) is not None:
        return waiting, act_id
    switch_id: int = await conn.fetchval(
        "insert into signer_switch (issuer_id, at, act_id) values ($1, $2, $3) returning id",
        issuer_id,
        at,
        act_id,
    )
    await outbox.add_signer(conn, issuer_id)  # wakes the presigner
    return switch_id, act_id
