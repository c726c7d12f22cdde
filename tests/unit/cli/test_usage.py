"""What the command line says of words that it does not understand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.issuing import make_csr


def _quash(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quash.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words", [["no-such-verb"], ["issue"], ["issue", "--no-such-option"], ["crl", "list", "--bad"], ["revoke", "--set"]]
)
def test_usage_errors_are_lines_like_all_others(words: list[str]) -> None:
    """One line on stderr with the code, and exit 2."""
    done = _quash(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: usage: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["--help"], ["issue", "--help"], ["crl", "list", "--help"]])
def test_help_is_no_error(words: list[str]) -> None:
    """Help goes to stdout, and exits with 0."""
    done = _quash(*words)
    assert done.returncode == 0
    assert "Usage: quash" in done.stdout


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """One line that names the path, no traceback; exit 4."""
    (tmp_path / "file").touch()
    done = _quash("init", "--state", str(tmp_path / "file" / "var"))
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: file.unusable: {tmp_path / 'file' / 'var'}/")
    assert done.stderr.endswith(": Not a directory\n")
    assert len(done.stderr.splitlines()) == 1


def test_an_import_into_nothing_makes_nothing(tmp_path: Path) -> None:
    """A state folder that was mistyped is not made."""
    words = ["import", "openssl", "--name", "x", "--index", "none", "--ca", "none", "--key", "none"]
    done = _quash(*words, "--state", str(tmp_path / "var"))
    assert done.returncode == 4
    assert done.stderr.startswith("error: state.not_initialised: ")
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("name", ["DE", "", "C=DE,O=Example, Inc.", "OU=PKI,C=DE", "O=Example"])
def test_a_slip_in_a_constraint_is_no_constraint_less(name: str, tmp_path: Path) -> None:
    """D16, D17: nothing of --permitted-directory is dropped; the command ends before it touches the state."""
    csr = tmp_path / "their.csr"
    csr.write_text(make_csr(()))
    words = ("--csr", str(csr), "--issuer", "eca1-tls", "--policy", "ov", "--permitted-dns", "example.org")
    done = _quash("ca", "sign-sub-ca", *words, "--permitted-directory", name, "--state", str(tmp_path / "none"))
    assert done.returncode == 2
    assert done.stderr.split()[1].startswith(("name.", "external.permitted"))
    assert not (tmp_path / "none").exists()
