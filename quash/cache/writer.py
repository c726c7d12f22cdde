"""The writing side of the cache: what the feed says, one commit at a time, the greater record kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import lmdb

from quash.cache import environment as files
from quash.cache import layout
from quash.cache.environment import (
    COMPLETE_KEY,
    GENERATION_KEY,
    HEARTBEAT_KEY,
    MAP_SIZE,
    POSITION_KEY,
    Environment,
    id_key,
)
from quash.errors import QuashError

_ROUNDS = 3
"""In which the records of a commit are written: each third one, then those between."""
_Txn = Any  # lmdb.Transaction, whose types allow for the memoryviews that we never ask for


@dataclass(slots=True)
class Changes:
    """What one commit brings. `records`: (issuer_id, serial, encoded record). `heartbeat`: Unix seconds.

    `position`: of the feed's reader, opaque, stored in the same commit; None leaves it. `complete`: the reader has
    reached the feed's head at least once since this file was made; it is never taken back.
    """

    records: Iterable[tuple[int, bytes, bytes]] = ()
    templates: Iterable[layout.TemplateRow] = ()
    issuers: Iterable[layout.IssuerRow] = ()
    heartbeat: int | None = None
    position: bytes | None = None
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """Octets of the file, and of those the pages that hold something now."""

    file: int
    used: int


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every issuer and signer that the file knows, by id."""

    issuers: dict[int, layout.IssuerRow] = field(default_factory=dict)
    templates: dict[int, layout.TemplateRow] = field(default_factory=dict)


class CacheWriter(Protocol):
    """Applies changes to a node's cache.

    Atomic: a reader sees all of one `apply` or nothing, and the position with it. Idempotent and commutative in records
    and heartbeats: the greatest is kept, so any order and any repetition give the same cache; issuers and templates are
    replaced by id, since their rows do not change their meaning. A killed process loses no commit; a machine that stops
    loses the cache, which is then built again. One writer at a time; calls block. Raises QuashError `cache.full` when
    disk or map is full and `cache.unavailable` when the system says no (nothing of the call is applied, a later call
    may succeed), `cache.damaged` when the file is to be deleted, and `cache.given_up` when it takes a new start to know
    that. It never retries.
    """

    def apply(self, changes: Changes) -> int:
        """Returns how many records were new or greater."""

    def position(self) -> bytes | None: ...

    def heartbeat(self) -> int | None: ...

    def complete(self) -> bool: ...

    def catalog(self) -> Catalog: ...

    def sweep(self, after: bytes, limit: int, expired_before: int) -> bytes:
        """Looks at `limit` records from key `after` on and removes those whose nextUpdate lies before `expired_before`.

        Returns where to go on, b"" at the end. Removing such a record is safe in any order (A12): nothing past its
        nextUpdate is served, and a greater one that arrives later is kept as before.
        """

    def size(self) -> Size: ...

    def rebuild(self) -> None:
        """Starts again with an empty file; readers notice within a second."""

    def close(self) -> None: ...


