"""Access control lists: one user gains what is asked, nobody else gains anything."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from quash.store.acl import R, W, X, allow, allowed

USER = (54321, 54322)  # uid and group
STRANGER = (54323, 54324)


def _rights(path: Path) -> list[bool]:
    """What a stranger, and one of the file's own group, may do."""
    same_group = (STRANGER[0], path.stat().st_gid)
    return [allowed(path, *who, what) for who, what in itertools.product((STRANGER, same_group), (R, W, X))]


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o711, 0o755, 0o770, 0o600])
def test_one_user_gains_x_and_nobody_else_anything(tmp_path: Path, mode: int) -> None:
    """After `allow` the user may walk through a folder of any mode; every other right is as before."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    before = _rights(folder)
    allow(folder, USER[0], X)
    assert allowed(folder, *USER, X)
    assert not allowed(folder, *USER, W)
    assert _rights(folder) == before


def test_chmod_takes_the_right_away_and_allow_gives_it_to_the_one_user_again(tmp_path: Path) -> None:
    """chmod closes the mask over all entries; opening it for our user gives nothing back to the others."""
    folder = tmp_path / "folder"
    folder.mkdir()
    allow(folder, STRANGER[0], R | W | X)
    allow(folder, USER[0], X)
    folder.chmod(0o700)
    assert not allowed(folder, *USER, X)
    allow(folder, USER[0], X)
    assert allowed(folder, *USER, X)
    assert not allowed(folder, *STRANGER, X)


def test_the_kernel_sees_the_entry_as_written(tmp_path: Path) -> None:
    """The mode's group bits show the mask, which proves that the kernel took the list as it was meant."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o700)
    allow(folder, USER[0], X)
    assert folder.stat().st_mode & 0o777 == 0o710
    folder.chmod(0o710)
    assert allowed(folder, *USER, X)
