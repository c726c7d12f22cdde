"""Flows 1 to 5 in one process over a week of fake time, seen as relying parties see them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from quash.pki.reasons import Reason
from quash.pki.serials import new_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from tests.support.flows import DAY, HOUR, Crl, Key, Said, Site, running
from tests.support.initialising import demo_config
from tests.support.postgres import Database

OCSP_VALIDITY, REFRESH = 2 * DAY - 1, 20 * HOUR
CRL_VALIDITY, CRL_EVERY = 4 * DAY - 1, DAY
SIGNER_DAYS = 6  # renewed after three days and after six, when the first one ends
BRIEF_DAYS = 3
BUCKETS = 4  # of each issuer, each refreshed at a time of its own, where the test stops
Entry = tuple[int, int]


def week_config(database: Config) -> Config:
    """The demo, with fewer buckets and shards, OCSP signers of six days and a profile of three."""
    demo = demo_config(database).model_dump()
    for issuer in demo["issuers"]:
        if issuer["kind"] == "sub-ca":
            issuer["ocsp_signer"]["days"] = SIGNER_DAYS
            issuer["shards"] = min(issuer["shards"], 2)
    demo["profiles"] = (*demo["profiles"], {"name": "brief", "issuer": "tls-dv", "kind": "dv", "days": BRIEF_DAYS})
    return Config.model_validate(demo | {"presign": {"buckets": BUCKETS}})


@dataclass
class Week:
    """Looks at everything public, again and again, and remembers what it saw.

    `expected`: what each certificate is, None for good, else its (revocation date, reason). `seen`: its answers, one
    of each thisUpdate. `published`: the CRLs of each path, one of each number.
    """

    site: Site
    started: int
    expected: dict[Key, Entry | None] = field(default_factory=dict)
    certificates: dict[Key, x509.Certificate] = field(default_factory=dict)
    seen: defaultdict[Key, list[Said]] = field(default_factory=lambda: defaultdict(list))
    published: defaultdict[str, list[Crl]] = field(default_factory=lambda: defaultdict(list))
    looks: int = 0

    async def issue(self, profile: str = "tls-dv", key: ec.EllipticCurvePrivateKey | None = None) -> Key:
        certificate = await self.site.issue(profile, key)
        return self.track(certificate)

    def track(self, certificate: x509.Certificate) -> Key:
        key = self.site.key(certificate)
        self.expected[key], self.certificates[key] = None, certificate
        return key

    async def until(self, offset: int) -> None:
        """Lives until so long after the start: stops at each moment at which something is due, and a second before."""
        end = self.started + offset
        while self.site.now < end:
            due = min(await self._next_due(), end)
            for moment in (due - 1, due):
                await self.site.clock.advance(max(0.0, moment - self.site.clock.now()))
                await self.site.step()
                if moment < due:
                    self.look()
        self.look()

    async def _next_due(self) -> int:
        (row,) = await self.site.fetch(
            "select least((select min(due_at) from bucket), (select min(last) + $1 from ("
            "select max(this_update) as last from crl join issuer i on i.id = issuer_id and i.key_ref is not null"
            " where scheduled group by issuer_id, scope) as regular)) as at",
            CRL_EVERY,
        )
        return max(int(row["at"]), self.site.now + 1)

    def look(self) -> None:
        """Everything that must hold at any moment."""
        self.looks += 1
        assert self.site.node.health.ready
        self._look_at_crls()
        for key, entry in self.expected.items():
            self._look_at_answer(key, entry)
        for issuer in ("root", "tls-dv", "tls-ov"):
            assert self.site.node.ask((issuer, new_serial())).word == "unauthorized"  # A9

    def _look_at_answer(self, key: Key, entry: Entry | None) -> None:
        said, now = self.site.node.ask(key), self.site.now
        if now > int(self.certificates[key].not_valid_after_utc.timestamp()) and said.word == "try_later":
            return  # expired, and its last answer too
        assert said.word == ("good" if entry is None else "revoked")
        assert entry is None or said.entry == entry
        assert said.next_update - said.this_update == OCSP_VALIDITY  # A4
        assert said.this_update <= now < said.next_update
        if not self.seen[key] or said != self.seen[key][-1]:
            self.seen[key].append(said)
        if now <= int(self.certificates[key].not_valid_after_utc.timestamp()):
            assert now - said.this_update <= REFRESH  # A4, G3
            assert said.next_update - now >= 8 * HOUR  # A3

    def _look_at_crls(self) -> None:
        crls = self.site.crls()
        for path, crl in crls.items():
            before = self.published[path]
            if not before or before[-1].body != crl.body:
                if before:
                    assert crl.number > before[-1].number  # B7
                    assert crl.this_update > before[-1].this_update
                before.append(crl)
            assert crl.this_update <= self.site.now < crl.next_update
            if path != "root.crl":
                assert crl.next_update - crl.this_update == CRL_VALIDITY
                assert self.site.now - crl.this_update <= CRL_EVERY  # B3
        for key, certificate in self.certificates.items():
            if key[0] != "root":
                self._look_at_entry(key, certificate, crls)

    def _look_at_entry(self, key: Key, certificate: x509.Certificate, crls: dict[str, Crl]) -> None:
        """The CRL that the certificate names says the same as OCSP (A26), and no other one speaks of it (B14)."""
        path, entry = self.site.crl_path(certificate), self.expected[key]
        crl = crls[path]
        assert crl.url in (None, f"{self.site.config.crl_base}/{path}")  # B15
        found = crl.entries.get(certificate.serial_number)
        others = [each for each in crls.values() if each is not crl and crl.issuer == each.issuer]
        assert all(certificate.serial_number not in each.entries for each in others)
        if found is None and entry is not None:
            assert self._may_be_gone(certificate, self.published[path])
        else:
            assert found == entry

    def _may_be_gone(self, certificate: x509.Certificate, crls: list[Crl]) -> bool:
        """B13: some CRL of the daily schedule was issued after notAfter and shows it."""
        ended = int(certificate.not_valid_after_utc.timestamp())
        return any(
            crl.this_update > ended
            and (crl.this_update - self.started) % DAY == 0
            and certificate.serial_number in crl.entries
            for crl in crls
        )

    async def revoke(self, key: Key, reason: Reason, revoked_at: int | None = None) -> tuple[Key, ...]:
        """Flow 2, seen in OCSP before any time has passed, and in CRLs after the burst's wait; returns the siblings."""
        revoked = await self.site.revoke(key, reason, revoked_at=revoked_at)
        assert revoked.changed
        at = self.site.now if revoked_at is None else revoked_at
        self.expected[key] = (at, reason)
        await self.site.spread()
        assert self.site.node.ask(key).entry == (at, reason)
        siblings = revoked.siblings if revoked.siblings_total <= 1 else await self._all_siblings(key)
        for sibling in siblings:
            self.expected[sibling] = (at, Reason.keyCompromise)
        await self.site.settle()
        self.look()
        return siblings

    async def _all_siblings(self, key: Key) -> tuple[Key, ...]:
        """The site's batches hold one sibling: the others are a job's."""
        spki = self.certificates[key].public_key()
        return tuple(each for each, other in self.certificates.items() if other.public_key() == spki and each != key)


