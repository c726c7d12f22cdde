"""The release before, as its code was, and a deployment whose processes are each of that release or of this one.

`tests/releases/before.tar.xz` is kept by `tools/keep-release`; it runs with the packages that this release has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.system import QUASH, REPOSITORY, System
from quash.runtime.state import State
from quash.runtime.supervisor import INSTANCE, LISTEN_FD, listening_socket
from quash.store.embedded import EmbeddedPostgres

THIS = REPOSITORY
_KEPT = Path(__file__).parents[1] / "releases" / "before.tar.xz"
_NO_LOG = ("ct.required=false", "ct.log_list=", "ct_log.enabled=false")
NODE = ("follower", "responder")
SIGNERS = ("presigner", "crl-builder", "crl-origin")
APIS = ("issuer", "admin", "intake", "jobs", "ledger", "ca-signer", "metrics")
PROCESSES = (*NODE, *SIGNERS, *APIS)
"""In the order in which docs/operations.md upgrades them."""


def unpack(folder: Path) -> Path:
    """Puts the release before into a folder, from where `python -m` runs it."""
    with tarfile.open(_KEPT) as kept:
        kept.extractall(folder)
    return folder


def said_by(release: Path, code: str, *arguments: str) -> str:
    """What a few lines of Python print with the packages of a release."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=release, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Mixed(System):
    """Every process by itself, as service units run them, on one embedded server. Use `running`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, *_NO_LOG)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        # Nobody closes it while processes come and go: connections wait for the next one.
        self._listen = listening_socket("127.0.0.1", self.ports["responder"])

    @contextmanager
    def running(self, release: Path) -> Iterator[None]:
        """Every process of one release, on a state that its own `quash init` made."""
        postgres = EmbeddedPostgres(State(self.state), settings={"fsync": "off"})
        postgres.initialise()
        with postgres.run():
            self.init(release)
            (self.state / "log").mkdir()
            try:
                for process in PROCESSES:
                    self._serve(process, release)
                self.wait_ready(240)  # each of a dozen loads a linter or two, on a busy machine
                yield
            finally:
                for process in self._running:
                    self._end(process)
                self._listen.close()

    def init(self, release: Path) -> None:
        """`quash init` of a release, beside whatever runs."""
        command = [*QUASH, "init", *self._arguments(release)]
        done = subprocess.run(command, cwd=release, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def change(self, process: str, release: Path) -> None:
        """Ends a process in order, starts it of a release and waits until all are ready again."""
        assert self._end(process) == 0, f"{process} did not end as told"
        self._serve(process, release)
        self.wait_ready(120)

    def ready(self) -> bool:
        """Whether every process is there and ready; one that has just been started may not have said so much yet."""
        said = self.report()
        return said.keys() == set(map(_instance, PROCESSES)) and all(each["ready"] for each in said.values())

    def _end(self, process: str) -> int:
        self._running[process].terminate()
        return self._running[process].wait(30)

    def _serve(self, process: str, release: Path) -> None:
        descriptor = self._listen.fileno()
        with (self.state / "log" / f"{process}.log").open("ab") as log:
            self._running[process] = subprocess.Popen(
                [*QUASH, "serve", process, *self._arguments(release)],
                cwd=release,
                env={**os.environ, INSTANCE: _instance(process), LISTEN_FD: str(descriptor)},
                pass_fds=(descriptor,),
                stdout=log,
                stderr=log,
            )

    def _arguments(self, release: Path) -> list[str]:
        """With the configuration that the release shipped."""
        return [part.replace(str(REPOSITORY / "config"), str(release / "config")) for part in self.arguments]


def _instance(process: str) -> str:
    return "responder-1" if process == "responder" else process
