"""A whole `quash up` in a folder of its own, on free ports, driven by the command line and by strangers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
QUASH = [sys.executable, "-m", "quash.cli.main"]
PORTS = ("responder.port", "crl_origin.port", "issuer.port", "admin.port", "intake.port", "metrics.port")
READY_WITHIN = 300.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody had a moment ago, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@dataclass
class Result:
    """What a command said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class System:
    """One deployment; `start` returns once it printed `ready`."""

    def __init__(self, folder: Path, *overrides: str, config: str = "config/demo.toml") -> None:
        self.folder = folder
        self.state = folder / "var"
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.ports = {key.split(".")[0]: port for key, port in ports.items()}
        settings = [f"{key}={port}" for key, port in ports.items()] + list(overrides)
        self.arguments = [
            "--config",
            str(REPOSITORY / config),
            "--state",
            str(self.state),
            *(part for setting in settings for part in ("--set", setting)),
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.output: list[str] = []

    @property
    def ocsp(self) -> str:
        return f"http://127.0.0.1:{self.ports['responder']}"

    @property
    def crl(self) -> str:
        return f"http://127.0.0.1:{self.ports['crl_origin']}"

    def start(self) -> System:
        """Starts `quash up`; fails with what it said when it does not get ready."""
        log = (self.folder / "up.log").open("ab")
        self.process = subprocess.Popen(
            [*QUASH, "up", *self.arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log
        )
        log.close()
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        deadline = time.monotonic() + READY_WITHIN
        said = ""
        while time.monotonic() < deadline:
            said += (self.process.stdout.read() or b"").decode()
            if re.search(r"^ready ", said, re.MULTILINE):
                self.output = said.splitlines()
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"not ready: {said}\n{(self.folder / 'up.log').read_text()[-6000:]}")

    def stop(self, sig: signal.Signals = signal.SIGINT) -> int:
        """Stops the supervisor and waits for its end."""
        assert self.process is not None
        self.process.send_signal(sig)
        return self.process.wait(timeout=60)

    def __enter__(self) -> System:
        try:
            return self.start()
        except BaseException:
            self.__exit__()  # a system that did not get ready goes on trying
            raise

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def quash(self, verb: str, *arguments: str, timeout: float = 120) -> Result:
        """Runs one verb against this deployment."""
        words = verb.split()
        done = subprocess.run(
            [*QUASH, *words, *arguments, *self.arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def issue(self, name: str, *, profile: str = "tls-dv", key: Path | None = None, subject: str = "/") -> Path:
        """Has a certificate issued for a new key, or for `key`; returns the PEM's path, the key's is `<name>.key`."""
        csr, pem = self.folder / f"{name}.csr", self.folder / f"{name}.pem"
        make_csr(csr, key or self.folder / f"{name}.key", [f"{name}.example.org"], subject=subject, new=key is None)
        result = self.quash("issue", "--profile", profile, "--csr", str(csr), "--out", str(pem), "--json")
        assert result.status == 0, result.err
        return pem

    def children(self) -> dict[str, int]:
        """Pids of the supervisor's children by instance name, read from /proc."""
        assert self.process is not None
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid:
                    found[instance(entry)] = int(entry.name)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def ready(self) -> bool:
        """Whether the supervisor says that every process is ready."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def report(self) -> dict[str, Any]:
        """Health by process, of those that have said anything yet; nothing where nobody tells."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/readyz", timeout=30) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            body = error.read()
        except OSError:
            return {}
        return dict(json.loads(body))

    def unready(self) -> dict[str, Any]:
        """The health reports of the processes that are not ready."""
        return {name: said["checks"] for name, said in self.report().items() if not said["ready"]}

    def wait_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not self.ready():
            assert time.monotonic() < deadline, f"not ready again: {self.unready()}"
            time.sleep(0.1)


def instance(process: Path) -> str:
    """The name of a supervisor's child, by its folder in /proc, or a question mark: it has not begun to be one.

    Who has opened a key shows its variables to root alone; there is one of each, so its command names it as well.
    """
    try:
        variables = (process / "environ").read_text().split("\0")
    except PermissionError:
        command = (process / "cmdline").read_text().split("\0")
        return command[command.index("serve") + 1] if "serve" in command else "?"
    return dict(pair.split("=", 1) for pair in variables if "=" in pair).get("QUASH_INSTANCE", "?")


def make_csr(csr: Path, key: Path, names: Sequence[str], *, subject: str = "/", new: bool = True) -> None:
    """A P-256 CSR made by openssl, for a new key or an existing one."""
    san = "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)
    how = (
        ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key)]
        if new
        else ["-key", str(key)]
    )
    openssl("req", "-new", *how, "-subj", subject, "-addext", san, "-out", str(csr))


def openssl(*arguments: str, status: int | None = 0) -> str:
    """Runs openssl and returns what it printed, both streams together."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert status is None or done.returncode == status, said
    return said


def openssl_ocsp(
    system: System, issuer: str, certificate: Path, *, digest: str = "sha1", url: str | None = None
) -> str:
    """What `openssl ocsp` (by POST) says of a certificate: good, revoked or unknown; the signature must hold."""
    said = openssl(
        "ocsp",
        "-no_nonce",
        f"-{digest}",
        "-issuer",
        str(system.state / "certs" / f"{issuer}.pem"),
        "-cert",
        str(certificate),
        "-CAfile",
        str(system.state / "certs" / "chain.pem"),
        "-url",
        url or f"{system.ocsp}/{issuer}",
        status=None,
    )
    assert "Response verify OK" in said, said
    found = re.search(rf"^{re.escape(str(certificate))}: (\w+)", said, re.MULTILINE)
    assert found is not None, said
    return found[1]
