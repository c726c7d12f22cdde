"""CPU and memory of a deployment's processes, from /proc."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from loadtest.system import System

_TICKS = os.sysconf("SC_CLK_TCK")


class Processes:
    """CPU seconds and peak memory of each child of the supervisor, with all that it started."""

    def __init__(self, system: System) -> None:
        self._roots = system.children()
        self.before = self.cpu()

    def spent(self) -> Counter[str]:
        """Since this was made."""
        return self.cpu() - self.before

    def cpu(self) -> Counter[str]:
        trees = {name: self._tree(pid) for name, pid in self._roots.items()}
        return Counter({name: sum(map(_cpu, pids)) for name, pids in trees.items()})

    def peaks(self) -> dict[str, float]:
        """MB, of the largest process of each; shared memory counts in each that touched it."""
        return {name: max(map(_peak, self._tree(pid)), default=0.0) for name, pid in self._roots.items()}

    @staticmethod
    def _tree(root: int) -> list[int]:
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))):
                parents[int(entry.name)] = int(fields[1])
        found = [root]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _cpu(pid: int) -> float:
    """Also of its children that ended."""
    return sum(map(int, _stat(pid)[11:15])) / _TICKS


def _peak(pid: int) -> float:
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(found[1]) / 1024 if found else 0.0
