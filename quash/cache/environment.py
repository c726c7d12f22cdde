"""Opening the cache file: one LMDB file and its lock file, in the node's cache folder.

Facts of LMDB that this module lives by:
  * a process opens a file once (POSIX locks die with the first of two descriptors that is closed);
  * a file cut short is not noticed until a page beyond its end is touched, and that is SIGBUS: so compare sizes first;
  * `map_size` is address space, not disk: one large constant, since changing it under open readers is not safe;
  * readers need the lock file writable and the data file read-only: their slots live in the lock file.

Commits are not flushed to the disk (`sync=False`): a cache can be had again from the feed, and a process that dies,
killed or not, loses nothing that the kernel has. Only a machine that stops can leave a mixture of old and new pages
behind, and no reading would show it. So an open file carries the mark of this boot and of its own inode; a writer that
finds another mark deletes the file and builds it again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from pathlib import Path

import lmdb

from quash.errors import Kind, QuashError

FILE = "responses.mdb"
LOCK_SUFFIX = "-lock"
MAP_SIZE = 1 << 38
MAX_READERS = 1024

# Keys of the `meta` table.
FORMAT_KEY = b"format"
MARK_KEY = b"open-since-boot"
HEARTBEAT_KEY = b"heartbeat"
POSITION_KEY = b"position"
COMPLETE_KEY = b"complete"
GENERATION_KEY = b"generation"

FILE_FORMAT = b"quash-cache-1"

# What LMDB says about the file itself, as opposed to the rights, the disk or the memory.
_DAMAGE = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.PageFullError,
    lmdb.CursorFullError,
    lmdb.ProblemError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
)
# LMDB calls a write that the disk took in part an input/output error, whatever the system said.
_SHORT_WRITE = os.strerror(errno.EIO)

_ID = struct.Struct(">H")


class Environment:
    """An open cache file: the LMDB environment and its tables `records`, `issuers`, `signers` and `meta`."""

    def __init__(self, env: lmdb.Environment, path: Path) -> None:
        self.env = env
        self.path = path
        try:
            self._identity = _identity(path)
            writable = not env.flags()["readonly"]
            self.meta = env.open_db(b"meta", create=writable)
            self.records = env.open_db(b"records", create=writable)
            self.issuers = env.open_db(b"issuers", create=writable)
            self.signers = env.open_db(b"signers", create=writable)
        except BaseException:
            env.close()
            raise

    @property
    def replaced(self) -> bool:
        """Whether the path names another file by now: a writer that rebuilds deletes and creates."""
        try:
            return _identity(self.path) != self._identity  # no inode number is used again while we hold the file
        except FileNotFoundError:
            return True

    @property
    def mark(self) -> bytes:
        """Of this boot and this very file."""
        return f"{_boot_id()}:{self._identity[1]}".encode()

    def close(self) -> None:
        self.env.close()


def id_key(number: int) -> bytes:
    """The key of an issuer or signer."""
    return _ID.pack(number)


def open_for_reading(folder: Path) -> Environment:
    """Raises QuashError("cache.missing") while there is no usable file, which its writer is about to make."""
    path = folder / FILE
    try:
        before = _identity(path)
        _check_size_of_head(path)
        env = lmdb.open(
            str(path), subdir=False, readonly=True, lock=True, max_dbs=4, map_size=MAP_SIZE, max_readers=MAX_READERS,
            readahead=False,
        )  # fmt: skip
        _check_length(env, path)
        opened = Environment(env, path)
        if _identity(path) != before:  # the data file of one and the lock file of another, perhaps
            opened.close()
            raise lmdb.InvalidError("replaced while it was being opened")
    except (lmdb.Error, FileNotFoundError) as error:
        raise QuashError(
            "cache.missing", f"{path}: {error}; the follower makes or mends it", Kind.UNAVAILABLE
        ) from error
    return opened


def open_for_writing(folder: Path, map_size: int = MAP_SIZE) -> Environment:
    """Opens or creates the file. Raises `cache.damaged` when it fails its check: delete it, then call again.

    `cache.unavailable` is for what deleting does not mend: rights, disk, memory.
    """
    path = folder / FILE
    fresh = not path.exists()
    try:
        if not fresh:
            _check_size_of_head(path)
        env = lmdb.open(
            str(path), subdir=False, max_dbs=4, map_size=map_size, max_readers=MAX_READERS, sync=False, readahead=False,
            mode=0o644,
        )  # fmt: skip
        # Readers of another user write their slots into it, and nothing into the data file.
        path.with_name(FILE + LOCK_SUFFIX).chmod(0o664)
        if not fresh:
            _check_length(env, path)
        opened = Environment(env, path)
        try:
            _take_mark(opened, fresh)
        except BaseException:
            opened.close()
            raise
    except _DAMAGE as error:
        raise damaged(path, str(error)) from error
    except lmdb.Error as error:
        raise QuashError("cache.unavailable", f"{path}: {error}", Kind.UNAVAILABLE) from error
    return opened


def release_mark(environment: Environment) -> None:
    """Flushes everything and notes it in the file: the next writer may trust it after a reboot as well."""
    environment.env.sync(True)
    with environment.env.begin(write=True) as txn:
        txn.put(MARK_KEY, b"", db=environment.meta)
    environment.env.sync(True)


def closed_in_order(folder: Path) -> bool:
    """Whether there is no file, or one whose last writer ended with `release_mark`; else it is worth a closer look."""
    try:
        environment = open_for_reading(folder)
    except QuashError:
        return not (folder / FILE).exists()
    try:
        with environment.env.begin(environment.meta) as txn:
            return txn.get(MARK_KEY, b"") == b""
    except lmdb.Error:
        return False
    finally:
        environment.close()


def delete(folder: Path) -> None:
    """Removes the cache file; readers notice within a second. Nobody in this process may have it open."""
    for path in (folder / FILE, folder / (FILE + LOCK_SUFFIX)):  # in this order: a reader opens data first
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _take_mark(environment: Environment, fresh: bool) -> None:
    mine = environment.mark
    with environment.env.begin(write=True, db=environment.meta) as txn:
        if fresh:
            txn.put(FORMAT_KEY, FILE_FORMAT)
        failed = ""
        if txn.get(FORMAT_KEY) != FILE_FORMAT:
            failed = "written by another version of Quash"
        elif txn.get(MARK_KEY, b"") not in (b"", mine):
            failed = "the machine stopped, or the file was copied, while it was open"
        else:
            txn.put(MARK_KEY, mine)
    if failed:
        raise damaged(environment.path, failed)


def failure(path: Path, error: lmdb.Error) -> QuashError:
    """What an error of the open file means. Only what LMDB says of the file itself has it deleted."""
    if isinstance(error, _DAMAGE):
        return damaged(path, str(error))
    if isinstance(error, lmdb.PanicError):  # it refuses any further write, of a file that may well be sound
        return QuashError("cache.given_up", f"{path}: {error}; a new start reads the file through", Kind.INTERNAL)
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError) or _SHORT_WRITE in str(error):
        return QuashError("cache.full", f"{path}: {error}; make room, nothing is lost", Kind.UNAVAILABLE)
    return QuashError("cache.unavailable", f"{path}: {error}", Kind.UNAVAILABLE)


def damaged(path: Path, why: str) -> QuashError:
    return QuashError("cache.damaged", f"{path}: {why}; it is deleted and built again", Kind.INTERNAL)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _boot_id() -> str:
    """Changes with each start of the kernel. Where there is none, a mark of another process is never trusted."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return f"process-{os.getpid()}-{os.urandom(8).hex()}"


def _check_size_of_head(path: Path) -> None:
    """LMDB treats an empty or very short file as a new one; ours never is that short."""
    if path.stat().st_size < 2 * os.sysconf("SC_PAGE_SIZE"):
        raise lmdb.InvalidError("shorter than its own head")


def _check_length(env: lmdb.Environment, path: Path) -> None:
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    size = path.stat().st_size
    if size < needed:
        env.close()
        raise lmdb.CorruptedError(f"cut short: {size} of {needed} octets")
