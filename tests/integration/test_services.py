"""The services of config/systemd tried out: an outside PostgreSQL, each process with its user's rights and no more."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from loadtest.system import QUASH, REPOSITORY, System, openssl_ocsp
from quash.runtime.state import State
from quash.runtime.supervisor import listening_socket
from quash.store.embedded import SUPERUSER, EmbeddedPostgres
from quash.store.passwords import password_file
from tests.support.postgres import folder_for_servers
from tests.support.services import accounts, apply_rules, sites, units

pytestmark = pytest.mark.long

_ROOT = os.geteuid() == 0  # nobody else can run processes as other users: then all are ours, and the rest is tested
_FIRST_ID = 52_000
_SET_MDWE, _REFUSE_EXEC_GAIN = 65, 1  # prctl: what MemoryDenyWriteExecute= asks for
_, GROUPS = accounts()
IDS = {"root": 0, **{name: _FIRST_ID + number for number, name in enumerate(sorted(GROUPS))}}

UNITS = {**units(), "testsite": sites()}
ALL = {"responder-1", *units()} - {"responder"}
"""As `metrics` tells of them."""

# What a user finds of others' files.
FORBIDDEN = {
    "responder": ("secrets/quash_follower.password", "keys/ocsp", "operators/operator.key", "secrets/api.key"),
    "crl-origin": ("secrets/quash_crl_builder.password", "keys/ca", "cache/responses.mdb"),
    "follower": ("secrets/quash_presigner.password", "keys/ocsp", "secrets/ocsp.passphrase"),
    "intake": ("secrets/quash_admin.password", "secrets/api.key", "keys/ledger"),
    "presigner": ("secrets/ca.passphrase", "keys/ca", "secrets/quash_ca_signer.password"),
    "ca-signer": ("secrets/ocsp.passphrase", "keys/ocsp", "secrets/quash_owner.password"),
    "issuer": ("secrets/quash_admin.password", "secrets/quash_owner.password", "keys/ca"),
    "metrics": ("secrets/api.key", "keys/ca", "cache/responses.mdb"),
    "testsite": ("operators/operator.key", "secrets/api.key", "secrets/quash_issuing.password", "keys/ca"),
}
UNWRITABLE = {"responder": ("cache/responses.mdb", "crl"), "crl-origin": ("crl",), "issuer": ("certs", "ct")}


class Services(System):
    """Every service of production, as its user; `quash init` and the command line are root's."""

    def __init__(self, folder: Path, url: str, owner: str, password: Path) -> None:
        users = {"ca_signer": ("quash-issuer", "quash-crl-builder"), "presigner": ("quash-responder",)}
        sockets = [f"sockets.{name}=[{','.join(str(IDS[u]) for u in who)}]" for name, who in users.items()]
        database = (f"database.url={url}", f"database.owner_url={owner}", f"database.owner_password_file={password}")
        super().__init__(folder, *database, *sockets, "ct.required=false", "ct.log_list=", "ct_log.enabled=false")
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> Services:
        done = self.quash("init")
        assert done.status == 0, done.err
        for suffix in ("pem", "key"):  # init makes one operator alone, who stands in for that of the sites
            shutil.copy(self.state / f"operators/operator.{suffix}", self.state / f"operators/testsite.{suffix}")
        if _ROOT:
            apply_rules(self.state, IDS)
        self.folder.chmod(0o755)
        listen = listening_socket("127.0.0.1", self.ports["responder"])
        for process in units():
            self._serve(process, listen.fileno())
        listen.close()
        return self

    def _serve(self, process: str, listen: int) -> None:
        worker = {"QUASH_INSTANCE": "responder-1", "QUASH_LISTEN_FD": str(listen)} if process == "responder" else {}
        self._run(process, ["serve", process], worker, (listen,) if worker else ())

    def serve_sites(self) -> int:
        """Starts the test sites on a socket of ours, as their socket unit does, and returns the port."""
        listen = listening_socket("127.0.0.1", 0)
        with listen:
            command = ["testsite", "--set", "testsite.operator=testsite"]
            self._run("testsite", command, {"QUASH_LISTEN_FD": str(listen.fileno())}, (listen.fileno(),))
            return int(listen.getsockname()[1])

    def _run(self, process: str, verb: list[str], more: dict[str, str], handed: tuple[int, ...]) -> None:
        command = [*as_user(process), *QUASH, *verb, *self.arguments]
        with (self.folder / f"{process}.log").open("wb") as log:
            self.running[process] = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, **more, "HOME": "/nonexistent"},
                pass_fds=handed,
                stdout=log,
                stderr=log,
                preexec_fn=restricted,  # noqa: PLW1509 - no thread holds a lock of malloc here
            )

    def stop(self, *_: object) -> int:
        for running in self.running.values():
            running.terminate()
        return max(abs(running.wait(timeout=60)) for running in self.running.values())

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in self.folder.glob("*.log"))


def restricted() -> None:
    """UMask= and MemoryDenyWriteExecute= of common.conf; a kernel that does not know the latter says so to nobody."""
    os.umask(0o007)
    ctypes.CDLL(None).prctl(_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0)


