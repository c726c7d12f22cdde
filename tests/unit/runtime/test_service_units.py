"""config/systemd: a hardened service for each process, with a user of its own and what that user needs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from quash.cli.serve import PROCESSES
from quash.runtime.config import load
from quash.store.roles import RIGHTS
from tests.support.services import DEMO_ONLY, FOLDER, STATE, Unit, accounts, refresh, rules, sites, units

# Those that stay, by the name of their process.
SHIPPED = {**units(), "testsite": sites()}
COMMANDS = {**{process: f"serve {process}" for process in PROCESSES}, "testsite": "testsite"}
# What every service has, whatever systemd-analyze says of it.
HARDENED = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "MemoryDenyWriteExecute": "yes",
    "LimitCORE": "0",
    "UMask": "0007",
    "Restart": "always",
}
EXPOSURE = 2.0  # of 10, as systemd-analyze counts


def test_every_process_has_a_service_and_none_is_of_another() -> None:
    """A process that is added without a unit fails here, as does a unit that nothing stands behind."""
    assert set(units()) == set(PROCESSES) - DEMO_ONLY
    assert {path.name for path in FOLDER.glob("*.service")} == {unit.name for unit in (*SHIPPED.values(), refresh())}


@pytest.mark.parametrize("process", sorted(SHIPPED))
def test_a_service_runs_its_process_hardened(process: str) -> None:
    unit = SHIPPED[process]
    assert unit.one("ExecStart") == f"/opt/quash/.venv/bin/quash {COMMANDS[process]}"
    assert {key: unit.one(key) for key in HARDENED} == HARDENED
    assert set(unit.all("Environment")) >= {f"QUASH_STATE={STATE}", "QUASH_CONFIG=/etc/quash/production.toml"}
    assert unit.one("WantedBy", "Install") == "quash.target"
    assert f"{STATE}/run" in unit.all("ReadWritePaths")


def test_each_has_a_user_of_its_own_that_exists() -> None:
    """Least privilege begins with the file system: nobody shares a user, and no user is root."""
    users, groups = accounts()
    assert sorted(unit.one("User") for unit in (*SHIPPED.values(), refresh())) == sorted(users)
    assert len(users) == len(SHIPPED) + 1
    assert all(set(unit.all("SupplementaryGroups")) <= groups for unit in SHIPPED.values())
    assert all("quash" in unit.all("SupplementaryGroups") for unit in SHIPPED.values())


def test_files_belong_to_users_that_exist_and_secrets_to_one() -> None:
    """Each role's password is its process's; nothing secret is anybody's beside."""
    users, groups = accounts()
    assert all(rule.user in users | {"root"} and rule.group in groups | {"root"} for rule in rules())
    passwords = [Path(rule.path).stem for rule in rules() if rule.path.endswith(".password")]
    assert sorted(passwords) == sorted(RIGHTS)
    secret = [rule for rule in rules() if rule.path.endswith((".password", ".passphrase")) or "/keys/" in rule.path]
    assert all(rule.mode & 0o077 == 0 and rule.user != "root" for rule in secret)


def test_who_has_no_keys_cannot_see_them() -> None:
    """Beside the modes: the keys are not even mounted for the processes that have none."""
    holders = {"ca-signer": "ca", "presigner": "ocsp", "ledger": "ledger"}
    for process, unit in SHIPPED.items():
        hidden = {path.lstrip("-").removeprefix(f"{STATE}/") for path in unit.all("InaccessiblePaths")}
        own = holders.get(process)
        assert hidden >= ({f"keys/{name}" for name in holders.values() if name != own} if own else {"keys"}), process


def test_what_a_service_writes_to_is_there_when_it_starts() -> None:
    """systemd refuses to start it for a folder that is missing (226/NAMESPACE), and no user of ours could make one."""
    made = {rule.path for rule in rules() if rule.kind == "d"}
    for process, unit in SHIPPED.items():
        assert {path.lstrip("-") for path in unit.all("ReadWritePaths")} <= made, process
        assert all(path.startswith("-") for path in unit.all("InaccessiblePaths")), process
    # A machine whose keys are on a token has no use for it, and may have been set up before it was made.
    assert f"-{STATE}/keys/ocsp" in SHIPPED["presigner"].all("ReadWritePaths")


