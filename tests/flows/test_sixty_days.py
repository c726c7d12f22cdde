"""Sixty days in which every OCSP signer is renewed four times without an operator, at three validities (A1-A5, A7)."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path

import pytest
from cryptography import x509

from quash.pki.reasons import Reason
from quash.pki.serials import new_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.store import signer_requests, signer_switches
from quash.store.database import acquire
from tests.support.flows import DAY, HOUR, Key, Said, Site, running
from tests.support.initialising import quick_config
from tests.support.postgres import Database

SIGNER_DAYS = 30
NAME = "tls-dv"

# validity, refresh_every: below 16 hours (A2), the default (A4), and the longest that a node accepts (G3)
SETTINGS = (
    pytest.param(12 * HOUR - 1, 3 * HOUR, marks=pytest.mark.long),
    (2 * DAY - 1, 20 * HOUR),
    pytest.param(4 * DAY - 1, 23 * HOUR, marks=pytest.mark.long),
)
LOOKS_AGAIN = 60  # seconds after which a presigner looks whether a signer is due


def config_of(database: Config, validity: int, refresh: int, buckets: int = 1) -> Config:
    """A root and one sub-CA, whose buckets are refreshed at moments where the test stops."""
    presign = {"validity": validity, "refresh_every": refresh, "buckets": buckets}
    return quick_config(database, presign=presign)


async def signers(site: Site) -> list[tuple[int, str]]:
    """(serial, state) of the sub-CA's signers, oldest first."""
    rows = await site.fetch(
        "select s.certificate, s.state from ocsp_signer s join issuer i on i.id = s.issuer_id where i.name = $1"
        " order by s.id",
        NAME,
    )
    return [(x509.load_der_x509_certificate(row["certificate"]).serial_number, row["state"]) for row in rows]