async def test_a_week(database: Database, clock: FakeClock, tmp_path: Path) -> None:
    """Issued is good, revoked is revoked everywhere alike, nothing is ever late, missing or past its nextUpdate."""
    async with running(database, tmp_path, clock, week_config(database.config)) as site:
        week = Week(site, site.now)
        await site.step()
        for sub_ca in ("tls-dv", "tls-ov"):
            week.track(site.issuer(sub_ca))
        shared = ec.generate_private_key(ec.SECP256R1())
        good, superseded, unsaid = [await week.issue() for _ in range(3)]
        other_good = await week.issue("tls-ov")
        compromised, sibling = await week.issue(key=shared), await week.issue(key=shared)
        other_sibling = await week.issue("tls-ov", shared)
        brief = await week.issue("brief")
        week.look()

        events: dict[int, Callable[[], Awaitable[object]]] = {
            5 * HOUR: lambda: week.revoke(superseded, Reason.superseded),
            DAY + 5 * HOUR: lambda: week.revoke(brief, Reason.cessationOfOperation),
            2 * DAY + 5 * HOUR: lambda: week.revoke(compromised, Reason.keyCompromise),
            3 * DAY + 5 * HOUR: lambda: week.revoke(superseded, Reason.keyCompromise, week.started + HOUR),  # B25
            4 * DAY + 5 * HOUR: lambda: _after_rotation(week),
            5 * DAY + 5 * HOUR: lambda: week.revoke(unsaid, Reason.unspecified),
        }
        for offset, event in events.items():
            await week.until(offset)
            await event()
        await week.until(7 * DAY + HOUR)

        assert {key for key, entry in week.expected.items() if entry is None} >= {good, other_good}
        assert week.expected[sibling] == week.expected[other_sibling] == week.expected[compromised]
        _assert_refreshed(week, brief)
        await _assert_scheduled(week)
        _assert_expired_entry_went(week, brief)
        await _assert_a_new_node_says_the_same(week)


