"""What the presigner does while it holds the lease: news become records, due buckets are refreshed, the feed is kept.

1. **Read** news from the outbox, urgent lane first, or the next slice of a due bucket: what OCSP must say now.
2. **Permit**: no first `good` without proof that the issuer signed the certificate (`permit`).
3. **Sign** both CertID hashes of each, and check a sample as a stranger would (`desk`, `crew`, `signing`). News are
   signed here and now (`news_signing`); slices of buckets by the crew, several at once, while the next ones are read
   and fed (`pipeline`).
4. **Feed**: in one transaction compare the fence, append the records, and remember how far the news were taken up.

A crash, an error or a lost lease before 4 has written nothing, and the same news are read again. What could not be
signed (no signer, key away: `obstacles`) makes its bucket due in 4, which is durable, and does not hold up the other
issuers. What is due by the clock, and how long a step may take, says the `timetable`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from quash.cache.layout import encode_heartbeat, join_batches
from quash.pki.rules import RESPONSE_VALIDITY_MAX
from quash.runtime.clock import Clock
from quash.runtime.config import Presign
from quash.store import buckets, outbox, rates, signer_switches, statuses
from quash.store.database import Connection, Pool, acquire
from quash.store.feed import BULK, URGENT, FeedRow
from quash.store.leases import Lease
from quash.store.news import NewsReader, Position
from quash.store.ocsp_signers import OcspSigner
from quash.store.outbox import News
from quash.store.statuses import CertificateStatus
from responder.presign.agreement import ClockAgreement
from responder.presign.desk import Desk
from responder.presign.feeder import Feeder, Within
from responder.presign.key_watch import KeyWatch
from responder.presign.metrics import BATCH_SECONDS, SIGNED, alarm, switches
from responder.presign.news_signing import NewsSigner
from responder.presign.obstacles import Obstacles
from responder.presign.permit import Key, Permitted, needs_proof, permit
from responder.presign.pipeline import Hinted, Pipeline, until_hinted
from responder.presign.refresh import Pace, Pass
from responder.presign.roster import Roster
from responder.presign.rotation import MakeKey, SignerRotation
from responder.presign.schedule import next_due
from responder.presign.signing import Batch
from responder.presign.throughput import Throughput
from responder.presign.timetable import Timetable
from responder.presign.upkeep import Upkeep

HEARTBEAT_EVERY = 1.0
MAINTAIN_EVERY = 60.0
ROTATE_EVERY = 60.0
TELL_SWITCHES_EVERY = 10.0
BACKGROUND_EVERY = 0.25
"""How often bulk news and due buckets are looked for, and bulk news while buckets are signed; urgent news are at every
step. A mass revocation has its next buckets ready about as often, and no core should wait for them."""
NEWS_BATCH = 500
CREW_BATCH = 4000
"""Bulk news at once, when there are as many: they are signed by the crew, in slices."""

_LANES = {URGENT: "urgent", BULK: "bulk"}


class _Taken(NamedTuple):
    """How many records a batch of news became, and whether there were more news than it holds."""

    records: int
    more: bool


class Tenure:
    """One holding of the lease. Everything it keeps in memory dies with it: after any exception, begin a new one.

    `readers`: of the outbox's lanes, where the database has them standing. `roster`: as of now, and replaced with news.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        lease: Lease,
        readers: Mapping[int, NewsReader],
        roster: Roster,
        desk: Desk,
        crew: Desk,
        agreement: ClockAgreement,
        clock: Clock,
        settings: Presign,
        make_key: MakeKey,
        keys: KeyWatch,
        hinted: Hinted,
    ) -> None:
        self._until = until_hinted(hinted)
        self.lease = lease
        self._pool = pool
        self._desk = desk
        self._agreement = agreement
        self._clock = clock
        self._settings = settings
        self.roster = roster
        self._feeder = Feeder(
            pool,
            lease,
            clock,
            lambda now: self.roster.announcement(now, RESPONSE_VALIDITY_MAX - 1, settings.feed_format),
        )
        self._readers = readers
        self._pace = Pace()
        self._throughput = Throughput()
        self._crew = crew
        self._pipeline = Pipeline(
            desk, crew, agreement, permit=self._permit, choose=self._choose, validity=settings.validity
        )
        self._rotation = SignerRotation(pool, lease, make_key, clock)
        self._timetable = Timetable(clock)
        self._obstacles = Obstacles(keys, self._timetable, clock)
        self._news = NewsSigner(
            desk=desk,
            crew=crew,
            choose=self._choose,
            obstacles=self._obstacles,
            pace=self._pace,
            clock=clock,
            validity=settings.validity,
        )
        self._upkeep = Upkeep(pool, self._feeder, readers, clock, settings)
        self._latest: int | None = None
        self._bulk_behind: int | None = None

    @property
    def unfinished(self) -> bool:
        """Whether the last step left work that is due."""
        return self._timetable.unfinished

    async def step(self) -> int:
        """Does work due now, urgent news before each part of anything else; returns how many records it fed.

        All of it, or what some seconds are enough for (`unfinished`): what is not about records must not wait for it.
        """
        done, all_read = 0, False
        self._timetable.begin_step()
        await self._obstacles.look(self.roster)
        await self._mend_set_back()
        while True:
            urgent = await self._take_news(URGENT)
            await self._heartbeat()
            done += urgent.records if urgent is not None else 0
            if self._timetable.step_is_over():
                break
            if urgent is not None and urgent.more:
                continue
            if not self._timetable.is_due("background"):
                break  # what was committed since that reading has sent its own hint
            if self._timetable.is_due("bulk"):
                if (bulk := await self._take_news(BULK)) is not None:
                    done += bulk.records
                    continue
                self._timetable.done("bulk", BACKGROUND_EVERY)
                all_read = True
            if (count := await self._refresh()) is not None:
                done, all_read = done + count, False
            elif all_read:
                self._timetable.done("background", BACKGROUND_EVERY)
            else:
                self._timetable.at_once("bulk")  # what came while the last ones were signed
        await self._rotate()
        await self._tell_switches()
        await self._maintain()
        return done

    def close(self) -> None:
        """What is being signed is not waited for."""
        self._pipeline.close()

    async def _mend_set_back(self) -> None:
        """Before anything hides the traces in the database: when the tenure begins, and when our clock goes back."""
        now = int(self._clock.now())
        if self._latest is not None and now >= self._latest - buckets.CLOCK_SLACK:
            self._latest = max(self._latest, now)
            return

        async def within(conn: Connection) -> None:
            if count := await buckets.mark_due_after_set_back(conn, now):
                alarm("presign.clock_set_back", f"signed by a clock since set back, signed again: {count} buckets")

        await self._feeder.write([], within)
        self._latest = now
        self._timetable.at_once("background")

    async def _heartbeat(self) -> None:
        """Tells nodes each second that the feed is alive; not while the clocks disagree, nor without the lease."""
        if not self._timetable.is_due("heartbeat"):
            return
        async with acquire(self._pool) as conn:
            now = await self._agreement.now(conn)
        await self._feeder.write([FeedRow(URGENT, "heartbeat", None, encode_heartbeat(now))])
        self._timetable.done("heartbeat", HEARTBEAT_EVERY)

    async def _take_news(self, lane: int) -> _Taken | None:
        """One batch of a lane of the outbox; None: there is no news."""
        began = self._clock.monotonic()
        reader = self._readers[lane]
        async with acquire(self._pool) as conn:
            size = CREW_BATCH if lane == BULK and self._crew is not self._desk else min(NEWS_BATCH, self._pace.size)
            batch = await reader.read(conn, size)
            news = outbox.news(batch)
            if not news:
                await self._tell_taken_up(lane, reader.name, batch.position)
                reader.accept(batch)
                return None
            await self._learn_hierarchy(conn, news)
            as_of = await self._agreement.now(conn)
            keys = {(item.issuer_id, item.serial) for item in news if item.serial is not None}
            permitted = permit(*await statuses.with_certificates(conn, keys, as_of), self.roster.parsed_certificates)
        large = len(news) > NEWS_BATCH
        if large:
            before = self._signer_ids(permitted)
            signed = await self._news.by_crew(permitted.statuses, as_of, self._until, self._meanwhile)
            if self._signer_ids(permitted) != before:
                return _Taken(0, more=True)  # perhaps one of them is revoked: they are read again
        else:
            signed = await self._news.by_desk(permitted.statuses, as_of)
        dirty = {(item.issuer_id, item.bucket) for item in news if item.bucket is not None}
        dirty |= {(status.issuer_id, status.bucket) for status in signed.unsigned}
        self._pipeline.drop(dirty)  # those passes read their buckets before the news: they are read again

        rate = self._throughput.add(signed.records, self._clock.monotonic()) if large else None

        async def within(conn: Connection) -> None:
            if rate is not None:
                await rates.keep(conn, rates.SIGNING, rate, as_of)
            if dirty:
                await buckets.mark_due(conn, dirty, as_of)

        await self._feed(
            lane,
            signed.batches,
            began,
            within if dirty or rate is not None else None,
            proven=permitted.proven_of(signed.unsigned),
            taken_up=(reader.name, batch.position),
        )
        reader.accept(batch)
        if lane == BULK:
            self._bulk_behind = batch.rows[-1]["news_tx"]
        if dirty:
            self._timetable.at_once("background")
        return _Taken(signed.records, batch.more)

    async def _tell_taken_up(self, lane: int, reader: str, position: Position) -> None:
        """With the last bulk news a position often lies before them: who looks at how much is left must not wait."""
        if lane == BULK and self._bulk_behind is not None and position.tx > self._bulk_behind:
            await self._feeder.write([], taken_up=(reader, position))
            self._bulk_behind = None

    async def _refresh(self) -> int | None:
        """What the crew has signed by now, and new work for it; None: no bucket is due and nothing is being signed."""
        began = self._clock.monotonic()
        async with acquire(self._pool) as conn:
            await self._pipeline.fill(conn, self._pace.size, self._obstacles.paused_issuers())
        if self._pipeline.idle:
            return None
        signed = await self._pipeline.signed(self._until)
        for each in signed:
            if each.error is not None:
                self._obstacles.pause(each.of.issuer_id, each.error, each.count)
            elif each.count and not each.of.large:
                self._pace.learn(each.count, each.seconds)
        good = [each for each in signed if each.error is None]
        if not good:
            return 0

        large = sum(each.count for each in good if each.of.large)
        rate = self._throughput.add(large, self._clock.monotonic()) if large else None

        async def within(conn: Connection) -> None:
            if rate is not None:
                await rates.keep(conn, rates.SIGNING, rate, good[0].of.as_of)
            for done in {each.of: None for each in good}:
                if self._pipeline.completes(done, good):
                    await self._finish(conn, done)

        batches = [each.batch for each in good if each.batch is not None]
        await self._feed(BULK, batches, began, within, proven=[key for each in good for key in each.permitted.proven])
        self._pipeline.fed(good)
        return sum(each.count for each in good)

    async def _finish(self, conn: Connection, done: Pass) -> None:
        """A5 cuts validities near the end of a signer, and A2 and A3 then want the next pass sooner.

        So does a signer that begins within seconds, by the CA signer's clock: what was passed by the one before it is
        passed again, or an emergency switch would leave answers by the old key for a whole cycle.
        """
        validity = self.roster.validity(done.issuer_id, done.as_of, self._settings.validity)
        coming = self.roster.next_signer_at(done.issuer_id, done.as_of)
        for bucket in done.buckets:
            due_at = next_due(
                began=done.as_of,
                bucket=bucket.bucket,
                bucket_count=bucket.bucket_count,
                every=self._settings.refresh_every,
                validity=validity,
            )
            if coming is not None:
                due_at = min(due_at, coming)
            await buckets.finish_pass(
                conn,
                bucket,
                passed_at=done.as_of,
                pass_xmin=done.xmin,
                due_at=due_at,
                signer_id=done.signer_id,
            )

    async def _learn_hierarchy(self, conn: Connection, news: Collection[News]) -> None:
        signers = self.roster.signer_keys
        if any(
            item.kind in ("issuer", "signer")
            or item.issuer_id not in self.roster
            or (item.issuer_id, item.serial) in signers
            for item in news
        ):
            self.roster = await Roster.load(conn)
            self._pipeline.drop_replaced(int(self._clock.now()))
            self._feeder.announce_again()
            self._obstacles.clear()
            self._timetable.at_once("rotation")  # perhaps an operator ordered a switch

    async def _permit(self, conn: Connection, found: Collection[CertificateStatus]) -> Permitted:
        keys = [(status.issuer_id, status.serial) for status in found if needs_proof(status)]
        certificates = await statuses.certificates(conn, keys) if keys else {}
        return permit(found, certificates, self.roster.parsed_certificates)

    def _signer_ids(self, permitted: Permitted) -> set[int | None]:
        """Of the issuers of these statuses, who would sign now."""
        now = int(self._clock.now())
        return {
            self._pipeline.signer_id(issuer_id, now) for issuer_id in {each.issuer_id for each in permitted.statuses}
        }

    async def _meanwhile(self) -> None:
        await self._take_news(URGENT)
        await self._heartbeat()

    def _choose(self, issuer_id: int, as_of: int) -> tuple[OcspSigner, bytes]:
        """Who signs an issuer's answers, and the issuer's certificate. Raises `presign.no_signer` and its kin."""
        return self.roster.signer(issuer_id, as_of), self.roster.certificate(issuer_id)

    async def _feed(
        self,
        lane: int,
        batches: Sequence[Batch],
        began: float,
        within: Within | None,
        *,
        proven: Collection[Key],
        taken_up: tuple[str, Position] | None = None,
    ) -> None:
        """Proofs are remembered with the very records that rest on them, and only with those."""
        records = sum(each.count for each in batches)
        rows = [FeedRow(lane, "records", None, join_batches([each.payload for each in batches]))] if records else []
        await self._feeder.write(rows, within, proven=proven, taken_up=taken_up)
        SIGNED.labels(_LANES[lane]).inc(records)
        BATCH_SECONDS.labels(_LANES[lane]).observe(self._clock.monotonic() - began)

    async def _rotate(self) -> None:
        if self._timetable.is_due("rotation"):
            await self._rotation.step(self.roster)
            self._timetable.done("rotation", ROTATE_EVERY)

    async def _tell_switches(self) -> None:
        if self._timetable.is_due("switches"):
            async with acquire(self._pool) as conn:
                switches(await signer_switches.under_way(conn), self._clock.now())
            self._timetable.done("switches", TELL_SWITCHES_EVERY)

    async def _maintain(self) -> None:
        if self._timetable.is_due("maintenance"):
            await self._upkeep.run()
            self._timetable.done("maintenance", MAINTAIN_EVERY)