@pytest.mark.parametrize(("validity", "refresh"), SETTINGS)
async def test_sixty_days(database: Database, clock: FakeClock, tmp_path: Path, validity: int, refresh: int) -> None:
    """No answer is late, missing, or past the end of its signer; each renewal drains within one refresh."""
    async with running(database, tmp_path, clock, config_of(database.config, validity, refresh)) as site:
        started, seen = site.now, defaultdict[Key, list[Said]](list)
        await site.step()
        good, revoked = [site.key(await site.issue()) for _ in range(2)]  # A7: issue() ends when the answer is out
        await site.revoke(revoked, Reason.superseded, revoked_at=site.now)
        await site.settle()
        renewed: list[int] = []
        while site.now < started + 60 * DAY + 2 * refresh:
            due = await _next_stop(site, [started, *renewed][-1])
            for moment in (due - 1, due):
                await clock.advance(max(0, moment - site.now))
                await site.spread()
                if await site.rotation.step():
                    renewed.append(site.now)
                    await site.spread()
                    await _issue_and_revoke(site)
                if moment < due:
                    _look(site, {good: "good", revoked: "revoked"}, validity, refresh, seen)
        lives = [later - earlier for earlier, later in itertools.pairwise([started, *renewed])]
        assert len(lives) == 4
        assert all(SIGNER_DAYS * DAY // 2 <= life <= SIGNER_DAYS * DAY // 2 + LOOKS_AGAIN for life in lives)
        states = await signers(site)
        assert [state for _, state in states] == ["retired"] * 3 + ["retiring", "active"]
        _assert_drained(seen, [serial for serial, _ in states], renewed, refresh)
        await site.settle()
        assert site.node.ask(revoked).entry == site.listed(revoked)  # A26
        assert site.listed(good) is None
        new = await site.new_node()
        await new.step()
        assert [new.ask(key) for key in (good, revoked)] == [site.node.ask(key) for key in (good, revoked)]


async def _issue_and_revoke(site: Site) -> None:
    """While both signers are served: answered before it is released (A7), and the same in OCSP and CRL (A26)."""
    key = site.key(await site.issue())
    assert site.node.ask(key).word == "good"
    await site.revoke(key, Reason.cessationOfOperation)
    await site.settle()
    assert site.node.ask(key).entry == site.listed(key)


async def _next_stop(site: Site, born: int) -> int:
    """When a bucket is due next, or half of a signer's life has passed, or has so at the presigner's next look."""
    (row,) = await site.fetch("select min(due_at) as due from bucket")
    half = born + SIGNER_DAYS * DAY // 2
    coming = [at for at in (int(row["due"]), half, half + LOOKS_AGAIN) if at > site.now]
    return min(coming, default=site.now + 1)


def _look(site: Site, words: dict[Key, str], validity: int, refresh: int, seen: dict[Key, list[Said]]) -> None:
    """At the worst moment: a second before the next refresh. `ask` verifies each answer, A5 included."""
    for key, word in words.items():
        said = site.node.ask(key)
        assert said.word == word
        assert said.next_update - said.this_update == validity  # A1; never cut: renewal comes long before the end
        assert site.now - said.this_update <= min(refresh, validity // 2)  # A2, A3, G3
        assert said.next_update - site.now >= 8 * HOUR  # A3
        seen[key].append(said)
    assert site.node.ask((NAME, new_serial())).word == "unauthorized"  # A9


def _assert_drained(seen: dict[Key, list[Said]], serials: list[int], renewed: list[int], refresh: int) -> None:
    """Each signer in its turn, none comes back, and one refresh after a renewal nothing is left of the one before."""
    for answers in seen.values():
        turns = [serials.index(said.signer) for said in answers]
        assert turns == sorted(turns)
        assert set(turns) == set(range(len(serials)))
        for said, turn in zip(answers, turns, strict=True):
            born = [0, *renewed][turn]
            died = [*renewed, said.this_update][turn]
            assert born <= said.this_update <= died + refresh
        assert all(later.this_update >= earlier.this_update for earlier, later in itertools.pairwise(answers))


async def progress(site: Site, job: int) -> tuple[str, int]:
    """How the job stands, and its buckets that are done."""
    async with acquire(site.admin) as conn:
        found = await signer_switches.get(conn, job)
    assert found is not None
    return found.state, found.done


async def test_a_switch_reaches_every_answer_though_clocks_differ(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    """It begins by the CA signer's clock; a presigner three seconds behind signs all by the old one first."""
    config = config_of(database.config, 2 * DAY - 1, 20 * HOUR, buckets=4)
    async with running(database, tmp_path, clock, config) as site:
        await site.step()
        key = site.key(await site.issue())
        await clock.advance(HOUR)
        behind = FakeClock(clock.now() - 3)
        await site.presigner.close()
        site.presigner = await site.new_presigner(behind)
        async with acquire(site.admin) as conn, conn.transaction():
            (row,) = await site.fetch("select id from issuer where name = $1", NAME)
            job, _ = await signer_requests.order_switch(conn, row["id"], NAME, actor="operator:test", at=site.now)
        await site.spread()
        assert await site.rotation.step() == 1
        for _ in range(2):
            for each in (clock, behind):
                await each.advance(1)
            await site.spread()
        assert await progress(site, job) == ("signing", 0)
        for _ in range(3):
            for each in (clock, behind):
                await each.advance(1)
            await site.spread()
        assert await progress(site, job) == ("done", 4)
        assert site.node.ask(key).signer == (await signers(site))[-1][0]


async def test_an_emergency_switch_signs_everything_anew(database: Database, clock: FakeClock, tmp_path: Path) -> None:
    """An operator's order: a second later every answer is by a new key, though none was due; its job tells how far."""
    config = config_of(database.config, 2 * DAY - 1, 20 * HOUR, buckets=4)
    async with running(database, tmp_path, clock, config) as site:
        await site.step()
        keys = [site.key(await site.issue()) for _ in range(12)]
        await site.revoke(keys[0], Reason.keyCompromise)
        await site.spread()
        await clock.advance(HOUR)
        await site.spread()
        before = {key: site.node.ask(key) for key in keys}
        async with acquire(site.admin) as conn, conn.transaction():
            (row,) = await site.fetch("select id from issuer where name = $1", NAME)
            job, _ = await signer_requests.order_switch(conn, row["id"], NAME, actor="operator:test", at=site.now)
        assert await progress(site, job) == ("ordered", 0)
        await site.spread()
        assert await progress(site, job) == ("requested", 0)
        assert await site.rotation.step() == 1
        assert await progress(site, job) == ("signing", 0)
        await clock.advance(1)  # bulk news are looked for each second
        await site.spread()
        assert await progress(site, job) == ("done", 4)
        (old, _), (new, state) = await signers(site)
        assert state == "active"
        for key in keys:
            said = site.node.ask(key)
            assert (said.signer, before[key].signer) == (new, old)
            assert (said.word, said.reason, said.revoked_at) == (
                before[key].word,
                before[key].reason,
                before[key].revoked_at,
            )
            assert said.this_update == site.now
        assert site.node.ask(("root", new_serial())).word == "unauthorized"
