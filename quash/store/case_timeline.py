"""What happened to a case, for its incident report (C19): acts, revocations, notices, and what was seen outside."""

from __future__ import annotations

from dataclasses import dataclass

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class Event:
    """`at` and `until`: Unix seconds of the first and the last; `count`: of `what` it is about, 0: of nothing."""

    at: int
    until: int
    actor: str
    action: str
    what: str
    count: int


# Acts of a mass event are many: those of one actor and kind are told as one.
_EVENTS = """
select a.at, a.at as until, a.actor, a.action, coalesce(e.text, c.summary, 'certificates') as what,
    (select count(*) from case_certificate m where m.case_id = $1 and m.act_id = a.id) as count, a.id as rank
from act a left join case_event e on e.act_id = a.id left join revocation_case c on c.act_id = a.id
where a.id in (select act_id from revocation_case where id = $1 union select act_id from case_event where case_id = $1
    union select act_id from case_certificate where case_id = $1)
union all  -- the proof, or the blocked key, that revoked them
select a.at, a.at, a.actor, a.action, coalesce('proof: ' || (a.subject->>'kind'), ''), 0, a.id
from act a where a.id in (select (b.subject->>'cause')::bigint from case_certificate m
    join revocation r using (issuer_id, serial) join act b on b.id = r.act_id where m.case_id = $1)
union all
select min(a.at), max(a.at), a.actor, a.action, 'certificates', count(*), min(a.id)
from case_certificate m join revocation r using (issuer_id, serial) join act a on a.id = r.act_id
where m.case_id = $1 group by a.actor, a.action
union all
select min(at), max(at), channel, 'notice.' || template, 'recipients', count(*), null
from notice where case_id = $1 group by channel, template
union all
select min(seen_at), max(seen_at), 'outside probe', 'case.visible', 'certificates', count(*), null
from case_sighting where case_id = $1 having count(*) > 0
order by at, rank
"""


async def events(conn: Connection, case_id: int) -> list[Event]:
    """Oldest first."""
    rows = await conn.fetch(_EVENTS, case_id)
    return [Event(*(row[name] for name in Event.__slots__)) for row in rows]
