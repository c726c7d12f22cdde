"""A database restored from a backup that is older than what the world was told: nothing is signed, and all is named."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509

from loadtest.system import System, openssl_ocsp

WITHIN = 240.0


def serial_of(certificate: Path) -> str:
    return f"{x509.load_pem_x509_certificates(certificate.read_bytes())[0].serial_number:x}"


def copy(folder: Path, to: Path) -> None:
    """With owners and modes, as a backup has them: the server runs as a user of its own."""
    subprocess.run(["cp", "-a", folder, to], check=True)


@pytest.mark.long
def test_a_restored_backup_signs_nothing(server_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold copy of the database is put back after two more revocations: presigner and CRL builder refuse both.

    The node's cache, which nobody restored, still answers revoked, and its check against the database names both too.
    """
    with System(server_folder) as before:
        before_backup, one, two = (before.issue(name) for name in ("before", "one", "two"))
        revoke = "revoke --wait --reason superseded"
        assert before.quash(revoke, "--cert", str(before_backup)).status == 0
        assert before.stop() == 0
        copy(before.state / "pg", server_folder / "backup")
    with System(server_folder) as later:
        for certificate in (one, two):
            assert later.quash(revoke, "--cert", str(certificate)).status == 0
        published = {path: path.read_bytes() for path in (later.state / "crl").rglob("*.crl")}
        assert later.stop() == 0
    shutil.rmtree(later.state / "pg")
    copy(server_folder / "backup", later.state / "pg")

    restored = System(server_folder)
    monkeypatch.setattr("loadtest.system.READY_WITHIN", 15.0)  # it never is
    with pytest.raises(AssertionError, match="not ready"):
        restored.start()
    try:
        missing = {serial_of(one), serial_of(two)}
        told = {"presigner": "presign.revocations_lost", "crl-builder": "crl.database_lost_revocations"}
        deadline = time.monotonic() + WITHIN
        for process, code in told.items():
            while code not in (log := (restored.state / "log" / f"{process}.log").read_text()):
                assert time.monotonic() < deadline, log[-3000:]
                time.sleep(0.5)
        lost = next(line for line in log_of(restored, "presigner").splitlines() if told["presigner"] in line)
        assert all(serial in lost for serial in missing)
        assert serial_of(before_backup) not in lost
        assert {path: path.read_bytes() for path in published} == published
        assert [openssl_ocsp(restored, "tls-dv", each) for each in (before_backup, one, two)] == ["revoked"] * 3
        checked = restored.quash("cache fsck --database --json")
        assert checked.status == 3
        assert missing <= {each.split()[3].rstrip(":").lstrip("0") for each in checked.json["disagreements"]}
    finally:
        restored.stop()


def log_of(system: System, process: str) -> str:
    return (system.state / "log" / f"{process}.log").read_text()
