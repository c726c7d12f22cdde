"""The state folder: where everything that must survive, or must stay secret, lies."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path

from quash.errors import Kind, QuashError

# sockaddr_un holds 108 octets with the closing NUL; the longest name we put into the folder is taken off.
_LONGEST_SOCKET_FOLDER = 107 - len("/responder-256.new.health")


class State:
    """The folders below `--state`; each property creates its folder when it is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def _folder(self, name: str, mode: int) -> Path:
        folder = self.root / name
        if not folder.is_dir():
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
            folder.chmod(mode)
        return folder

    @property
    def pg(self) -> Path:
        """The embedded PostgreSQL: its data, its passwords, its log."""
        return self._folder("pg", 0o755)

    @property
    def cache(self) -> Path:
        return self._folder("cache", 0o755)

    @property
    def crl(self) -> Path:
        """The publish folder: CRLs and CA certificates."""
        return self._folder("crl", 0o755)

    @property
    def keys(self) -> Path:
        return self._folder("keys", 0o700)

    @property
    def ct(self) -> Path:
        """The demo's logs: their keys and the list that names them; in production, where a log list is put."""
        return self._folder("ct", 0o700)

    @property
    def certs(self) -> Path:
        return self._folder("certs", 0o755)

    @property
    def operators(self) -> Path:
        return self._folder("operators", 0o700)

    @property
    def ledger(self) -> Path:
        """The ledger's checkpoints outside the database."""
        return self._folder("ledger", 0o755)

    @property
    def secrets(self) -> Path:
        """Passphrases and database passwords, one file each, 0600."""
        return self._folder("secrets", 0o700)

    @property
    def run(self) -> Path:
        """Unix sockets, and what tokens refused.

        A folder with a short path stands in when the state's own path is too long for a socket.
        """
        own = self.root / "run"
        if len(os.fsencode(own)) <= _LONGEST_SOCKET_FOLDER:
            return self._folder("run", 0o711)
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        short = Path(tempfile.gettempdir()) / f"quash-{os.getuid()}-{digest}"
        short.mkdir(mode=0o711, exist_ok=True)
        if short.is_symlink() or short.stat().st_uid != os.getuid():
            raise QuashError(
                "state.run_taken", f"{short} belongs to somebody else; choose a shorter --state", Kind.REFUSED
            )
        return short

    def write_secret(self, path: Path, body: bytes) -> None:
        """Writes a file that only its owner may read, durably, and never over an existing one."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())

    def lock(self) -> StateLock:
        """Takes the one lock on the folder, which ends with the process; raises `state.locked` when it is held."""
        return StateLock(self.root / "lock")

    def children_lock(self) -> StateLock:
        """Another one, for a supervisor's children to inherit: it ends with the last of them, whoever outlives whom."""
        return StateLock(self.root / "lock.children")


class StateLock:
    """Held while this object lives: an flock, which the kernel drops with the process, however it ends.

    A child that inherits `fd` holds it too, as long as it lives.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise QuashError(
                "state.locked",
                f"{path.parent} is in use by another quash; stop it or choose another --state",
                Kind.UNAVAILABLE,
            ) from None

    @property
    def fd(self) -> int:
        return self._file.fileno()

    def release(self) -> None:
        self._file.close()
