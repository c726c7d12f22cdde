"""A compromise from a stranger's report to the incident report, by HTTP and the command line alone."""

from __future__ import annotations

import csv
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from loadtest.system import System, openssl_ocsp


def until(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 60
    while not wanted(said := look()):
        assert time.monotonic() < deadline, said
        time.sleep(0.3)
    return said


@pytest.mark.long
def test_from_the_report_to_the_incident_report(system: System, tmp_path: Path) -> None:
    """docs/incidents.md, step by step: report, case, revocation, notices, evidence, incident report."""
    name = f"reported-{tmp_path.name[-6:]}".lower().replace("_", "-")
    certificate = system.issue(name)
    key = (system.folder / f"{name}.key").read_text()
    found = system.quash("find --json", "--name", f"{name}.example.org").lines
    assert [each["account"] for each in found] == ["operator:operator"]

    url = f"http://127.0.0.1:{system.ports['intake']}"
    report = {"contact": "anna@example.org", "description": "found on a forum", "private_key": key}
    said = requests.post(f"{url}/report-key-compromise", json=report, timeout=30)
    assert said.status_code == 202, said.text

    def cases() -> Any:
        return [each for each in system.quash("case list --json").lines if each["summary"] == "found on a forum"]

    (case,) = until(cases, lambda listed: bool(listed) and listed[0]["state"] == "met")
    assert (case["certificates"], case["visible"], case["late"]) == (1, 1, False)
    assert openssl_ocsp(system, "tls-dv", certificate) == "revoked"
    number = str(case["id"])
    assert system.quash("case pick-up", number).status == 0
    told = system.quash("case notify", number, "--template", "revocation", "--subscribers")
    assert (told.status, told.out) == (0, "1 queued\n")
    (notice,) = system.quash("case notices --json", number).lines
    assert (notice["to"], notice["sent_at"]) == ("operator:operator", None)
    assert system.quash("case reported", number, "by telephone").status == 0

    def proven() -> Any:
        shown = system.quash("evidence --json", "--cert", str(certificate)).json
        return {each["kind"] for each in shown["revocations"][0]["sightings"]}

    until(proven, lambda kinds: kinds == {"feed", "ocsp", "crl"})
    out = tmp_path / "evidence"
    written = system.quash("evidence", "--cert", str(certificate), "--out", str(out))
    assert written.status == 0, written.err
    checked = subprocess.run(["sh", str(out / "check.sh")], capture_output=True, text=True, timeout=120, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "crl.der: revoked" in checked.stdout

    assert system.quash("case report", number, "--out", str(tmp_path / "report")).status == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "- Revoked: 1" in text
    assert "| case.picked-up |" in text
    (row,) = csv.DictReader((tmp_path / "report" / "certificates.csv").read_text().splitlines())
    assert (row["Is revoked?"], row["reason"]) == ("yes", "keyCompromise")
    acts = system.quash("acts --json", "--action", "key.compromise", "--limit", "1").lines
    assert acts[0]["by"] == "intake"
