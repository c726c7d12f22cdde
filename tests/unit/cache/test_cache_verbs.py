"""`quash cache stats` and `quash cache fsck`, as commands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quash.cache.environment import FILE
from quash.cache.layout import IssuerRow, Record, TemplateRow, encode_record
from quash.cache.writer import Changes, LmdbWriter
from quash.runtime.state import State

NOW = int(time.time())


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state folder whose cache holds one good record, closed in order."""
    state = State(tmp_path / "var")
    (tmp_path / "quash.toml").write_text("")
    record = Record(0, None, 0, NOW, NOW + 172_799, 1, (b"s" * 64, b"s" * 64))
    writer = LmdbWriter(state.cache)
    writer.apply(
        Changes(
            records=[(1, b"\x01", encode_record(record))],
            issuers=[IssuerRow(1, "tls-dv", b"subject", b"spki", b"certificate", "tls-dv", 1800, 345_599)],
            templates=[TemplateRow(1, 1, "ecdsa-p256-sha256", b"certificate")],
            heartbeat=NOW,
            complete=True,
        )
    )
    writer.close()
    return state


def cache(state: State, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `quash cache VERB`."""
    options = ["--config", str(state.root.parent / "quash.toml"), "--state", str(state.root)]
    command = [sys.executable, "-m", "quash.cli.main", "cache", verb, *options, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_stats_say_what_is_there(state: State) -> None:
    """As text for people and as one JSON object for programs."""
    told = cache(state, "stats")
    assert (told.returncode, told.stderr) == (0, "")
    assert "tls-dv: 1 good, 0 revoked" in told.stdout
    found = json.loads(cache(state, "stats", "--json").stdout)
    assert found["issuers"] == [{"issuer": "tls-dv", "good": 1, "revoked": 0, "expired": 0}]
    assert (found["records"], found["signers"], found["complete"]) == (1, 1, True)
    assert 0 <= found["heartbeat_age"] < 600
    assert 0 < found["used_bytes"] <= found["file_bytes"]


def test_fsck_tells_sound_from_faulty(state: State) -> None:
    """Exit status 0 without a fault; 1 with each one listed."""
    sound = cache(state, "fsck")
    assert (sound.returncode, sound.stdout) == (0, "1 records, no fault\n")
    writer = LmdbWriter(state.cache)
    writer.apply(Changes(records=[(2, b"\x01", b"\x01" * 145)]))
    writer.close()
    faulty = cache(state, "fsck", "--json")
    assert faulty.returncode == 1
    assert faulty.stderr.startswith("error: cache.faulty: ")
    assert json.loads(faulty.stdout)["fault_count"] == 1


def test_without_a_cache_the_verbs_say_so(state: State) -> None:
    """Exit status 4, unavailable, and what to do."""
    (state.cache / FILE).unlink()
    for verb in ("stats", "fsck"):
        done = cache(state, verb)
        assert done.returncode == 4
        assert done.stderr.startswith("error: cache.missing: ")
