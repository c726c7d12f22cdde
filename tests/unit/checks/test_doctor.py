"""`quash doctor`: what the configuration counts on is ok or bad, what it does not mention is absent."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from issuer.checks.blocklist import write_blocklist
from issuer.checks.doctor import examine
from issuer.ct.double import LogDouble, list_of
from quash.cli.main import main
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config, load
from quash.runtime.state import State

LINTER = {"name": "own", "output": "lines"}
ZLINT = [
    sys.executable,
    "-c",
    'import sys; sys.stdin.buffer.read(1) or sys.exit(9); print(\'{"e_a": {"result": "pass"}}\')',
]
VERSION = [sys.executable, "--version"]


def _config(tmp_path: Path, command: list[str]) -> Config:
    lists = [{"name": "bad-keys", "file": str(tmp_path / "bad-keys")}]
    linter = {**LINTER, "command": command, "version_command": VERSION}
    return Config.model_validate(
        {
            "lint": {"external": [linter]},
            "checks": {"blocklists": lists},
            "ct": {"log_list": "ct/log_list.json"},
            "names": {"max_age_days": 366},
            "self_audit": {"linters": [_auditor()]},
        }
    )


def _auditor(**more: object) -> dict[str, object]:
    return {"name": "auditor", "output": "zlint", "command": ZLINT, "version_command": VERSION, **more}


async def _states(config: Config, tmp_path: Path, clock: FakeClock) -> dict[str, str]:
    return {each.what: each.state async for each in examine(config, State(tmp_path), clock)}


async def test_what_is_configured_must_work(tmp_path: Path, clock: FakeClock) -> None:
    """A missing linter, blocklist or log list is bad; each becomes ok when it is there."""
    found = await _states(_config(tmp_path, ["/nowhere/zlint"]), tmp_path, clock)
    assert {what: found[what] for what in ("own", "blocklist bad-keys", "ct logs", "pkilint", "badkeys")} == {
        "own": "bad",
        "blocklist bad-keys": "bad",
        "ct logs": "bad",
        "pkilint": "ok",
        "badkeys": "ok",
    }
    write_blocklist(tmp_path / "bad-keys", [b"any key"])
    key = ec.generate_private_key(ec.SECP256R1())
    log = LogDouble(operator="a", name="b", kind="rfc6962", key=key, roots=[], clock=clock)
    (State(tmp_path).ct / "log_list.json").write_bytes(orjson.dumps(list_of([log], "http://x", clock.now())))
    found = await _states(_config(tmp_path, [sys.executable, "-c", ""]), tmp_path, clock)
    assert "bad" not in found.values()
    assert found["own"] == "ok"
    assert found["x509lint"] == "absent"


WRONG: dict[str, dict[str, object]] = {
    "its program is missing": {"command": ["/nowhere/zlint"]},
    "its program is missing, its version's is not": {"command": ["/nowhere/zlint"], "version_command": ["true"]},
    "its version command fails": {"version_command": ["false"]},
    "its version command says nothing": {"version_command": ["true"]},
    "its version command prints how to use it, and fails": {"version_command": ["sh", "-c", "echo usage; exit 2"]},
    "it says nothing of a certificate": {"command": ["sh", "-c", "exit 1"]},
    "it says something else": {"command": ["echo", "Segmentation fault"]},
    "it speaks another format": {"command": ["echo", "E: no"]},
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_linter_works_if_it_judges_a_certificate_and_tells_its_version(
    tmp_path: Path, clock: FakeClock, wrong: str
) -> None:
    """D48, F12: those that gate and those that audit."""
    linter = _auditor(**WRONG[wrong])
    for where in ({"lint": {"external": [linter]}}, {"self_audit": {"linters": [linter]}}):
        found = await _states(Config.model_validate(where), tmp_path, clock)
        assert found["auditor"] == "bad"
    found = await _states(Config.model_validate({"lint": {"external": [_auditor()]}}), tmp_path, clock)
    assert found["auditor"] == "ok"


async def test_a_linter_that_another_program_runs_is_not_missing(tmp_path: Path, clock: FakeClock) -> None:
    """As ruby runs cablint, and curl asks pkimetal: it is said to work, not in the same breath to be absent."""
    config = Config.model_validate({"lint": {"external": [_auditor(name="cablint")]}})
    said = [each.state async for each in examine(config, State(tmp_path), clock) if each.what == "cablint"]
    assert said == ["ok"]


async def test_what_nobody_configured_is_said(tmp_path: Path, clock: FakeClock) -> None:
    """D42, F13: no blocklist, roots without test sites, and in a demonstration no linter for audits: notes."""
    file = Path(__file__).parents[3] / "config" / "demo.toml"
    config = load(file, ["testsite.sites=[]"])
    missing = [_auditor(command=["/nowhere/zlint"])]
    config = Config.model_validate(config.model_dump() | {"self_audit": {"linters": missing}})
    found = await _states(config, tmp_path, clock)
    assert {found[each] for each in ("blocklists", "test sites of root", "auditor")} == {"absent"}


@pytest.mark.parametrize(("required", "status"), [("true", 4), ("false", 0)])
def test_the_command_says_so_and_exits_accordingly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], required: str, status: int
) -> None:
    """One line of JSON for each; status 4 when logs are required and there are none (E6)."""
    config = Path(__file__).parents[3] / "config" / "demo.toml"
    options = ["--config", str(config), "--state", str(tmp_path), "--set", "ct.log_list=", "--set"]
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--json", *options, f"ct.required={required}"])
    assert (end.value.code or 0) == status
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"what": "ct logs", "state": "bad" if status else "absent", "detail": "ct.log_list is empty (E6)"} in lines
