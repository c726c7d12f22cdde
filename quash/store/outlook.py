"""What is coming for CRLs: how large they may become (B21), what CCADB must be told until when (B24), and what only an
offline key can renew (B2, G4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from quash.pki import der
from quash.store import acts, crls
from quash.store.crls import ScopeState
from quash.store.database import Connection

LIMIT: Final = 10_000_000
"""Octets that a CRL should stay below (B21)."""
_DAY: Final = 86_400
_ENTRY: Final = 53  # octets with a reason and a serial of 20 octets
_FRAME: Final = 1000
_PACE_DAYS, _WARN_DAYS = 30, 60
OFFLINE_WARN: Final = 60 * _DAY
"""Seconds before the end of what only an offline key renews, when it is warned of."""
_SIGN_AT_ONCE: Final = 24 * 3600  # B4
_AFTER_CERTIFICATE, _AFTER_REVOCATION = 7 * _DAY, 4 * 3600  # B24
_URI: Final = 0x86
DISCLOSED: Final = "crl.disclosed"


@dataclass(frozen=True, slots=True)
class Due:
    """Something that a person must do until `at` (Unix seconds); `what`: a few words that metrics are labelled with."""

    what: str
    at: int
    text: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """One scope. `forecast`: octets of its CRL with every unexpired certificate of it revoked.

    `full_at`: when it reaches 10 MB at the pace of the last month; None: it does not grow.
    """

    state: ScopeState
    forecast: int
    full_at: float | None
    undisclosed: tuple[Due, ...]
    offline: tuple[Due, ...]

    def warnings(self, now: float) -> list[str]:
        """What a person should know now, in words."""
        said = [due.text for due in self.undisclosed]
        said += [due.text for due in self.offline if due.at - OFFLINE_WARN <= now]
        size = self.state.published.size or 0 if self.state.published else 0
        if size > LIMIT:
            said.append(f"the CRL has {size} octets, more than 10 MB (B21): use more shards")
        elif self.full_at is not None and self.full_at - _WARN_DAYS * _DAY <= now:
            said.append(f"at this pace the CRL reaches 10 MB on {_date(self.full_at)} (B21): use more shards")
        elif self.forecast > LIMIT:
            said.append(f"a mass revocation would make it {self.forecast / 1e6:.1f} MB (B21): use more shards")
        return said


async def outlooks(conn: Connection, now: int) -> list[Outlook]:
    """Of every scope, in the order of `crls.states`. Counts all certificates: not for each request."""
    counts = await _populations(conn, now)
    disclosed = await latest_disclosures(conn)
    offline = await _offline(conn)
    found = []
    for state in await crls.states(conn, offline=True):
        scope = state.scope
        forecast = _FRAME + _ENTRY * counts.get((scope.issuer_id, scope.scope), 0)
        pace = await _octets_per_second(conn, state, now)
        size = state.published.size or 0 if state.published else 0
        full_at = now + (LIMIT - size) / pace if pace > 0 else None
        urls = await crls.urls_in_use(conn, scope, now)
        known = disclosed.get(scope.issuer_id, ())
        undisclosed = tuple([await _disclose_by(conn, state, url, now) for url in urls if url not in known])
        due = tuple(offline.get(scope.issuer_id, ()) if scope.shard is None else ())
        due = (*_crl_due(state), *due) if due else ()
        found.append(Outlook(state, max(forecast, size), full_at, undisclosed, due))
    return found


async def latest_disclosures(conn: Connection) -> dict[int, tuple[str, ...]]:
    """Issuer id -> the URLs that CCADB was told last."""
    rows = await conn.fetch(
        "select distinct on (issuer_id) issuer_id, urls from crl_disclosure order by issuer_id, id desc"
    )
    return {row["issuer_id"]: tuple(row["urls"]) for row in rows}


async def add_disclosure(
    conn: Connection, issuer_id: int, issuer: str, urls: Sequence[str], *, actor: str, at: int
) -> None:
    """Remembers that CCADB lists these URLs of the issuer now, and no others; in the caller's transaction."""
    subject = {"issuer": issuer, "urls": list(urls)}
    act_id = await acts.record(conn, at=at, actor=actor, action=DISCLOSED, subject=subject)
    await conn.execute(
        "insert into crl_disclosure (at, issuer_id, urls, act_id) values ($1, $2, $3, $4)",
        at,
        issuer_id,
        list(urls),
        act_id,
    )


