"""The system user that PostgreSQL runs as when we are root: the server refuses to run as root.

It owns the data and the socket folder and nothing else. Folders above them, and above the server's programs, that only
root may enter get an access control entry with x for it alone: it walks through, and lists or reads nothing there.
The server's programs themselves are public; where the installation made them private, it may read those too.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from quash.errors import Kind, QuashError
from quash.store.acl import R, X, allow, allowed

USER = "quash-pg"
_TRIES, _PAUSE = 20, 0.25  # useradd gives up at once while another one holds /etc/passwd


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """Whom the server's processes run as."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        os.chown(path, self.uid, self.gid)

    def reach(self, path: Path) -> None:
        """Lets the user walk to `path` through every folder above it. Raises `store.unreachable`."""
        for folder in reversed(path.resolve().parents):
            self._need(folder, X)

    def use(self, tree: Path) -> None:
        """Lets the user read and run a tree of public programs, which a strict umask at installation denies it."""
        if allowed(tree, self.uid, self.gid, R | X):
            return
        for folder, _, files in os.walk(tree):
            self._need(Path(folder), R | X)
            for path in (Path(folder, name) for name in files):
                if not path.is_symlink():
                    self._need(path, R | X if path.stat().st_mode & stat.S_IXUSR else R)

    def _need(self, path: Path, permissions: int) -> None:
        if allowed(path, self.uid, self.gid, permissions):
            return
        try:
            allow(path, self.uid, permissions)
        except OSError as error:
            raise QuashError(
                "store.unreachable",
                f"the user {USER}, whom PostgreSQL runs as, cannot enter {path} ({error.strerror}): run"
                f" `chmod o+x {path}`, choose another folder, or start quash as an ordinary user",
                Kind.REFUSED,
            ) from None


def service_user() -> ServiceUser | None:
    """The user to switch to, made when it is missing; None: we are an ordinary user and stay what we are."""
    if os.geteuid() != 0:
        return None
    for _ in range(_TRIES):
        try:
            entry = pwd.getpwnam(USER)
            return ServiceUser(entry.pw_uid, entry.pw_gid)
        except KeyError:
            why = _add_user()
        time.sleep(_PAUSE)
    raise QuashError(
        "store.no_service_user",
        f"PostgreSQL refuses to run as root and the system user {USER} cannot be made ({why}): make it,"
        " start quash as an ordinary user, or set database.url",
        Kind.REFUSED,
    )


def _add_user() -> str:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        return "there is no useradd"
    command = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    done = subprocess.run([*command, "--shell", "/usr/sbin/nologin", USER], capture_output=True, text=True, check=False)
    return done.stderr.strip()
