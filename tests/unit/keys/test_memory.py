"""Who has opened a key is read by nobody: linters that the CA signer runs are of the same user."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from loadtest.system import instance
from quash.errors import QuashError
from quash.keys import open_key

_NOBODY = 65_534
_DUMPABLE = 4
_READ, _REFUSED, _FAILED = 0, 13, 99


def in_a_child(body: Callable[[], int]) -> int:
    """What it returns in a process of its own, of a user without rights."""
    child = os.fork()
    if child == 0:
        code = _FAILED
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(_NOBODY, _NOBODY, _NOBODY)
                os.setresuid(_NOBODY, _NOBODY, _NOBODY)
            code = body()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def spied_on_by_a_child() -> int:
    """What a process of the same user finds in the memory of the one that started it."""
    parent = os.getpid()

    def read() -> int:
        try:
            Path(f"/proc/{parent}/environ").read_bytes()
            with Path(f"/proc/{parent}/mem").open("rb"):
                return _READ
        except PermissionError:
            return _REFUSED

    return in_a_child(read)


@pytest.mark.parametrize(("opens", "found"), [(False, _READ), (True, _REFUSED)])
def test_an_open_key_closes_the_process(tmp_path: Path, *, opens: bool, found: int) -> None:
    """Memory and variables are readable until the first key is asked for, and to nobody of that user from then on."""

    def body() -> int:
        ctypes.CDLL(None).prctl(_DUMPABLE, 1, 0, 0, 0)  # becoming another user has closed it
        if opens:
            with contextlib.suppress(QuashError):
                open_key("pem:none.pem", tmp_path, None, logins=tmp_path)
        return spied_on_by_a_child()

    assert sys.platform == "linux"
    assert in_a_child(body) == found


@pytest.mark.parametrize(("mode", "found"), [(0o755, _READ), (0o111, _REFUSED)])
def test_whoever_tests_without_rights_knows_it_by_its_command(mode: int, found: int) -> None:
    """Here it is a program that its user may not read, which is as closed as one that has opened a key."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shell = shutil.copy("/bin/sh", Path(folder) / "sh")
        shell.chmod(mode)

        def body() -> int:
            command = [shell, "-c", "read line", "serve", "presigner"]
            with subprocess.Popen(command, stdin=subprocess.PIPE, env={"QUASH_INSTANCE": "other"}) as child:
                name = instance(Path(f"/proc/{child.pid}"))
                child.communicate()
            return {"other": _READ, "presigner": _REFUSED}.get(name, _FAILED)

        assert in_a_child(body) == found