def as_user(process: str) -> list[str]:
    """What runs a command with a service's user, groups and lack of capabilities, where the interpreter is readable."""
    if not _ROOT:
        return []
    unit = UNITS[process]
    groups = ",".join(str(IDS[name]) for name in unit.all("SupplementaryGroups"))
    user = str(IDS[unit.one("User")])
    drop = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={groups}", "--no-new-privs"]
    return [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        _SHOW,
        "sh",
        *_hidden(),
        "--",
        *drop,
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]


# Arguments: pairs of a private folder and one below it that the user shall see; then -- and the command.
_SHOW = """
mask=$(umask); umask 022
while [ "$1" != -- ]; do
    keep=$(mktemp -d); mount --bind "$2" "$keep"; mount -t tmpfs -o mode=755 tmpfs "$1"
    mkdir -p "$2"; mount --bind "$keep" "$2"; shift 2
done
shift; umask "$mask"; exec "$@"
"""


def _hidden() -> list[str]:
    """An interpreter, or a checkout, that root keeps in its home: shown, without the rest of that."""
    pairs: list[str] = []
    for path in {Path(sys.base_prefix), Path(sys.prefix), REPOSITORY}:
        private = next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None)
        pairs += [str(private), str(path)] if private else []
    return pairs


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with folder_for_servers() as folder, ExitStack() as stack:
        address = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250}.77"  # its port is fixed
        elsewhere = State(folder / "database")
        postgres = EmbeddedPostgres(elsewhere, settings={"fsync": "off", "listen_addresses": address})
        postgres.initialise()
        with (postgres.data / "pg_hba.conf").open("a") as hba:
            hba.write("host all all 127.0.0.0/8 scram-sha-256\n")
        stack.enter_context(postgres.run())
        system = Services(
            folder,
            f"postgresql://{address}:5432/quash",
            f"postgresql://{SUPERUSER}@{address}:5432/postgres",
            password_file(elsewhere, SUPERUSER),
        )
        stack.callback(system.stop)
        system.start()
        deadline = time.monotonic() + 400  # a dozen processes, each of which loads a linter or two, on a busy machine
        while system.report().keys() != ALL or not system.ready():
            assert time.monotonic() < deadline, f"{system.unready()}\n{system.logs()}"
            time.sleep(0.2)
        yield system


def test_every_process_gets_ready_as_its_user(services: Services) -> None:
    """And `metrics` tells of all of them, by the names that dashboards and alerts use."""
    assert services.report().keys() == ALL
    if _ROOT:
        for process, running in services.running.items():
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{running.pid}/status").read_text().splitlines()
                if ":\t" in line
            )
            assert set(status["Uid"].split()) == {str(IDS[units()[process].one("User")])}
            assert int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0


def test_a_certificate_is_issued_answered_and_revoked(services: Services) -> None:
    """The whole way: CA signer and presigner are asked by other users, cache and publish folder read by others."""
    pem = services.issue("services")
    url = f"{services.ocsp}/tls-dv"
    assert openssl_ocsp(services, "tls-dv", pem, url=url) == "good"
    done = services.quash("revoke", "--cert", str(pem), "--reason", "superseded", "--wait", "--json")
    assert done.status == 0, done.err
    assert openssl_ocsp(services, "tls-dv", pem, url=url) == "revoked"
    assert services.quash("crl verify").status == 0


def test_test_sites_show_certificates_as_their_user(services: Services) -> None:
    """F13: ordered and revoked with their operator's key alone, shown on a socket that they did not open."""
    port = services.serve_sites()
    trusted = ssl.create_default_context(cafile=str(services.state / "certs" / "root.pem"))
    deadline = time.monotonic() + 60
    for host in ("valid.quash-test.example.org", "revoked.quash-test.example.org"):
        while not shown(port, host, trusted):
            assert time.monotonic() < deadline, f"{host}\n{services.logs()}"
            time.sleep(0.2)
    if _ROOT:
        owner = str(IDS[UNITS["testsite"].one("User")])
        assert f"Uid:\t{owner}\t" in Path(f"/proc/{services.running['testsite'].pid}/status").read_text()


def shown(port: int, host: str, trusted: ssl.SSLContext) -> bool:
    """Whether a TLS client that checks everything is let in."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
            trusted.wrap_socket(raw, server_hostname=host),
        ):
            return True
    except OSError:  # no certificate to show yet
        return False


# Not an install that is missing: no user but root can take another one's place, so there is nobody to look as.
@pytest.mark.skipif(not _ROOT, reason="only root can look as other users")
@pytest.mark.parametrize("process", sorted(FORBIDDEN))
def test_a_user_reads_and_writes_its_own_alone(services: Services, process: str) -> None:
    """What no process of that user needs is closed to it by the file system already."""
    for test, paths in (("-r", FORBIDDEN[process]), ("-w", UNWRITABLE.get(process, ()))):
        for path in paths:
            whole = services.state / path
            assert whole.exists(), path
            allowed = subprocess.run([*as_user(process), "test", test, str(whole)], check=False).returncode == 0
            assert not allowed, f"{process}: test {test} {path}"
