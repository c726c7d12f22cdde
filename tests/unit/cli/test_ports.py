"""`quash up` where somebody else has a port."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("section", ["responder", "crl_origin", "issuer", "admin", "intake", "metrics", "ct_log"])
def test_a_port_in_use_is_said_at_once(tmp_path: Path, section: str) -> None:
    """Exit 4 with the address, before a database or a key is made."""
    sections = ("responder", "crl_origin", "issuer", "admin", "intake", "metrics", "ct_log")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sets = [f"--set={name}.port={port if name == section else 0}" for name in sections]
        command = [sys.executable, "-m", "quash.cli.main", "up", "--config", "config/demo.toml"]
        done = subprocess.run(
            [*command, "--state", str(tmp_path / "var"), *sets], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 4
    assert f"error: listen.taken: cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert not (tmp_path / "var" / "keys" / "ca").exists()


def test_a_cpu_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    """Workers are bound to cores that exist, or nothing is started."""
    command = [
        sys.executable,
        "-m",
        "quash.cli.main",
        "up",
        "--config",
        "config/demo.toml",
        "--set",
        "responder.port=0",
    ]
    done = subprocess.run(
        [*command, "--state", str(tmp_path / "var"), "--set", "responder.cpus=[0, 4095]"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "error: up.no_such_cpu: " in done.stderr
    assert "4095" in done.stderr
