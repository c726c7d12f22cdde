"""The system user that PostgreSQL runs as when we are root: the server refuses to run as root.

It owns the data and the socket folder and nothing else. Folders above them, and above the server's program, that only
root may enter get an access control entry with x for it alone: it walks through, and lists or reads nothing there.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from quash.errors import Kind, QuashError
from quash.store.acl import allow_traverse, may_traverse

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
        """Lets the user walk to `path`, a folder that it may use already. Raises `store.unreachable`."""
        for folder in reversed(path.resolve().parents):
            if may_traverse(folder, self.uid, self.gid):
                continue
            try:
                allow_traverse(folder, self.uid)
            except OSError as error:
                raise QuashError(
                    "store.unreachable",
                    f"the user {USER}, whom PostgreSQL runs as, cannot enter {folder} ({error.strerror}): run"
                    f" `chmod o+x {folder}`, choose another folder, or start quash as an ordinary user",
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
