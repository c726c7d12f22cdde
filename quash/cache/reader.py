"""The reading side of the cache, as the responder's workers have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lmdb

from quash.cache import environment as files
from quash.cache import layout
from quash.cache.environment import COMPLETE_KEY, GENERATION_KEY, HEARTBEAT_KEY, Environment
from quash.cache.writer import Catalog, read_catalog
from quash.errors import Kind, QuashError


@dataclass(frozen=True, slots=True)
class CacheState:
    """What may change from second to second.

    `heartbeat`: the newest applied one, Unix seconds, None before the first. `complete`: the file has held everything
    that the feed had. `generation` is another one after every change of the catalog.
    """

    heartbeat: int | None
    complete: bool
    generation: tuple[int, int]


class CacheReader(Protocol):
    """Reads a node's cache, while another process writes it.

    `get` sees the newest commit and holds a read transaction for that one look-up alone, since one held longer pins old
    pages. Nothing is copied at opening. `state` and `catalog` are for once a second: `state` also notices a file that
    was replaced, and is to be called once before any `get`. All raise QuashError `cache.missing` while there is no file
    and `cache.unreadable` when it is damaged; a later call may succeed. Not for use by several threads.
    """

    def get(self, key: bytes) -> bytes | None:
        """The encoded record of a `layout.record_key`."""

    def state(self) -> CacheState: ...

    def catalog(self) -> Catalog: ...

    def close(self) -> None: ...


class _Opened(Protocol):
    environment: Environment


class LmdbReader:
    """CacheReader on the LMDB file in `folder`; or, in its writer's own process, on what the writer has open."""

    def __init__(self, folder: Path | None = None, *, shared: _Opened | None = None) -> None:
        if (folder is None) == (shared is None):
            raise ValueError("a folder or a writer, one of them")
        self._folder = folder
        self._shared = shared
        self._environment: Environment | None = None
        self._begin: Callable[[Any], Any] | None = None  # these two for `get` alone, which is called for every answer
        self._records: Any = None
        self._files = 0

    def get(self, key: bytes) -> bytes | None:
        begin = self._begin  # called faster from a local name
        if begin is None:
            raise _missing()
        try:
            # The transaction ends with the statement, by its reference count; a `with` would take a quarter longer.
            found: bytes | None = begin(self._records).get(key)
        except lmdb.Error as error:
            raise _unreadable(error) from error
        return found

    def state(self) -> CacheState:
        environment = self._current()
        try:
            with environment.env.begin(environment.meta) as txn:
                heartbeat = txn.get(HEARTBEAT_KEY)
                generation = int.from_bytes(txn.get(GENERATION_KEY, b""), "big")
                complete = txn.get(COMPLETE_KEY) is not None
        except lmdb.Error as error:
            raise _unreadable(error) from error
        at = None if heartbeat is None else layout.decode_heartbeat(heartbeat)
        return CacheState(at, complete, (self._files, generation))

    def catalog(self) -> Catalog:
        environment = self._current()
        try:
            with environment.env.begin() as txn:
                return read_catalog(txn, environment)
        except lmdb.Error as error:
            raise _unreadable(error) from error

    def close(self) -> None:
        if self._environment is not None and self._folder is not None:
            self._environment.close()
        self._environment = self._begin = None

    def _current(self) -> Environment:
        """Opens the file when it is not open, and again when its path names another one by now."""
        environment = self._environment
        if self._shared is not None:
            current = self._shared.environment
        elif environment is not None and not environment.replaced:
            current = environment
        else:
            self.close()
            assert self._folder is not None  # noqa: S101 (the constructor's condition)
            current = files.open_for_reading(self._folder)
        if current is not environment:
            self._environment = current
            self._begin, self._records = current.env.begin, current.records
            self._files += 1
        return current


def _missing() -> QuashError:
    return QuashError("cache.missing", "the cache file is not open; the follower makes it", Kind.UNAVAILABLE)


def _unreadable(error: lmdb.Error) -> QuashError:
    return QuashError("cache.unreadable", f"the cache cannot be read: {error}", Kind.UNAVAILABLE)
