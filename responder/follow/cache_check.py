"""What `quash cache fsck` does: every record judged as a follower judges what the feed brings, and held against the
database where that is allowed.

Records are read in slices, each in a read transaction of its own: one that stays open while millions of signatures are
verified would pin every page that the follower replaces meanwhile.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from quash.cache import layout
from quash.cache.environment import Environment
from quash.cache.layout import Record, decode_record, encode_batch, record_key
from quash.cache.writer import Catalog, read_catalog
from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.store import issuers, statuses
from quash.store.database import Connection
from quash.store.statuses import CertificateStatus
from responder.follow.trust import Limits, Trust

SLICE = 2000
LARGE = 20_000
"""Records from which on it is worth to start a process for each core."""
LATE = 24 * 3600
"""Seconds of age that no answer may reach while anybody refreshes them (G3)."""
SETTLED = 3.0
"""Seconds after which a change in the database has reached a node that follows it."""
_SHOWN = 20

Item = tuple[int, bytes, bytes]
Progress = Callable[[int], None]


@dataclass(slots=True)
class Check:
    """What was found; of both lists the first few, the counts have all.

    `faults`: records that nobody may serve. `expired`: past nextUpdate, which no node serves; `late`: older than a day
    and served. Both are in order where the certificate has ended, which the database alone knows. `disagreements`: what
    the database says otherwise, and what is expired or late of certificates that have not ended.
    """

    records: int = 0
    expired: int = 0
    late: int = 0
    fault_count: int = 0
    faults: list[str] = field(default_factory=list)
    compared: int = 0
    disagreement_count: int = 0
    disagreements: list[str] = field(default_factory=list)

    def add_faults(self, found: list[str]) -> None:
        self.fault_count += len(found)
        self.faults += found[: _SHOWN - len(self.faults)]

    def add_disagreements(self, found: list[str]) -> None:
        self.disagreement_count += len(found)
        self.disagreements += found[: _SHOWN - len(self.disagreements)]


def record_count(environment: Environment) -> int:
    with environment.env.begin() as txn:
        return int(txn.stat(environment.records)["entries"])


def verify(environment: Environment, now: int, check: Check, progress: Progress) -> None:
    """Both signatures of every record under its issuer's signer, its times, and how fresh it is. Blocks."""
    try:
        with environment.env.begin() as txn:
            catalog = read_catalog(txn, environment)
    except QuashError as error:
        check.add_faults([f"issuers and signers: {error.message}"])
        return
    if record_count(environment) < LARGE:
        _begin(catalog)
        for part in _slices(environment):
            _note(check, part, _judge(part, now), now, progress)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _begin, (catalog,)) as pool:
        waiting = []
        for part in _slices(environment):
            waiting.append((part, pool.submit(_judge, part, now)))
            if len(waiting) > 2 * (os.cpu_count() or 1):
                done, judged = waiting.pop(0)
                _note(check, done, judged.result(), now, progress)
        for done, judged in waiting:
            _note(check, done, judged.result(), now, progress)


async def compare(environment: Environment, conn: Connection, clock: Clock, check: Check, progress: Progress) -> None:
    """Every record with the database's status, and every certificate that must have a record with the cache.

    What disagrees is looked at again after `SETTLED`: the database may have changed a moment ago.
    """
    now, wrong = int(clock.now()), set[tuple[int, bytes]]()
    for part in _slices(environment):
        said = {(each.issuer_id, each.serial): each for each in await statuses.of(conn, _keys(part), 0)}
        wrong |= {
            (issuer_id, serial)
            for issuer_id, serial, record in part
            if _disagreement(record, said.get((issuer_id, serial)), now)
        }
        check.compared += len(part)
        progress(len(part))
    for issuer in await issuers.all_issuers(conn):
        for bucket in range(issuer.bucket_count):
            for status in await statuses.in_bucket(conn, issuer.id, bucket, now):
                if _record(environment, status) is None and _is_answered(status):
                    wrong.add((status.issuer_id, status.serial))
    if wrong:
        await clock.sleep(SETTLED)
        said = {(each.issuer_id, each.serial): each for each in await statuses.of(conn, sorted(wrong), 0)}
        for key in sorted(wrong):
            data = _get(environment, record_key(*key))
            if what := _disagreement(data, said.get(key), int(clock.now())):
                check.add_disagreements([f"issuer {key[0]} serial {key[1].hex()}: {what}"])


def _disagreement(data: bytes | None, said: CertificateStatus | None, now: int) -> str:
    """What is wrong between a record and the database's row; "": nothing, or another check tells it."""
    try:
        record = None if data is None else decode_record(data)
    except QuashError:
        return ""
    if record is None:
        return "no answer for a certificate that must have one (A7)" if said and _is_answered(said) else ""
    if said is None:
        return "" if record.next_update < now else "the database does not know it"
    return _between(record, said, now)


def _between(record: Record, said: CertificateStatus, now: int) -> str:
    if said.not_after >= now > record.next_update:
        return "past nextUpdate, and its certificate has not ended"
    if (record.version, record.reason, record.revoked_at) != (said.version, said.reason, said.revoked_at):
        return f"the cache says {_status(record)}, the database {_status(said)}"
    if said.not_after >= now and record.this_update < now - LATE:
        return "older than a day (G3), and its certificate has not ended"
    return ""


def _status(said: Record | CertificateStatus) -> str:
    if said.reason is None:
        return "good"
    return f"revoked at {said.revoked_at} with reason {said.reason} (version {said.version})"


def _is_answered(status: CertificateStatus) -> bool:
    """A reserved serial has no answer until it is signed or revoked (`responder.presign.permit`)."""
    return status.version > 0 or status.proven or status.state == "imported"


def _slices(environment: Environment) -> Iterator[list[Item]]:
    after = b""
    while True:
        with environment.env.begin() as txn:
            cursor = txn.cursor(db=environment.records)
            found = cursor.set_range(after) if after else cursor.first()
            entries = list(islice(cursor.iternext(), SLICE)) if found else []
        if not entries:
            return
        yield [(*layout.split_key(key), value) for key, value in entries if len(key) > 2]
        after = entries[-1][0] + b"\0"


def _keys(part: list[Item]) -> list[tuple[int, bytes]]:
    return [(issuer_id, serial) for issuer_id, serial, _ in part]


def _record(environment: Environment, status: CertificateStatus) -> bytes | None:
    return _get(environment, record_key(status.issuer_id, status.serial))


def _get(environment: Environment, key: bytes) -> bytes | None:
    with environment.env.begin(environment.records) as txn:
        found: bytes | None = txn.get(key)
        return found


_trust: Trust | None = None


def _begin(catalog: Catalog) -> None:
    global _trust  # noqa: PLW0603 - the one thing that a checking process has
    _trust = Trust(catalog, Limits())


def _judge(part: list[Item], now: int) -> list[str]:
    """As a follower judges urgent news: every signature."""
    assert _trust is not None  # noqa: S101 - `_begin` ran
    judgement = _trust.records(encode_batch(part), urgent=True, now=now)
    return [f"{refusal.code}: {refusal.detail}" for refusal in judgement.refused]


def _note(check: Check, part: list[Item], faults: list[str], now: int, progress: Progress) -> None:
    check.records += len(part)
    check.add_faults(faults)
    for _, _, data in part:
        try:
            record = decode_record(data)
        except QuashError:
            continue
        check.expired += record.next_update < now
        check.late += record.this_update < now - LATE and record.next_update >= now
    progress(len(part))
