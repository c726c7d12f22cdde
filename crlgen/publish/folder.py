"""Where finished CRLs go: a seam with one meaning on a folder and on an object store, and the folder."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from quash.errors import Kind, QuashError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*", re.ASCII)


class Publisher(Protocol):
    """A place that strangers read whole files from.

    A tag names one state of one file; it is compared for equality only. `put` is atomic: a reader gets the old or the
    new file, never a mixture, and once `put` returns the new one survives a crash. It is conditional: unless the file
    is in the state `replaces` (None: absent) it raises `publish.conflict` and changes nothing, so that two writers
    never overwrite each other unseen. Nothing is retried here. Not promised: that caches in front let go of the old
    file, nor that `head` notices octets that rot in place (compare what `get` gives).
    """

    async def head(self, name: str) -> str | None:
        """The tag of a file, cheaply; None when it does not exist."""

    async def get(self, name: str) -> tuple[bytes, str] | None:
        """A file's octets and tag; None when it does not exist."""

    async def put(self, name: str, body: bytes, replaces: str | None) -> str:
        """Replaces the file in state `replaces`; returns the tag of the new one."""


class FolderPublisher:
    """A folder that the CRL origin, or any web server, serves.

    Durable by: write a hidden file beside, fsync, rename over, fsync the folder. One fixed hidden name per file, under
    an flock on the folder, so that a crash leaves at most one and the next `put` takes it over.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def head(self, name: str) -> str | None:
        return _read_tag(self._path(name))

    async def get(self, name: str) -> tuple[bytes, str] | None:
        return await asyncio.to_thread(_read, self._path(name))

    async def put(self, name: str, body: bytes, replaces: str | None) -> str:
        return await asyncio.to_thread(self._put, self._path(name), body, replaces)

    def _path(self, name: str) -> Path:
        """Names are plain: no dot first, no empty part, so none climbs out of the folder or is hidden in it."""
        if not _NAME.fullmatch(name):
            raise QuashError("publish.name", f"{name!r} is not a name to publish under: use letters, digits, . _ - /")
        return self._folder / name

    def _put(self, path: Path, body: bytes, replaces: str | None) -> str:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self._folder):
                if _read_tag(path) != replaces:
                    raise conflict(path.name)
                tag = _write(path.with_name(f".{path.name}.new"), path, body)
            _sync_folders(path.parent, self._folder)
        except OSError as error:
            raise failed(path, error) from error
        return tag


def failed(path: Path | str, error: Exception) -> QuashError:
    """A place that cannot be read or written now."""
    return QuashError("publish.failed", f"{path} cannot be read or written: {error}", Kind.UNAVAILABLE)


def conflict(name: str) -> QuashError:
    """A file that is not in the state it was seen in."""
    return QuashError("publish.conflict", f"{name} was changed by somebody else; look who writes there", Kind.CONFLICT)


def _tag(stat: os.stat_result) -> str:
    return f"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"


def _read_tag(path: Path) -> str | None:
    try:
        return _tag(path.lstat())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(path, error) from error


def _read(path: Path) -> tuple[bytes, str] | None:
    try:
        with path.open("rb") as file:
            return file.read(), _tag(os.fstat(file.fileno()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(path, error) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write(hidden: Path, path: Path, body: bytes) -> str:
    fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(fd, "wb", buffering=0) as file:
        view = memoryview(body)
        while view:
            view = view[file.write(view) :]
        os.fchmod(fd, 0o644)  # whatever the umask: strangers read it
        os.fsync(fd)
        tag = _tag(os.fstat(fd))
        os.rename(hidden, path)
    return tag


def _sync_folders(folder: Path, root: Path) -> None:
    """The rename, and a new sub-folder's own entry, survive a crash only when their folders are synced."""
    while True:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if folder == root:
            return
        folder = folder.parent
