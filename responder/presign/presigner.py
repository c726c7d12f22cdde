"""The presigner: flow 4 and the middle of flow 2, by whoever of several processes holds the lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Presign
from quash.store import feed, outbox
from quash.store.database import Connection, Pool, acquire
from quash.store.leases import Holder, Lease
from responder.presign.agreement import ClockAgreement, DatabaseTime
from responder.presign.answered import check_answered
from responder.presign.crl_origin import CrlOrigin
from responder.presign.desk import Desk, OpenKey, SigningDesk
from responder.presign.key_watch import KeyWatch
from responder.presign.metrics import LEADING, alarm, switches
from responder.presign.pipeline import Hinted
from responder.presign.published import check_published
from responder.presign.roster import Roster
from responder.presign.rotation import MakeKey
from responder.presign.tenure import Tenure

LEASE = "presign"
_LOOK_EVERY, _LOOK_AGAIN = 3600.0, 30.0  # seconds between looks of who stands by, and after one that found an obstacle
GIVE_UP_AFTER = 30.0
"""Seconds without some key, after which a presigner gives the lease up to one that has them all."""
_TRY_KEYS_EVERY = 15.0
"""Seconds between looks at the keys of who stands by: what takes the key from all is seen there before one gives up."""
STAND_ASIDE = 10.0
"""For so long, which is much longer than the other one needs; then whoever is there goes on."""
KEEP_AFTER_ALL = 600.0
"""Who took the lease back because nobody came does not try that again sooner."""


class Presigner:
    """Signs what OCSP answers and appends it to the feed.

    Contract: `step` does all work due now, or as much as fits into some seconds (`unfinished`), and returns how many
    records it fed; it does nothing while another process holds the lease. Any exception ends the tenure and gives the
    lease up; the next `step` begins anew from what is committed, so nothing is lost and nothing needs repair. Raises
    `store.unavailable`, `lease.lost`, `presign.clock_disagrees`, `presign.revocations_lost` and other QuashErrors: log
    them, wait, step again.

    `crl_folder` is the publish folder, `crl_origin` hands out what that lacks, `cache` is a node's on this machine;
    they are read whenever a tenure begins.
    `open_key` opens an OCSP key by its reference,
    `make_key` makes that of an issuer's next signer. `crew` signs large refreshes, this process when there is none.
    `hinted` waits for a hint of the outbox, so that urgent news overtake what the crew signs. The pool needs two
    connections.
    """

    def __init__(
        self,
        pool: Pool,
        open_key: OpenKey,
        clock: Clock,
        settings: Presign,
        crl_folder: Path,
        *,
        make_key: MakeKey,
        crew: Desk | None = None,
        crl_origin: CrlOrigin | None = None,
        cache: Path | None = None,
        database_time: DatabaseTime = feed.database_time,
        hinted: Hinted = asyncio.sleep,
    ) -> None:
        self._pool = pool
        self._hinted = hinted
        self._holder = Holder(pool, LEASE)
        self._desk = SigningDesk(open_key)
        self._keys = KeyWatch(self._desk, clock)
        self._crew = crew or self._desk
        self._make_key = make_key
        self._clock = clock
        self._settings = settings
        self._crl_folder = crl_folder
        self._crl_origin = crl_origin
        self._cache = cache
        self._agreement = ClockAgreement(clock, database_time)
        self._tenure: Tenure | None = None
        self._looking: asyncio.Task[None] | None = None
        self._look_again_at = 0.0
        self._looked = False
        self._obstacle: BaseException | None = None
        self._look_at_keys_at = 0.0
        self._aside_until = 0.0
        self._keep_until = 0.0
        self._gave_up = False

    @property
    def leading(self) -> bool:
        """Whether this process holds the lease, as far as it knows."""
        return self._tenure is not None

    @property
    def unfinished(self) -> bool:
        """Whether the last step left work that is due: step again without waiting."""
        return self._tenure is not None and self._tenure.unfinished

    @property
    def key_problems(self) -> Mapping[str, str]:
        """By issuer, why the key of its OCSP signer cannot be used; as of the last look, within a minute.

        Also of a process that stands by: it could not take over.
        """
        return self._keys.problems

    @property
    def vouches(self) -> tuple[Roster, Lease] | None:
        """Whose answers may be signed now, by whom, and the lease that allows it; None while another one holds it."""
        return (self._tenure.roster, self._tenure.lease) if self._tenure is not None else None

    async def step(self) -> int:
        if self._clock.monotonic() < self._aside_until:
            return 0
        try:
            lease = await self._holder.hold()
            if lease is None:
                self._gave_up = False  # somebody came
                await self._stand_by()
                return 0
            if self._gave_up:
                self._gave_up, self._keep_until = False, self._clock.monotonic() + KEEP_AFTER_ALL
            if self._tenure is None or self._tenure.lease is not lease:
                self._tenure = await self._begin(lease)
                LEADING.set(1)
            done = await self._tenure.step()
            if await self._should_give_up():
                await self._give_up()
        except BaseException:
            await self._end()
            raise
        return done

    async def _should_give_up(self) -> bool:
        """Not for an offer that is worth no more than what we have: who lacks a key as well makes none."""
        if self._keys.failing_for < GIVE_UP_AFTER or self._clock.monotonic() < self._keep_until:
            return False
        async with acquire(self._pool) as conn:
            return await self._holder.relieved(conn)

    async def _give_up(self) -> None:
        """Nodes look fresh by our heartbeats, while an issuer's revocations do not come out and another could sign."""
        alarm("presign.gave_up", f"another presigner has the keys: {'; '.join(self._keys.problems.values())}")
        await self._end()
        self._aside_until = self._clock.monotonic() + STAND_ASIDE
        self._gave_up = True

    async def close(self) -> None:
        """Gives the lease up and closes the keys."""
        await self._stop_looking()
        await self._end()
        await self._crew.close()
        await self._desk.close()

    async def _stand_by(self) -> None:
        """Looks now and then at all that `_begin` looks at, and fetches CRLs while there is an origin to ask.

        That one may be on the machine whose place this one will take. Who leads is told whether this one could: nobody
        should give up for who then refuses. Raises what the last look found.
        """
        await self._look_at_clocks_and_keys()
        if self._looking is not None and self._looking.done():
            error = self._looking.exception()
            self._looking, self._looked, self._obstacle = None, True, error
            self._look_again_at = self._clock.monotonic() + (_LOOK_EVERY if error is None else _LOOK_AGAIN)
        if self._looking is None and self._clock.monotonic() >= self._look_again_at:
            self._looking = asyncio.create_task(self._look())
        if self._obstacle is not None:
            raise self._obstacle
        await self._holder.offer(ready=self._looked and not self._keys.problems)

    async def _look_at_clocks_and_keys(self) -> None:
        if self._clock.monotonic() >= self._look_at_keys_at:
            async with acquire(self._pool) as conn:
                await self._agreement.now(conn)
                roster = await Roster.load(conn)
            await self._keys.look(roster, int(self._clock.now()))
            self._look_at_keys_at = self._clock.monotonic() + _TRY_KEYS_EVERY

    async def _look(self) -> None:
        async with acquire(self._pool) as conn:
            await self._compare(conn, await Roster.load(conn))

    async def _compare(self, conn: Connection, roster: Roster) -> None:
        """Whether the database still holds what the world was told, by CRLs and by OCSP."""
        await check_published(conn, self._crl_folder, roster.issuers, self._crl_origin)
        if self._cache is not None:
            await check_answered(conn, self._cache, roster.issuers)

    async def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._looking, self._looked, self._obstacle = None, False, None
        self._look_again_at = 0.0  # when this one stands by again, it makes no offer before it has looked

    async def _begin(self, lease: Lease) -> Tenure:
        """Looks whether this clock and this database may be trusted, before anything is signed."""
        await self._stop_looking()
        async with acquire(self._pool) as conn:
            await self._agreement.now(conn)
            roster = await Roster.load(conn)
            self._keys.check_tokens(roster)
            await self._compare(conn, roster)
            readers = {lane: outbox.reader(lane) for lane in (outbox.URGENT, outbox.BULK)}
            for reader in readers.values():
                await reader.load(conn)
        return Tenure(
            pool=self._pool,
            lease=lease,
            readers=readers,
            roster=roster,
            desk=self._desk,
            crew=self._crew,
            agreement=self._agreement,
            clock=self._clock,
            settings=self._settings,
            make_key=self._make_key,
            keys=self._keys,
            hinted=self._hinted,
        )

    async def _end(self) -> None:
        if self._tenure is not None:
            self._tenure.close()
        self._tenure = None
        LEADING.set(0)
        switches((), self._clock.now())  # whoever leads next tells how far they are
        with contextlib.suppress(QuashError):  # without a database the session is gone, and the lease with it
            await self._holder.let_go()
