"""Flow 4's reading side: due buckets, their certificates, and how much to sign at once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from quash.store import buckets, statuses
from quash.store.buckets import Bucket
from quash.store.database import Connection
from quash.store.statuses import CertificateStatus

_MOST_BUCKETS = 64
_ENOUGH = 2000


@dataclass(slots=True, eq=False)
class Pass:
    """A complete pass over some buckets of one issuer: all their statuses, read at `as_of`.

    `xmin` is of a snapshot taken before any of them was read, `signer_id` of who signed then: whatever the pass or
    later news say of these buckets is signed by that one or a newer one. The pass is complete once `rest` is empty and
    nothing is `out`: being signed, or signed and not fed yet (slices).
    """

    issuer_id: int
    buckets: list[Bucket]
    as_of: int
    xmin: int
    signer_id: int | None = None
    rest: list[CertificateStatus] = field(default_factory=list)
    out: int = 0
    begun: bool = False
    large: bool = False

    @property
    def complete(self) -> bool:
        return not self.rest and not self.out

    @property
    def keys(self) -> set[tuple[int, int]]:
        return {(bucket.issuer_id, bucket.bucket) for bucket in self.buckets}

    def take(self, count: int) -> list[CertificateStatus]:
        """The next statuses to sign."""
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken


async def begin_pass(
    conn: Connection, as_of: int, without_issuers: Collection[int], without: Collection[tuple[int, int]] = ()
) -> Pass | None:
    """Reads the buckets that have been due longest, several small ones at once; None: nothing is due.

    `without`: buckets (issuer id, bucket) that another pass is at.
    """
    found = await buckets.due(conn, as_of, _MOST_BUCKETS + len(without), without_issuers)
    due = [bucket for bucket in found if (bucket.issuer_id, bucket.bucket) not in without]
    if not due:
        return None
    begun = Pass(due[0].issuer_id, [], as_of, await buckets.snapshot_xmin(conn))
    for bucket in due:
        begun.rest += await statuses.in_bucket(conn, bucket.issuer_id, bucket.bucket, as_of)
        begun.buckets.append(bucket)
        if len(begun.rest) >= _ENOUGH:
            break
    return begun


class Pace:
    """How many records to sign in one go, so that urgent news never wait longer than about `target` seconds for it."""

    def __init__(self, target: float = 0.05, least: int = 16, most: int = 1000) -> None:
        self._target, self._least, self._most = target, least, most
        self.size = 4 * least

    def learn(self, count: int, seconds: float) -> None:
        """`count` records took `seconds`; grows at most twofold, so that one lucky measurement does no harm."""
        most = min(2 * self.size, self._most)
        fits_most = seconds * most <= count * self._target
        self.size = most if fits_most else max(self._least, int(count * self._target / seconds))
