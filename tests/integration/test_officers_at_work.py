"""What operators do in an incident, with the command line alone, against a whole running system."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from loadtest.system import System, openssl_ocsp


def approve(system: System, proposal: dict[str, Any], as_: str = "officer2") -> Any:
    done = system.quash("approve", str(proposal["id"]), "--sha256", proposal["sha256"], "--as", as_, "--json")
    assert done.status == 0, done.err
    return done.json


def test_the_kill_switch_stops_issuance_and_nothing_else(system: System) -> None:
    """Stopped by one operator, lifted by two officers; a revocation in between is visible as ever."""
    before = system.issue("before-stop")
    stop = system.quash("kill-switch stop", "--why", "drill", "--json")
    assert (stop.status, stop.json["stopped"]) == (0, True)
    try:
        refused = system.quash("issue", "--profile", "tls-dv", "--csr", str(system.folder / "before-stop.csr"))
        assert refused.status == 3, refused.err
        assert "stopped" in refused.err
        revoked = system.quash("revoke --wait --json", "--cert", str(before), "--reason", "superseded")
        assert revoked.status == 0, revoked.err
        assert openssl_ocsp(system, "tls-dv", before) == "revoked"
    finally:
        lift = system.quash("kill-switch lift", "--why", "drill over", "--json")
        alone = system.quash("approve", str(lift.json["id"]), "--sha256", lift.json["sha256"], "--as", "officer")
        approve(system, lift.json)
    assert (alone.status, alone.err.split(":")[1]) == (3, " proposal.same_person")
    shown = system.quash("kill-switch status", "--json").lines
    assert [(each["issuer"], each["stopped"]) for each in shown] == [(None, False)]
    system.issue("after-lift")


def test_a_stolen_key_from_proof_to_ledger(system: System, tmp_path: Path) -> None:
    """The key itself revokes its certificates; the ledger tells of it, and an export verifies without the system."""
    stolen = system.issue("stolen")
    reach = system.quash("key compromised --dry-run --json", "--private-key", str(system.folder / "stolen.key")).json
    assert (reach["certificates"], reach["changed"]) == (1, False)
    done = system.quash("key compromised --json", "--private-key", str(system.folder / "stolen.key"))
    assert (done.status, done.json["revoked"]) == (0, 1), done.err
    deadline = time.monotonic() + 30
    while openssl_ocsp(system, "tls-dv", stolen) != "revoked":
        assert time.monotonic() < deadline
    shown = system.quash("key show", done.json["spki_sha256"]).json
    assert [proof["kind"] for proof in shown["proofs"]] == ["private-key"]
    given = system.quash("key challenge --json").json["challenge"]
    again = system.issue("stolen-too")
    subprocess.run(
        [
            *("openssl", "req", "-new", "-key", str(system.folder / "stolen-too.key"), "-subj", f"/CN={given}"),
            *("-out", str(tmp_path / "proof.csr")),
        ],
        check=True,
        capture_output=True,
    )
    done = system.quash("key compromised --json", "--csr", str(tmp_path / "proof.csr"), "--cert", str(again))
    assert (done.status, done.json["revoked"]) == (0, 1), done.err

    verified = _verified(system)
    assert (verified["fault_count"], verified["faults"]) == (0, [])
    export = tmp_path / "export.jsonl"
    assert system.quash("audit export", "--out", str(export)).status == 0
    key = shutil.copy(system.state / "certs" / "ledger.pub.pem", tmp_path)
    alone = ("audit verify --json", "--key", str(key), "--export", str(export))
    assert system.quash(*alone).json["fault_count"] == 0
    body = export.read_bytes().replace(b'"key.compromise"', b'"key.compromize"')
    export.write_bytes(body)
    broken = system.quash(*alone)
    assert (broken.status, broken.err.split(":")[1]) == (1, " ledger.broken")
    assert broken.json["fault_count"] > 0


def _verified(system: System) -> Any:
    """What `quash audit verify` says beside the running system, once all rows are chained."""
    deadline = time.monotonic() + 30
    while True:
        done = system.quash("audit verify --json")
        assert done.status == 0, done.err
        if done.json["not_chained"] == 0 and done.json["checkpoints"] > 0:
            return done.json
        assert time.monotonic() < deadline, done.json


def test_a_new_operator_with_a_key_of_its_own(system: System, tmp_path: Path) -> None:
    """Proposed, approved, signed where the operators' CA is, used, and disabled by two officers."""
    operators = system.state / "operators"
    name = f"anna-{tmp_path.name[-6:]}".lower().replace("_", "-")
    subprocess.run(
        [
            *("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=x", "-keyout", str(operators / f"{name}.key"), "-out", str(tmp_path / "anna.csr")),
        ],
        check=True,
        capture_output=True,
    )
    added = system.quash(
        "operator add --json",
        "--csr",
        str(tmp_path / "anna.csr"),
        "--name",
        name,
        "--person",
        "Anna",
        "--role",
        "viewer",
    )
    assert added.status == 0, added.err
    sign = ("operator sign", str(added.json["id"]), "--out", str(operators / f"{name}.pem"))
    assert system.quash(*sign).status == 3
    approve(system, added.json)
    signed = system.quash(*sign)
    assert signed.status == 0, signed.err
    assert system.quash("crl list --json", "--as", name).status == 0
    disabled = system.quash("operator disable --json", "--name", name)
    approve(system, disabled.json)
    out = system.quash("crl list", "--as", name)
    assert (out.status, out.err.split(":")[1]) == (3, " operator.disabled")
