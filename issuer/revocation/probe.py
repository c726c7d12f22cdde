"""The outside probe: when each revocation was first seen in the feed, at each responder and in the CRL (C5, A26).

It asks over HTTP as relying parties do, for both CertID hashes, and believes what verifies. Single revocations go
before those of jobs, whose responses are not kept: their hashes are.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
from prometheus_client import Counter, Gauge

from issuer.issuance.visible import PublicAnswers
from issuer.revocation.agreement import entry_in, read_verified
from quash.cache.layout import decode_batch, decode_record
from quash.errors import Kind, QuashError
from quash.pki.certid import CertIdHash
from quash.pki.crl import Crl, entry
from quash.pki.ocsp_response import Status
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.log import logger
from quash.store import crls, feed, issuers, mass_jobs, sightings
from quash.store.crls import Scope
from quash.store.database import Connection, Pool, acquire
from quash.store.issuers import Issuer
from quash.store.news import NewsReader, Position
from quash.store.sightings import Name, Sighting, Watched

_COLUMNS: Final = ("issuer_id", "serial", "version")
_CAUSED_BY: Final = "exists (select from act a where a.id = act_id and a.action {})"
_SINGLE, _MANY, _LATE = "single", "many", "late"
_ROOM: Final = 500  # revocations of one lane that are looked for at once
_MANY_AT_ONCE: Final = 50  # of jobs, in one step: looking on must not slow what it looks at
_REST_BESIDE_JOBS: Final = 40.0  # times what a look for those took, until the next one, while a job is running
_LONGEST_REST: Final = 10.0  # seconds, while none is, and what jobs revoked is still being signed
_PUT_OFF_AT_ONCE: Final = 100
_AT_ONCE: Final = 16  # certificates that responders are asked for
_FIRST_WAIT, _GROWTH, _LONGEST_WAIT = 0.5, 1.5, 10.0  # seconds between two looks
_PATIENCE: Final = 60.0  # seconds; what is not visible by then is put off
_PUT_OFF: Final = (60, 6 * 3600)  # seconds: between these, a quarter of the revocation's age
_FEED_ROWS: Final = 50  # of one look
_CRL_REST: Final = 20.0  # times what fetching and reading a CRL took, until the next time
_MAX_CRL: Final = 1 << 30

_SEEN = Counter("quash_sightings_total", "Places that were first seen to show a revocation", ["kind"])
_WAITING = Gauge("quash_sightings_waiting", "Revocations that the outside probe is looking for")
Place = tuple[str, str, str]
"""Kind, URL, hash."""


@dataclass(slots=True)
class _Pending:
    """A revocation and the places that have not shown it; `since`, `next_at` on the monotonic clock.

    `lane`: `single`, `many` (of jobs) or `late` (put off before: looked at once, then put off again).
    """

    watched: Watched
    missing: set[Place]
    scope: Scope | None
    lane: str
    since: float
    next_at: float
    wait: float = _FIRST_WAIT

    @property
    def name(self) -> Name:
        return self.watched.name


class Probe:
    """`step` looks at what is due. Use as an async context manager. It outlives neither database nor responder: the
    next step goes on, and after a restart what was not seen comes again.
    """

    def __init__(self, pool: Pool, config: Config, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._crl_base = config.crl_base
        self._responders = tuple(url.rstrip("/") for url in config.visible_at)
        self._answers = PublicAnswers(config.visible_at, clock)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._readers = {
            lane: NewsReader("revocation", _COLUMNS, f"sightings-{lane}", where=_CAUSED_BY.format(which), in_order=True)
            for lane, which in ((_SINGLE, "= 'certificate.revoke'"), (_MANY, "like 'certificate.revoke-%'"))
        }
        self._loaded = False
        self._pending: dict[Name, _Pending] = {}
        self._saved: dict[str, Position] = {}
        self._turn: list[_Pending] = []
        self._many_after = 0.0
        self._crl_after: dict[str, float] = {}

    async def __aenter__(self) -> Probe:
        await self._answers.__aenter__()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._answers.__aexit__(None, None, None)

    async def step(self) -> int:
        """Returns how many sightings it added. Raises `store.unavailable`."""
        began = self._clock.monotonic()
        async with acquire(self._pool) as conn:
            beside_jobs = bool(await mass_jobs.in_state(conn, "running"))
            await self._take(conn)
            known = {each.id: each for each in await issuers.all_issuers(conn)}
            covered = [each for each in self._due("crl") if await crls.is_covered(conn, *each.name[:2])]
        found = [*await self._at_responders(known), *await self._in_crls(covered, known)]
        async with acquire(self._pool) as conn:
            # Last: what a responder shows is in the feed by now.
            found += await self._in_feed(conn, {name for name, _ in found})
            async with conn.transaction():
                await sightings.add(conn, found)
                await self._settle(conn, found)
        for _, sighting in found:
            _SEEN.labels(sighting.kind).inc()
        looked = [each for each in self._turn if each.lane == _MANY]
        in_vain = any(kind == "ocsp" for each in looked for kind, *_ in each.missing)
        if looked and (beside_jobs or in_vain):
            ended = self._clock.monotonic()
            rest = _REST_BESIDE_JOBS * (ended - began)
            self._many_after = ended + (rest if beside_jobs else min(rest, _LONGEST_REST))
        _WAITING.set(len(self._pending))
        return len(found)

    # What to look for

    async def _take(self, conn: Connection) -> None:
        if not self._loaded:
            for reader in self._readers.values():
                await reader.load(conn)
            self._loaded = True
        for lane, reader in self._readers.items():
            waiting = sum(each.lane == lane for each in self._pending.values())
            if not waiting and self._saved.get(lane) != reader.position:
                # Durably only now: after a crash what was waited for must come again.
                await reader.save(conn, reader.position, int(self._clock.now()))
                self._saved[lane] = reader.position
            room = (0 if waiting else _ROOM) if lane == _MANY else _ROOM - waiting
            if room > 0:
                batch = await reader.read(conn, room)
                await self._add(conn, [(row["issuer_id"], row["serial"], row["version"]) for row in batch.rows], lane)
                reader.accept(batch)
        put_off = await sightings.due(conn, int(self._clock.now()), _PUT_OFF_AT_ONCE)
        await self._add(conn, [name for name in put_off if name not in self._pending], _LATE)
        now = self._clock.monotonic()
        due = [each for each in self._pending.values() if each.next_at <= now]
        self._turn = [each for each in due if each.lane != _MANY]
        if now >= self._many_after:
            self._turn += [each for each in due if each.lane == _MANY][:_MANY_AT_ONCE]

    async def _add(self, conn: Connection, names: Sequence[Name], lane: str) -> None:
        if not names:
            return
        seen, now = await sightings.seen(conn, names), self._clock.monotonic()
        scopes: dict[tuple[int, int | None], Scope | None] = {}
        for watched in await sightings.watched(conn, names):
            shown_by = watched.revocation.issuer_id, watched.revocation.shard
            if shown_by not in scopes:
                scopes[shown_by] = await crls.find_scope(conn, *shown_by)
            scope = scopes[shown_by]
            places: set[Place] = {("ocsp", url, each.value) for url in self._responders for each in CertIdHash}
            places |= {("feed", "", "")} | ({("crl", self._url(scope), "")} if scope else set())
            missing = {place for place in places if (watched.name, *place) not in seen}
            if not _outside(missing):
                continue
            self._pending[watched.name] = _Pending(watched, missing, scope, lane, now, now)

    def _url(self, scope: Scope) -> str:
        return f"{self._crl_base}/{scope.path}"

    def _due(self, kind: str) -> list[_Pending]:
        """Those whose turn it is and that lack a sighting of this kind."""
        turn = [each for each in self._turn if not each.watched.superseded]
        return [each for each in turn if any(kind == missing for missing, *_ in each.missing)]

    # Where to look

    async def _in_feed(self, conn: Connection, shown: Collection[Name]) -> list[tuple[Name, Sighting]]:
        """Bulk rows hold thousands of records: they are read for what was just `shown` outside, not in vain before."""
        found = []
        for lane, lanes in ((_SINGLE, (feed.URGENT,)), (_MANY, (feed.URGENT, feed.BULK))):
            due = [each for each in self._due("feed") if each.lane == lane]
            wanted = {each.name[:2]: each for each in due if lane == _SINGLE or each.name in shown}
            if not wanted:
                continue
            since = min(each.watched.tx for each in wanted.values())
            for written_at, payload in await sightings.feed_rows(conn, since, lanes, _FEED_ROWS):
                for issuer_id, serial, octets in decode_batch(payload):
                    each = wanted.get((issuer_id, serial))
                    if each is None:
                        continue
                    record = decode_record(octets)
                    if record.version >= each.watched.revocation.version:
                        del wanted[issuer_id, serial]
                        digest = hashlib.sha256(octets).digest()
                        found.append((each.name, Sighting("feed", "", "", written_at, record.this_update, digest)))
        return found

    async def _at_responders(self, known: Mapping[int, Issuer]) -> list[tuple[Name, Sighting]]:
        due = self._due("ocsp")
        if not due:
            return []
        async with acquire(self._pool) as conn:
            own = {key: await issuers.certificate(conn, key) for key in {each.name[0] for each in due}}
        certificates = {key: found.der for key, found in own.items() if found is not None}
        asked = [each for each in due if each.name[0] in certificates]
        heard = await asyncio.gather(*(self._ask(each, known, certificates) for each in asked))
        return [sighting for some in heard for sighting in some]

    async def _ask(
        self, each: _Pending, known: Mapping[int, Issuer], certificates: Mapping[int, bytes]
    ) -> list[tuple[Name, Sighting]]:
        revocation = each.watched.revocation
        wanted, issuer = Status(revocation.reason, revocation.revoked_at), known[revocation.issuer_id]
        async with self._slots:
            heard = await self._answers.ask(issuer, certificates[issuer.id], revocation.serial)
        now = int(self._clock.now())
        return [
            (
                each.name,
                Sighting(
                    "ocsp",
                    said.url,
                    said.algorithm.value,
                    now,
                    said.this_update,
                    hashlib.sha256(said.body).digest(),
                    body=None if each.lane == _MANY else said.body,
                ),
            )
            for said in heard
            if said.status == wanted and ("ocsp", said.url, said.algorithm.value) in each.missing
        ]

    async def _in_crls(self, covered: Sequence[_Pending], known: Mapping[int, Issuer]) -> list[tuple[Name, Sighting]]:
        by_url: dict[str, list[_Pending]] = {}
        for each in covered:
            assert each.scope is not None  # noqa: S101 - a CRL is missing of those with a scope alone
            by_url.setdefault(self._url(each.scope), []).append(each)
        found = []
        for url, wanted in by_url.items():
            began = self._clock.monotonic()
            if began < self._crl_after.get(url, 0.0):
                continue
            try:
                body = await self._fetch(url)
                crl = await asyncio.to_thread(read_verified, body, known[wanted[0].name[0]])
                listed = await asyncio.to_thread(_listed, crl, wanted)
            except (QuashError, aiohttp.ClientError, TimeoutError) as error:
                logger().debug("sightings.no_crl", url=url, error=str(error))
                continue
            now, digest = int(self._clock.now()), hashlib.sha256(body).digest()
            self._crl_after[url] = self._clock.monotonic() + _CRL_REST * (self._clock.monotonic() - began)
            found += [(n, Sighting("crl", url, "", now, crl.this_update, digest, number=crl.number)) for n in listed]
        return found

    async def _fetch(self, url: str) -> bytes:
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status != 200 or (response.content_length or 0) > _MAX_CRL:
                raise QuashError("crl.not_served", f"{url} answers HTTP {response.status}", Kind.UNAVAILABLE)
            return await response.read()

    # What was seen

    async def _settle(self, conn: Connection, found: Iterable[tuple[Name, Sighting]]) -> None:
        for name, sighting in found:
            self._pending[name].missing.discard((sighting.kind, sighting.place, sighting.hash))
        mono, now = self._clock.monotonic(), int(self._clock.now())
        for each in self._turn:
            if not _outside(each.missing) or each.watched.superseded or each.watched.not_after < now:
                await sightings.done(conn, each.name)
                del self._pending[each.name]
            elif each.lane == _LATE or mono - each.since >= _PATIENCE:
                shortest, longest = _PUT_OFF
                pause = max(shortest, min(longest, (now - each.watched.revocation.recorded_at) // 4))
                await sightings.put_off(conn, each.name, now + pause)
                del self._pending[each.name]
            else:
                each.next_at, each.wait = mono + each.wait, min(each.wait * _GROWTH, _LONGEST_WAIT)


def _outside(missing: Iterable[Place]) -> bool:
    """Whether any of these is one that relying parties look at."""
    return any(kind != "feed" for kind, *_ in missing)


def _listed(crl: Crl, wanted: Sequence[_Pending]) -> list[Name]:
    """Those that the CRL lists with our date and reason (A26)."""
    find, listed = entry_in(crl.revoked), []
    for each in wanted:
        revocation = each.watched.revocation
        if find(revocation.serial) == entry(revocation.serial, revocation.revoked_at, revocation.reason):
            listed.append(each.name)
    return listed