async def _after_rotation(week: Week) -> None:
    """The OCSP signers are past half of their life and were replaced without an operator: `init` finds nothing to do,
    new certificates get answers of the new one."""
    signers = await week.site.fetch("select issuer_id from ocsp_signer order by 1")
    assert len(signers) == 1 + 2 + 2  # the root's own is made by people
    assert await week.site.init() == []
    before = {said.signer for answers in week.seen.values() for said in answers[:1]}
    key = await week.issue()
    assert week.site.node.ask(key).signer not in before
    week.look()


def _assert_refreshed(week: Week, brief: Key) -> None:
    """Each record was made anew in time, all week, whichever signer made it (A4)."""
    for key, answers in week.seen.items():
        times = [said.this_update for said in answers]
        assert all(0 <= later - earlier <= REFRESH for earlier, later in itertools.pairwise(times))
        lived = week.site.now - times[0] if key != brief else BRIEF_DAYS * DAY
        assert len(times) >= lived // REFRESH
        signers = [signer for signer, _ in itertools.groupby(answers, lambda said: said.signer)]
        assert len(signers) == len(set(signers))  # once replaced, a signer is never back
        if key[0] == "root":
            assert len(signers) == 1
        elif key != brief and times[0] < week.started + DAY:
            assert len(signers) == 3
            first_ended = week.started + SIGNER_DAYS * DAY
            assert all(said.signer != signers[0] for said in answers if said.next_update >= first_ended)  # A5


async def _assert_scheduled(week: Week) -> None:
    """Each scope had one regular CRL a day, to the second, and others only for what was revoked."""
    rows = await week.site.fetch(
        "select s.path, array_agg(c.this_update order by c.number) filter (where c.scheduled) as regular,"
        " count(*) as numbers from crl c join crl_scope s using (issuer_id, scope) group by 1"
    )
    assert {row["path"] for row in rows} == set(week.published)
    for row in rows:
        crls = week.published[row["path"]]
        assert row["numbers"] == len(crls)  # no number without a CRL that we saw
        if row["path"] == "root.crl":
            assert len(crls) == 1
            continue
        assert row["regular"] == [week.started + day * CRL_EVERY for day in range(8)]
        dirty = {entry for crl in crls for entry in crl.entries.items()}
        assert 8 <= len(crls) <= 8 + len(dirty)
        assert len(crls) == 8 or dirty


def _assert_expired_entry_went(week: Week, brief: Key) -> None:
    """B13, to the CRL: listed from its revocation through the first regular CRL after notAfter, then no more."""
    certificate = week.certificates[brief]
    ended = int(certificate.not_valid_after_utc.timestamp())
    (last,) = [week.started + day * DAY for day in range(8) if 0 < week.started + day * DAY - ended <= DAY]
    entry = week.expected[brief]
    assert entry is not None
    for crl in week.published[week.site.crl_path(certificate)]:
        assert (certificate.serial_number in crl.entries) == (entry[0] <= crl.this_update <= last)
    assert week.site.listed(brief) is None
    assert week.site.node.ask(brief).word == "try_later"
    assert week.seen[brief][-1].next_update > ended  # A41: answered until after its notAfter


async def _assert_a_new_node_says_the_same(week: Week) -> None:
    """Whoever starts now, from what a week of dropping left of the feed, knows what the old node knows."""
    new = await week.site.new_node()
    await new.step()
    for key in week.expected:
        if week.site.now <= int(week.certificates[key].not_valid_after_utc.timestamp()):
            assert new.ask(key) == week.site.node.ask(key)
    assert week.looks > 7 * DAY // REFRESH * BUCKETS