class LmdbWriter:
    """CacheWriter on the LMDB file in `folder`, which it makes when it is missing and makes anew when it is damaged."""

    def __init__(self, folder: Path, map_size: int = MAP_SIZE) -> None:
        self._folder = folder
        self._map_size = map_size
        self.rebuilt = ""  # why the file was deleted at opening, for the log
        try:
            self.environment = files.open_for_writing(folder, map_size)
        except QuashError as error:
            if error.code != "cache.damaged":
                raise
            self.rebuilt = error.message
            files.delete(folder)
            self.environment = files.open_for_writing(folder, map_size)

    def apply(self, changes: Changes) -> int:
        greatest: dict[bytes, bytes] = {}
        for issuer_id, serial, record in changes.records:
            key = layout.record_key(issuer_id, serial)
            if record > greatest.get(key, b""):
                greatest[key] = record
        env = self.environment
        # A killed reader keeps its slot, and with it every page it could still read: the file would grow for ever.
        env.env.reader_check()
        with self._writing() as txn:
            applied = _apply_records(txn, env, greatest)
            _apply_catalog(txn, env, changes)
            if changes.heartbeat is not None and changes.heartbeat > (_heartbeat(txn, env) or -1):
                txn.put(HEARTBEAT_KEY, layout.encode_heartbeat(changes.heartbeat), db=env.meta)
            if changes.position is not None:
                txn.put(POSITION_KEY, changes.position, db=env.meta)
            if changes.complete:
                txn.put(COMPLETE_KEY, b"1", db=env.meta)
        return applied

    def position(self) -> bytes | None:
        with self._reading() as txn:
            position: bytes | None = txn.get(POSITION_KEY, db=self.environment.meta)
            return position

    def heartbeat(self) -> int | None:
        with self._reading() as txn:
            return _heartbeat(txn, self.environment)

    def complete(self) -> bool:
        with self._reading() as txn:
            return txn.get(COMPLETE_KEY, db=self.environment.meta) is not None

    def catalog(self) -> Catalog:
        with self._reading() as txn:
            return read_catalog(txn, self.environment)

    def sweep(self, after: bytes, limit: int, expired_before: int) -> bytes:
        with self._reading() as txn:
            cursor = txn.cursor(db=self.environment.records)
            found = cursor.set_range(after) if after else cursor.first()
            dead, last, seen = [], b"", 0
            while found and seen < limit:
                last, record = cursor.item()
                if layout.decode_record(record).next_update < expired_before:
                    dead.append((last, record))
                seen += 1
                found = cursor.next()
        if dead:
            with self._writing() as txn:
                for key, record in dead:
                    if txn.get(key, db=self.environment.records) == record:
                        txn.delete(key, db=self.environment.records)
        return last + b"\0" if found else b""

    def size(self) -> Size:
        env = self.environment
        with self._reading() as txn:
            pages = sum(
                stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
                for stat in (txn.stat(db) for db in (env.records, env.issuers, env.signers, env.meta))
            )
        return Size(env.path.stat().st_size, pages * env.env.stat()["psize"])

    def rebuild(self) -> None:
        self.environment.close()
        files.delete(self._folder)
        self.environment = files.open_for_writing(self._folder, self._map_size)

    def close(self) -> None:
        """Leaves a file that is trusted after a reboot, too, if the disk allows."""
        with contextlib.suppress(lmdb.Error):
            files.release_mark(self.environment)
        self.environment.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[_Txn]:
        try:
            with self.environment.env.begin(write=True) as txn:
                yield txn
        except lmdb.Error as error:
            raise files.failure(self.environment.path, error) from error
        except QuashError as error:
            raise self._misread(error) from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[_Txn]:
        try:
            with self.environment.env.begin() as txn:
                yield txn
        except lmdb.Error as error:
            raise files.failure(self.environment.path, error) from error
        except QuashError as error:
            raise self._misread(error) from error

    def _misread(self, error: QuashError) -> QuashError:
        """What is read and is not what anybody wrote is damage; a later release's format is not."""
        return files.damaged(self.environment.path, error.message) if error.code == "cache.bad_layout" else error


def read_catalog(txn: _Txn, env: Environment) -> Catalog:
    issuers = [layout.decode_issuer(value) for _, value in txn.cursor(db=env.issuers)]
    templates = [layout.decode_template(value) for _, value in txn.cursor(db=env.signers)]
    return Catalog({row.issuer_id: row for row in issuers}, {row.signer_id: row for row in templates})


def _apply_records(txn: _Txn, env: Environment, greatest: dict[bytes, bytes]) -> int:
    get, put, records = txn.get, txn.put, env.records
    applied = 0
    for key in _in_order_of_writing(greatest):
        record = greatest[key]
        old = get(key, db=records)
        if old is None or record > old:
            put(key, record, db=records)
            applied += 1
    return applied


def _in_order_of_writing(keys: Iterable[bytes]) -> Iterator[bytes]:
    """Neighbours share pages, so in order; though not in one go.

    A page that is full is split in the middle. Where a run of new keys falls between others, as an import's buckets
    do, everything ascending would leave nearly each page behind half empty: 300 octets a record, so 220 (measured).
    """
    ordered = sorted(keys)
    for first in range(_ROUNDS):
        yield from ordered[first::_ROUNDS]


def _apply_catalog(txn: _Txn, env: Environment, changes: Changes) -> None:
    """Raises the generation only when something changed: readers then load the catalog again."""
    rows = [(env.issuers, id_key(row.issuer_id), layout.encode_issuer(row)) for row in changes.issuers]
    rows += [(env.signers, id_key(row.signer_id), layout.encode_template(row)) for row in changes.templates]
    changed = False
    for table, key, value in rows:
        if txn.get(key, db=table) != value:
            txn.put(key, value, db=table)
            changed = True
    if changed:
        generation = int.from_bytes(txn.get(GENERATION_KEY, b"", db=env.meta), "big") + 1
        txn.put(GENERATION_KEY, generation.to_bytes(8, "big"), db=env.meta)


def _heartbeat(txn: _Txn, env: Environment) -> int | None:
    value = txn.get(HEARTBEAT_KEY, db=env.meta)
    return None if value is None else layout.decode_heartbeat(value)
