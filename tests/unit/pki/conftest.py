"""Fixtures of the formats' tests: CAs made by pyca, and strangers that read what we wrote."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from tests.support.authority import KINDS, Authority, authority


@pytest.fixture(params=KINDS)
def ca(request: pytest.FixtureRequest) -> Authority:
    """A CA of each signature algorithm that CAs may use (A18)."""
    return authority(request.param)


@pytest.fixture
def p256() -> Authority:
    """A CA on P-256."""
    return authority("ecdsa-p256-sha256")


@pytest.fixture
def openssl(tmp_path: Path) -> Callable[..., str]:
    """Runs `openssl ARGS`, bytes among them as files; returns all that it prints, and fails when it fails."""

    def run(*arguments: str | bytes, status: int = 0) -> str:
        words = [str(argument) for argument in arguments]
        for number, argument in enumerate(arguments):
            if isinstance(argument, bytes):
                words[number] = str(tmp_path / str(number))
                (tmp_path / str(number)).write_bytes(argument)
        done = subprocess.run(
            ["openssl", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": os.environ["PATH"]},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def pkilint(tmp_path: Path) -> Callable[..., str]:
    """Runs a pkilint program's main over DER; returns its findings above notice."""

    def run(main: Callable[[list[str]], int], der: bytes, *arguments: str) -> str:
        path = tmp_path / "to-lint.der"
        path.write_bytes(der)
        with redirect_stdout(io.StringIO()) as printed:
            status = main(["lint", *arguments, "-s", "WARNING", "--document-format", "DER", str(path)])
        return printed.getvalue().strip() if status else ""

    return run
