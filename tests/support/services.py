"""What ships in config/systemd, read without systemd, so that it can be compared with the code and tried out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from quash.cli.serve import PROCESSES

FOLDER = Path(__file__).parents[2] / "config" / "systemd"
STATE = "/var/lib/quash"
DEMO_ONLY = {"ct-log"}


@dataclass
class Unit:
    """A unit with its drop-ins: values by section and key, in the order in which systemd reads them."""

    name: str
    values: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def all(self, key: str, section: str = "Service") -> list[str]:
        """The words of a list; an empty assignment empties it."""
        words: list[str] = []
        for value in self.values.get((section, key), ()):
            words = [*words, *value.split()] if value else []
        return words

    def one(self, key: str, section: str = "Service") -> str:
        """The last assignment, which is the one that counts."""
        return self.values.get((section, key), [""])[-1]


def units() -> dict[str, Unit]:
    """Unit by process: every one that the code has and a machine of production runs."""
    found = {}
    for process in PROCESSES:
        path = next(
            (p for p in FOLDER.glob(f"quash-{process}*.service") if p.stem.rstrip("@") == f"quash-{process}"), None
        )
        if path is not None:
            found[process] = _read(path)
    return found


def sites() -> Unit:
    """A subscriber's, so a command of its own beside the CA's processes."""
    return _read(FOLDER / "quash-testsite.service")


def refresh() -> Unit:
    """What a timer starts: the one service that is no process of ours that stays."""
    return _read(FOLDER / "quash-refresh@.service")


def _read(path: Path) -> Unit:
    unit = Unit(path.name)
    drop_ins = [*(FOLDER / "quash-.service.d").glob("*.conf"), *(FOLDER / f"{path.name}.d").glob("*.conf")]
    for file in (path, *sorted(drop_ins, key=lambda each: each.name)):
        section = ""
        for line in statements(file):
            if line.startswith("["):
                section = line.strip("[]")
            else:
                key, _, value = line.partition("=")
                unit.values.setdefault((section, key), []).append(value)
    return unit


def statements(path: Path) -> Iterator[str]:
    """The lines that are neither empty nor comments."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.strip()


def accounts() -> tuple[set[str], set[str]]:
    """Users and groups of sysusers.conf; a user has a group of its name."""
    users = {line.split()[1] for line in statements(FOLDER / "sysusers.conf") if line.startswith("u ")}
    groups = {line.split()[1] for line in statements(FOLDER / "sysusers.conf") if line.startswith("g ")}
    return users, users | groups


@dataclass(frozen=True)
class Rule:
    """A line of tmpfiles.conf."""

    kind: str
    path: str
    mode: int
    masked: bool
    """The mode only takes bits away; x is for folders and what has it."""
    user: str
    group: str


def rules() -> list[Rule]:
    found = []
    for line in statements(FOLDER / "tmpfiles.conf"):
        kind, path, mode, user, group = line.split()
        found.append(Rule(kind, path, int(mode.lstrip("~"), 8), mode.startswith("~"), user, group))
    return found


def apply_rules(state: Path, ids: dict[str, int]) -> None:
    """What `systemd-tmpfiles --create` would do to a state folder, with these numbers for users and groups."""
    for rule in rules():
        path = Path(str(state) + rule.path.removeprefix(STATE))
        if rule.kind == "d":
            path.mkdir(exist_ok=True)
        elif not path.exists():
            continue
        for each in [path, *path.rglob("*")] if rule.kind == "Z" else [path]:
            os.chown(each, ids[rule.user], ids[rule.group])
            each.chmod(_mode(each, rule))


def _mode(path: Path, rule: Rule) -> int:
    before = path.stat().st_mode
    if not rule.masked or stat.S_ISDIR(before):
        return rule.mode
    return rule.mode & ~(0 if before & 0o111 else 0o111) & ~(0 if before & 0o222 else 0o222)
