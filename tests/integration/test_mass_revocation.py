"""A mass revocation as operators run it: the command line, two officers, and strangers who see it (C17)."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from loadtest.system import System, openssl_ocsp


def serial_of(system: System, pem: Path) -> str:
    said = system.quash("status --json", "--cert", str(pem))
    assert said.status == 0, said.err
    return str(said.json["serial"])


def approve(system: System, proposal: Any) -> None:
    said = system.quash("approve", str(proposal["id"]), "--sha256", proposal["sha256"], "--as", "officer2")
    assert said.status == 0, said.err


@pytest.mark.long
def test_a_filter_with_an_exemption_and_a_pace(system: System, tmp_path: Path) -> None:
    """What two officers exempt is left out, and shown by preview, job, case and report; the rest at the asked pace."""
    below = f"part-{tmp_path.name[-6:]}".lower().replace("_", "-")
    pems = [system.issue(f"{number}.{below}") for number in range(3)]
    serials = [serial_of(system, pem) for pem in pems]
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    exempt = ("exemption propose --json", serials[0], "--why", "a hospital replaces it tonight", "--until", until)
    approve(system, system.quash(*exempt).json)
    (shown, *_) = system.quash("exemption list --json").lines
    assert (shown["serial"], shown["ended_at"]) == (serials[0], None)
    opened = system.quash("case open --json --trigger br-12 --reporter R --summary S").json
    number = str(opened["id"])
    assert system.quash("case add", number, *serials).status == 0
    assert system.quash("case show --json", number).json["exempt"] == 1

    command = ("revoke --json --preview --per-second 0.1", "--name", f".{below}.example.org", "--reason", "superseded")
    job = system.quash(*command).json
    assert (job["certificates"], job["exempt"], job["max_per_second"]) == (3, 1, 0.1)
    assert [each["serial"] for each in job["preview"]["exempt"]] == [serials[0]]
    assert system.quash("job start", str(job["id"])).status == 0
    assert system.quash("job pace --json", str(job["id"])).json["max_per_second"] is None
    assert system.quash("job watch", str(job["id"])).status == 0
    done = system.quash("job show --json", str(job["id"])).json
    assert (done["state"], done["done"], done["changed"], done["exempt"]) == ("done", 3, 2, 1)
    assert system.quash("case revoke", number).out == "0 revoked\n"
    assert system.quash("case report", number, "--out", str(tmp_path / "report")).status == 0
    assert f"| {serials[0]} | tls-dv |" in (tmp_path / "report" / "report.md").read_text()
    ended = system.quash("exemption end --json", str(shown["id"]), "--why", "it is replaced").json
    assert ended["ended_at"] is not None
    assert system.quash("case revoke", number).out == "1 revoked\n"


def test_a_list_from_preview_to_the_answers(system: System, tmp_path: Path) -> None:
    """Unknown serials are told; the preview changes nothing; the set of the export is approved; all are revoked."""
    pems = [system.issue(f"mass-{number}") for number in range(3)]
    serials = [serial_of(system, pem) for pem in pems]
    listed = tmp_path / "serials.txt"
    listed.write_text("\n".join(["# a comment", *serials, "123456"]))
    wrong = system.quash("revoke", "--file", str(listed), "--reason", "superseded")
    assert (wrong.status, wrong.err.split(":")[1]) == (2, " mass.unknown_serials")
    assert "123456" in wrong.err
    command = ("revoke --skip-unknown --json", "--file", str(listed), "--reason", "superseded")
    preview = system.quash(*command, "--preview")
    assert preview.status == 0, preview.err
    job = preview.json
    assert (job["state"], job["certificates"], job["needs_approval"]) == ("ready", 3, False)
    assert openssl_ocsp(system, "tls-dv", pems[0]) == "good"
    export = tmp_path / "set.txt"
    said = system.quash("job export", str(job["id"]), "--out", str(export))
    assert said.out.strip() == hashlib.sha256(export.read_bytes()).hexdigest() == job["sha256"]

    started = system.quash("job start --json", str(job["id"]))
    assert (started.status, started.json["state"]) == (0, "running"), started.err
    assert system.quash("job watch", str(job["id"])).status == 0
    done = system.quash("job show --json", str(job["id"])).json
    assert (done["state"], done["done"], done["changed"]) == ("done", 3, 3)
    deadline = time.monotonic() + 30
    while [openssl_ocsp(system, "tls-dv", pem) for pem in pems] != ["revoked"] * 3:
        assert time.monotonic() < deadline
    assert system.quash("job abort", str(job["id"])).status == 3


@pytest.mark.long
def test_a_rehearsal_touches_nothing_and_tells_how_long_it_takes(system: System, tmp_path: Path) -> None:
    """BR 5.7.1.2: the set is revoked on a scratch system, every stage timed; the live one still says good."""
    pems = [system.issue(f"rehearsed-{number}") for number in range(2)]
    opened = system.quash("case open --json --trigger br-12 --reporter R --summary S").json
    number = str(opened["id"])
    assert system.quash("case add", number, *(serial_of(system, pem) for pem in pems)).status == 0
    job = system.quash("revoke --json --preview --reason superseded --case", number).json
    said = system.quash("job rehearse --json", str(job["id"]), timeout=600)
    assert said.status == 0, said.err
    told = said.json
    assert (told["certificates"], told["rehearsed"], told["late"]) == (2, 2, False)
    assert told["deadline"] == opened["publish_by"]
    stages = told["stages"]
    assert set(stages) == {"previewed", "revoked", "signed", "cached", "published"}
    assert told["forecast_seconds"] >= max(stages["revoked"], stages["published"]) > 0
    assert system.quash("job show --json", str(job["id"])).json["state"] == "ready"
    assert [openssl_ocsp(system, "tls-dv", pem) for pem in pems] == ["good", "good"]
    assert system.quash("job abort", str(job["id"])).status == 0
