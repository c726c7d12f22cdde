"""A token's PIN, and what its users tell each other before they try it: a token locks itself after three to ten wrong.

Several processes have one PIN: a presigner and those that sign for it, the CA signer and a person's command, and
whoever is started again. So logins to a token take turns, and the refusal of a file is written down before the next
one's turn: nobody tries that file again until it is changed.

What is written down tells which file it was (inode, time of change, size), not what it said, not even a hash: four
digits are guessed from any. A file that is made anew at each start, as systemd's credentials are, always looks changed;
so after `MOST` logins that did not end well nobody tries any, until a person says so. A login is counted before it is
tried: what a full disk or a kill then keeps from being written down is not forgotten.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from quash.keys.handle import KeyUnavailable
from quash.keys.pem import read_passphrase

MOST = 2
"""Logins without a good end; the tokens that lock soonest do so with the third."""
WAIT = 10.0
"""Seconds for one's turn: a token that hangs must not hold up whoever has other tokens as well."""
_LOOK = 0.02
_SIZE = 512  # written over in place: a sector is whole or as it was
_PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class _File:
    """A version of a PIN file, without a word of what it says."""

    inode: int
    changed_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class _Told:
    """Of a token since its last good login. `refused`: the file that it refused last, and `at`, a time to read."""

    tries: int = 0
    refused: _File | None = None
    at: str = ""


@dataclass(frozen=True, slots=True)
class Pin:
    """Where a PIN is, and the folder of the records of logins, which is the same for all processes of a machine."""

    file: Path | None
    records: Path

    @contextmanager
    def turn(self, token: bytes, label: str) -> Iterator[Turn]:
        """The right to log in to a token, `token` being its serial; the other processes wait.

        Raises `KeyUnavailable`: `key.no_passphrase`, `key.login_busy`, `key.login_record`.
        """
        if self.file is None:
            raise KeyUnavailable(f"token {label}: no PIN; add pin-source=file:/... to the key's reference")
        path = self.records / f"login-{hashlib.sha256(token).hexdigest()[:16]}"
        descriptor = _hold(path, self.file, label)
        try:
            yield Turn(descriptor, path, self.file)
        finally:
            os.close(descriptor)


class Turn:
    """One process's turn at a token: what is known of the PIN's file, and how a login with it ends."""

    def __init__(self, descriptor: int, path: Path, file: Path) -> None:
        self.path = path
        self._descriptor = descriptor
        self._pin_file = file
        self._told = self._before = _read(descriptor, path)
        self._file = _version(file)

    @property
    def refused_at(self) -> str | None:
        """When this very file was refused; None: it was not, or is another one by now."""
        return self._told.at if self._told.refused == self._file else None

    @property
    def refused_before(self) -> bool:
        """Whether it was one of ours that the token refused last."""
        return self._told.refused is not None

    @property
    def spent(self) -> bool:
        """Whether as many logins failed as may without a person."""
        return self._told.tries >= MOST

    def begin(self) -> str:
        """The PIN, to be tried once, now."""
        pin = read_passphrase(self._pin_file).decode()
        self._write(replace(self._told, tries=self._told.tries + 1))
        return pin

    def refused(self) -> None:
        self._write(replace(self._told, refused=self._file, at=datetime.now(UTC).isoformat(timespec="seconds")))

    def not_tried(self) -> None:
        """The token never looked at the PIN: it was away."""
        self._write(self._before)

    def succeeded(self) -> None:
        """There is nothing to tell any more; the file stays, so that a full disk keeps nobody from the next login.

        Not one of root's own: if the PIN is given to a service afterwards, the record would be in that one's way.
        """
        if os.geteuid() == os.fstat(self._descriptor).st_uid == 0:
            self.path.unlink(missing_ok=True)
        else:
            self._write(_Told())

    def _write(self, told: _Told) -> None:
        body = json.dumps(asdict(told)).encode().ljust(_SIZE) if told != _Told() else b" " * _SIZE
        try:
            os.pwrite(self._descriptor, body, 0)
            os.ftruncate(self._descriptor, len(body))
            os.fsync(self._descriptor)
        except OSError as error:
            raise _useless(self.path, error) from None
        self._told = told


def _hold(path: Path, pin_file: Path, label: str) -> int:
    """The record's file, locked; who had it before us may have removed it."""
    while True:
        descriptor = _open(path, pin_file)
        try:
            _lock(descriptor, label)
        except BaseException:
            os.close(descriptor)
            raise
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _open(path: Path, pin_file: Path) -> int:
    """The record's file. Who may read the PIN keeps it: made by root, it is handed to them.

    Never opened with O_CREAT when it exists: in a folder like /var/lib/quash/run the kernel refuses that even to root.
    """
    pin, flags = _stat(pin_file), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            descriptor = _make(path, flags, pin)
        if (owner := os.fstat(descriptor).st_uid) not in (os.geteuid(), pin.st_uid, 0):
            os.close(descriptor)
            raise KeyUnavailable(f"{path} belongs to user {owner}, who has no PIN; remove it", "key.login_record")
    except OSError as error:
        raise _useless(path, error) from None
    return descriptor


def _make(path: Path, flags: int, pin: os.stat_result) -> int:
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, _PRIVATE)
    except FileExistsError:  # somebody else's was quicker
        return os.open(path, flags)
    if os.geteuid() == 0:
        readers = pin.st_mode & 0o044
        os.fchmod(descriptor, _PRIVATE | readers | readers >> 1)
        os.fchown(descriptor, pin.st_uid, pin.st_gid)
    return descriptor


def _lock(descriptor: int, label: str) -> None:
    until = time.monotonic() + WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise KeyUnavailable(
                    f"token {label}: another process has been logging in for {WAIT:.0f} s; does the token answer?",
                    "key.login_busy",
                ) from None
            time.sleep(_LOOK)
        else:
            return


def _read(descriptor: int, path: Path) -> _Told:
    body = os.pread(descriptor, _SIZE, 0).strip()
    if not body:
        return _Told()
    try:
        told = json.loads(body)
        refused = _File(**told["refused"]) if told["refused"] is not None else None
        return _Told(int(told["tries"]), refused, str(told["at"]))
    except (ValueError, KeyError, TypeError):
        raise KeyUnavailable(
            f"{path}, which tells of refused PINs, is damaged; prove the PIN by hand, then remove it",
            "key.login_record",
        ) from None


def _version(pin_file: Path) -> _File:
    found = _stat(pin_file)
    return _File(found.st_ino, found.st_mtime_ns, found.st_size)


def _stat(pin_file: Path) -> os.stat_result:
    try:
        return pin_file.stat()
    except OSError as error:
        raise KeyUnavailable(
            f"the PIN's file {pin_file} cannot be read ({error.strerror}); put it back", "key.no_passphrase"
        ) from None


def _useless(path: Path, error: OSError) -> KeyUnavailable:
    return KeyUnavailable(
        f"{path}, which tells others of a refused PIN, cannot be kept ({error.strerror}): no PIN is tried without it;"
        " if it is another user's, prove the PIN by hand, then remove it",
        "key.login_record",
    )
