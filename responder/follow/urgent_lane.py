"""The urgent lane at the follower: revocations and new certificates overtake a backlog of other rows in the feed.

The feed's reader goes on through the backlog, row by row; its position alone is kept, and its heartbeats alone say how
fresh the node is. Beside it this reader takes the urgent rows ahead of it, which come to the other one later:

- A record is a maximum, so one that is applied early is applied; an older one that the backlog brings changes nothing.
- Killed at any time, it has nothing to remember: the rows still lie ahead of the position in the cache.
- It judges with a trust of its own, forked from the feed's reader's. What an issuer may do by now, a shorter validity
  perhaps, must not have older records of the backlog refused.
- What it was given for good, the feed's reader need not verify a second time (`has`): every urgent row of a transaction
  below its position, in the same order (quash.store.news). That stands for as long as the server does which said so:
  whoever asks keeps one connection, and forgets the lane with it, or when the feed's reader begins anew.
"""

from __future__ import annotations

from typing import Any

from quash.store.database import Connection
from quash.store.feed import URGENT, news_reader
from quash.store.news import Batch, Position
from responder.follow.trust import Trust

OCTETS_AT_ONCE = 150_000  # a thousand P-256 records: each signature is verified, which takes a quarter of a second
_WHERE = f"kind in ('issuer', 'template') or (kind = 'records' and lane = {URGENT})"


class UrgentLane:
    """What lies ahead of `position`, where the feed's reader stands in a backlog; `trust` is that reader's."""

    def __init__(self, position: Position, trust: Trust) -> None:
        self._reader = news_reader("follower-urgent", heaviest=OCTETS_AT_ONCE, where=_WHERE)
        self._reader.resume(position)
        self._stopped = False
        self.trust = trust.fork()

    async def read(self, conn: Connection, limit: int) -> Batch | None:
        """The next rows; None: none may be read ahead. That the feed is another one, its own reader will see."""
        before = self._reader.position
        batch = None if self._stopped else await self._reader.read(conn, limit)
        return batch if self._reader.position == before else None

    def accept(self, batch: Batch) -> None:
        """Its rows were applied, in a commit that stands."""
        self._reader.accept(batch)

    def stop(self) -> None:
        """Reads no further: there lies what is not understood, where the feed's reader is to stand still."""
        self._stopped = True

    def has(self, row: Any) -> bool:
        """Whether this row of the feed need not be looked at any more."""
        urgent = row["lane"] == URGENT and row["kind"] == "records"
        return bool(urgent and row["news_tx"] < self._reader.position.tx)