def test_the_configuration_admits_users_that_exist() -> None:
    sockets = load(FOLDER.parent / "production.toml").sockets
    assert set(sockets.ca_signer) == {SHIPPED[process].one("User") for process in ("issuer", "crl-builder")}
    assert set(sockets.presigner) == {SHIPPED["responder"].one("User")}


def test_the_lists_are_fetched_daily() -> None:
    """As hardened as the processes; it ends when it is done, and everybody may read what it fetched."""
    unit = refresh()
    assert unit.one("ExecStart") == "/opt/quash/.venv/bin/quash %i refresh"
    ends = {"Type": "oneshot", "Restart": "no", "UMask": "0022"}
    assert {key: unit.one(key) for key in ends} == ends
    assert {key: unit.one(key) for key in HARDENED if key not in ends} == {
        key: value for key, value in HARDENED.items() if key not in ends
    }
    own = {rule.path: rule.user for rule in rules() if rule.kind == "d"}
    written = {path for path in unit.all("ReadWritePaths") if path != f"{STATE}/run"}
    assert written == {f"{STATE}/ct", f"{STATE}/names"} == {path for path in own if own[path] == unit.one("User")}
    assert "OnCalendar=daily" in (FOLDER / "quash-refresh@.timer").read_text()


def test_workers_share_a_socket_that_outlives_them() -> None:
    """And have no other: no network, no way to open a socket of their own."""
    worker = SHIPPED["responder"]
    assert worker.one("Sockets") == "quash-ocsp.socket"
    assert {"QUASH_LISTEN_FD=3", "QUASH_INSTANCE=responder-%i"} <= set(worker.all("Environment"))
    assert worker.one("PrivateNetwork") == "yes"
    assert worker.all("RestrictAddressFamilies") == ["AF_UNIX"]


def test_test_sites_are_a_subscriber_on_a_socket_that_is_given() -> None:
    """Their keys and their operator's are nobody else's; no capability for port 443, no password of the database."""
    unit, owners = SHIPPED["testsite"], {rule.path: (rule.user, rule.mode) for rule in rules()}
    user, wanted = unit.one("User"), load(FOLDER.parent / "production.toml").testsite
    assert owners[f"{STATE}/testsite"] == (user, 0o700)
    assert owners[f"{STATE}/operators/{wanted.operator}.key"] == (user, 0o400)
    assert f"-{STATE}/secrets" in unit.all("InaccessiblePaths")
    assert "QUASH_LISTEN_FD=3" in unit.all("Environment")
    assert f"ListenStream={wanted.port}" in (FOLDER / "quash-testsite.socket").read_text()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with the units in it, and nothing else but what they lean on."""
    system = tmp_path / "etc" / "systemd" / "system"
    shutil.copytree(FOLDER, system)
    for name in (
        "sysinit",
        "basic",
        "shutdown",
        "sockets",
        "timers",
        "time-sync",
        "time-set",
        "multi-user",
        "network-online",
    ):
        (system / f"{name}.target").write_text("[Unit]\nDescription=x\n")
    (system / "system.slice").write_text("[Unit]\nDescription=x\nDefaultDependencies=no\n")
    program = tmp_path / "opt" / "quash" / ".venv" / "bin" / "quash"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    return tmp_path


def instance(unit: Unit) -> str:
    return unit.name.replace("@", "@1")


def test_systemd_agrees(root: Path) -> None:
    """`systemd-analyze verify` finds nothing to say, and `security` little that is exposed."""
    names = [instance(unit) for unit in (*SHIPPED.values(), refresh())]
    analyze = ["systemd-analyze", f"--root={root}"]
    said = subprocess.run(
        [
            *analyze,
            "verify",
            *names,
            "quash-ocsp.socket",
            "quash-testsite.socket",
            "quash-refresh@ct.timer",
            "quash.target",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")
    exposed = ["security", "--offline=yes", "--no-pager", f"--threshold={EXPOSURE * 10:.0f}"]
    for name in names:
        said = subprocess.run([*analyze, *exposed, name], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout
