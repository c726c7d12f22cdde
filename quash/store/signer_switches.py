"""Emergency switches as jobs: an officer's order for a new OCSP signer, and how far all is signed anew.

A job of this kind has no state of its own that a crash could leave behind. Where it stands follows from what each
process commits anyhow: the order, the request of the presigner, the signer that it led to, and by which signer each
bucket was passed last. So it goes on with whoever starts next, and is over when every bucket is by that signer or a
newer one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quash.store.database import Connection

State = Literal["ordered", "requested", "refused", "signing", "done"]


@dataclass(frozen=True, slots=True)
class SignerSwitch:
    """One order; times in Unix seconds.

    ordered: the presigner makes a key. requested: the CA signer decides; refused, with its `code`: it did, and the
    presigner asks again an hour later. signing, since `began_at`: `done` of the issuer's `buckets` are signed anew.
    """

    id: int
    issuer: str
    at: int
    act_id: int
    state: State
    code: str | None
    began_at: int | None
    buckets: int
    done: int

    def seconds_left(self, now: float) -> float | None:
        """If it goes on as so far; None: not signing, or nothing done to tell by."""
        if self.state != "signing" or self.began_at is None or not self.done:
            return None
        return max(0.0, now - self.began_at) / self.done * (self.buckets - self.done)


# Nobody wrote down who signed a bucket that was passed last before 0058_bucket_signer.sql. So many seconds after the
# new signer was there, whatever the clocks of two machines, it was that one. Its notBefore is the reservation's time,
# which may be hours before: a key that was away, a CA signer that was down.
_SURELY = 60
# Of several requests the one that fulfilled the order, else the one that is open, else the newest refusal.
_JOBS = f"""
select s.id, i.name as issuer, s.at, s.act_id,
    case when r.state = 'done' and b.done = b.buckets then 'done' when r.state = 'done' then 'signing'
         when r.state = 'open' then 'requested' when r.state = 'refused' then 'refused' else 'ordered' end as state,
    case when r.state = 'refused' then r.code end as code, o.created_at as began_at, b.buckets, b.done
from signer_switch s join issuer i on i.id = s.issuer_id
left join lateral (select q.state, q.code, q.signer_id from signer_request q
    where q.issuer_id = s.issuer_id and q.switch_id >= s.id
    order by q.state = 'done' desc, q.state = 'open' desc, case when q.state = 'done' then q.id else -q.id end limit 1
) r on true
left join ocsp_signer o on o.id = r.signer_id
cross join lateral (select count(*) as buckets, count(*) filter (where signer_id >= r.signer_id
        or (signer_id is null and passed_at >= o.created_at + {_SURELY})) as done
    from bucket where issuer_id = s.issuer_id) b
"""


async def page(conn: Connection, before: int | None, limit: int) -> list[SignerSwitch]:
    """Switches below a number, newest first."""
    rows = await conn.fetch(f"{_JOBS} where $1::bigint is null or s.id < $1 order by s.id desc limit $2", before, limit)
    return [SignerSwitch(**row) for row in rows]


async def under_way(conn: Connection) -> list[SignerSwitch]:
    """Those that are not done, oldest first."""
    rows = await conn.fetch(f"select * from ({_JOBS}) j where state <> 'done' order by id")
    return [SignerSwitch(**row) for row in rows]


async def get(conn: Connection, switch_id: int) -> SignerSwitch | None:
    row = await conn.fetchrow(f"{_JOBS} where s.id = $1", switch_id)
    return SignerSwitch(**row) if row else None
