"""`quash cache stats` and `quash cache fsck`, as commands."""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path
from typing import Any

import pytest

from quash.cache.environment import FILE
from quash.cache.writer import Changes, LmdbWriter
from quash.cli.main import main
from quash.runtime.state import State
from responder.follow import cache_check
from tests.support.command_line import Said
from tests.support.ocsp_issuer import OcspIssuer

NOW = int(time.time())
DAY = 86_400
ISSUER = OcspIssuer(starts=NOW - 20 * DAY)


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state folder whose cache holds one good record with true signatures, closed in order."""
    state = State(tmp_path / "var")
    (tmp_path / "quash.toml").write_text("")
    writer = LmdbWriter(state.cache)
    writer.apply(
        Changes(
            records=[(1, b"\x01", ISSUER.record(b"\x01", NOW))],
            issuers=[ISSUER.row],
            templates=[ISSUER.template_row],
            heartbeat=int(time.time()),
            complete=True,
        )
    )
    writer.close()
    return state


def cache(state: State, verb: str, *arguments: str) -> Said:
    """Runs `quash cache VERB`, in this process: a fresh interpreter for each takes a second."""
    options = ["--config", str(state.root.parent / "quash.toml"), "--state", str(state.root)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["cache", verb, *options, *arguments])
            status: Any = 0
        except SystemExit as end:
            status = end.code or 0
    return Said(status, out.getvalue(), err.getvalue())


def test_stats_say_what_is_there(state: State) -> None:
    """As text for people and as one JSON object for programs."""
    told = cache(state, "stats")
    assert (told.status, told.err) == (0, "")
    assert "tls-dv: 1 good, 0 revoked" in told.out
    found = cache(state, "stats", "--json").json
    assert found["issuers"] == [{"issuer": "tls-dv", "good": 1, "revoked": 0, "expired": 0}]
    assert (found["records"], found["signers"], found["complete"]) == (1, 1, True)
    assert 0 <= found["heartbeat_age"] < 600
    assert 0 < found["used_bytes"] <= found["file_bytes"]


def add(state: State, *records: tuple[int, bytes, bytes], heartbeat: int | None = None) -> None:
    writer = LmdbWriter(state.cache)
    writer.apply(Changes(records=records, heartbeat=heartbeat))
    writer.close()


def fsck(state: State, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, the JSON object and what stands on stderr."""
    done = cache(state, "fsck", "--json", *arguments)
    return done.status, done.json, done.err


def test_fsck_tells_sound_from_faulty(state: State) -> None:
    """0: every signature is true. 1: a record of another key, of another certificate, of the future, of no issuer.

    What is past its nextUpdate, or older than a day (G3), is counted: it is no fault of the file.
    """
    sound = cache(state, "fsck")
    assert (sound.status, sound.out) == (0, "1 records; 0 past nextUpdate, 0 older than a day\n")
    add(
        state,
        (1, b"\x02", ISSUER.record(b"\x02", NOW - 3 * DAY)),
        (1, b"\x03", ISSUER.record(b"\x03", NOW - 90_000)),
        (1, b"\x04", ISSUER.record(b"\x04", NOW - 60, revoked=(1, NOW - 99))),
        heartbeat=int(time.time()),
    )
    status, said, _ = fsck(state)
    assert status == 0
    assert (said["records"], said["expired"], said["late"], said["fault_count"]) == (4, 1, 1, 0)
    add(
        state,
        (1, b"\x05", ISSUER.record(b"\x05", NOW, spoil=True)),
        (1, b"\x06", ISSUER.record(b"\x07", NOW)),  # another certificate's
        (1, b"\x08", ISSUER.record(b"\x08", int(time.time()) + 600)),
        (2, b"\x01", ISSUER.record(b"\x01", NOW)),  # an issuer that is none
    )
    status, said, err = fsck(state)
    assert status == 1
    assert err.startswith("error: cache.faulty: ")
    assert said["fault_count"] == 4
    codes = sorted(fault.partition(":")[0] for fault in said["faults"])
    assert codes == ["future", "signature", "signature", "unknown_signer"]


def test_fsck_tells_a_stale_cache(state: State) -> None:
    """4: nothing is wrong with it, but nobody has brought it up to date for longer than a fresh one may be."""
    writer = LmdbWriter(state.cache)
    writer.rebuild()
    old = Changes(issuers=[ISSUER.row], templates=[ISSUER.template_row], heartbeat=NOW - 3600, complete=True)
    writer.apply(old)
    writer.close()
    status, said, err = fsck(state)
    assert (status, said["stale"], said["fault_count"]) == (4, True, 0)
    assert err.startswith("error: cache.stale: ")


def test_fsck_tells_a_damaged_file(state: State) -> None:
    """1, whatever LMDB makes of it, up to its death."""
    path = state.cache / FILE
    body = bytearray(path.read_bytes())
    for offset in range(0x2000, len(body), 512):
        body[offset : offset + 64] = b"\xa5" * 64
    path.write_bytes(body)
    status, said, _ = fsck(state)
    assert (status, said["fault_count"]) == (1, 1)


@pytest.mark.long  # a process for each core
def test_a_large_cache_is_checked_by_every_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same findings by processes, slice by slice, none looked at twice."""
    writer = LmdbWriter(tmp_path)
    serials = [number.to_bytes(2, "big") for number in range(0x100, 0x100 + 45)]
    records = [(1, serial, ISSUER.record(serial, NOW, spoil=serial[1] == 7)) for serial in serials]
    writer.apply(Changes(records=records, issuers=[ISSUER.row], templates=[ISSUER.template_row], heartbeat=NOW))
    monkeypatch.setattr(cache_check, "LARGE", 40)
    monkeypatch.setattr(cache_check, "SLICE", 7)
    check, steps = cache_check.Check(), list[int]()
    cache_check.verify(writer.environment, NOW, check, steps.append)
    writer.close()
    assert (check.records, sum(steps), check.fault_count) == (45, 45, 1)
    assert "serial 0107" in check.faults[0]


def test_without_a_cache_the_verbs_say_so(state: State) -> None:
    """Exit status 4, unavailable, and what to do."""
    (state.cache / FILE).unlink()
    for verb in ("stats", "fsck"):
        done = cache(state, verb)
        assert done.status == 4
        assert done.err.startswith("error: cache.missing: ")