async def _populations(conn: Connection, now: int) -> dict[tuple[int, str], int]:
    rows = await conn.fetch(
        "select issuer_id, coalesce(shard::text, 'full') as scope, count(*) as count from certificate"
        " where not_after >= $1 group by 1, 2",
        now,
    )
    return {(row["issuer_id"], row["scope"]): row["count"] for row in rows}


async def _octets_per_second(conn: Connection, state: ScopeState, now: int) -> float:
    """How fast the CRL grew in the last month; at least a day of it must be known."""
    if state.published is None or state.published.size is None:
        return 0.0
    row = await conn.fetchrow(
        "select size, this_update from crl where issuer_id = $1 and scope = $2 and published_at is not null"
        " and this_update >= $3 order by number limit 1",
        state.scope.issuer_id,
        state.scope.scope,
        now - _PACE_DAYS * _DAY,
    )
    seconds = state.published.this_update - row["this_update"] if row else 0
    return (state.published.size - int(row["size"])) / seconds if seconds >= _DAY else 0.0


async def _disclose_by(conn: Connection, state: ScopeState, url: str, now: int) -> Due:
    """B24: 7 days after the first certificate with the URL, or 4 hours after the first revocation of one."""
    row = await conn.fetchrow(
        "select min(c.created_at) as issued, min(r.recorded_at) as revoked from certificate c"
        " left join revocation r on r.issuer_id = c.issuer_id and r.serial = c.serial and r.version = 1"
        " where c.issuer_id = $1 and coalesce(c.shard, -1) = $2 and c.not_after >= $3 and position($4 in c.der) > 0",
        state.scope.issuer_id,
        -1 if state.scope.shard is None else state.scope.shard,
        now,
        der.tlv(_URI, url.encode("ascii")),
    )
    by = row["issued"] + _AFTER_CERTIFICATE
    if row["revoked"] is not None:
        by = min(by, row["revoked"] + _AFTER_REVOCATION)
    return Due("disclosure", by, f"CCADB must be told of {url} by {_date(by)} (B24)")


async def _offline(conn: Connection) -> dict[int, list[Due]]:
    """By issuer whose key is offline: the ends of its own certificate, its OCSP signer and the CAs below it."""
    rows = await conn.fetch(
        "select i.id, 'certificate' as what, i.name, max(c.not_after) as at from issuer i"
        " join issuer_certificate c on c.issuer_id = i.id where i.key_ref is null group by i.id"
        " union all select i.id, 'OCSP signer', i.name, max(o.not_after) from issuer i"
        " join ocsp_signer o on o.issuer_id = i.id where i.key_ref is null and o.state = 'active' group by i.id"
        " union all select p.id, 'sub-CA', s.name, max(c.not_after) from issuer s join issuer p on p.id = s.parent"
        " join issuer_certificate c on c.issuer_id = s.id where p.key_ref is null group by p.id, s.id"
    )
    found: dict[int, list[Due]] = {}
    for row in rows:
        text = f"the {row['what']} of {row['name']} ends on {_date(row['at'])}, and only the offline key renews it"
        found.setdefault(row["id"], []).append(Due(f"{row['what']} {row['name']}", row["at"], text))
    return found


def _crl_due(state: ScopeState) -> list[Due]:
    name, found = state.scope.issuer, []
    if state.published is not None:
        ends = state.published.next_update
        found.append(
            Due("CRL", ends, f"the CRL of {name} ends on {_date(ends)} (B2): sign the next one, quash root crl")
        )
    if state.dirty_since is not None:
        by = state.dirty_since + _SIGN_AT_ONCE
        found.append(Due("revocation", by, f"a revocation is not on the CRL of {name}: sign it by {_date(by)} (B4)"))
    return found


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
