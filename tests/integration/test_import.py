"""Real input: a CA that `openssl ca` made, taken over beside a running system."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from loadtest.system import System, openssl, openssl_ocsp
from tests.support import strangers
from tests.support.openssl_ca import OpensslCa

_P256 = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
REASONS = {
    "compromised": ("-crl_reason", "keyCompromise"),
    "ca-compromised": ("-crl_CA_compromise", "20260101000000Z"),
    "key-time": ("-crl_compromise", "20260101000000Z"),
    "held": ("-crl_hold", "holdInstructionReject"),
    "superseded": ("-crl_reason", "superseded"),
    "plain": (),
}


def _wait_for_ocsp(system: System, issuer: str, certificate: Path, expected: str) -> None:
    """The presigner takes the import up without a restart, within seconds."""
    issuer_pem = system.state / "certs" / f"{issuer}.pem"
    deadline = time.monotonic() + 30
    while strangers.status_by_get(f"{system.ocsp}/{issuer}", certificate, issuer_pem, "sha256") != expected:
        assert time.monotonic() < deadline, f"{certificate} is not {expected}"
        time.sleep(0.1)


def test_a_ca_is_taken_over_beside_a_running_system(system: System, tmp_path: Path) -> None:
    """Every certificate of the index is answered as the index says, the CRL goes on from the old one, siblings fall."""
    old = OpensslCa(tmp_path / "old")
    good = old.issue("good")
    revoked = {name: old.issue(name) for name in REASONS}
    sibling = old.issue("sibling", key=old.folder / "compromised.key")
    for name, how in REASONS.items():
        old.revoke(revoked[name], *how)
    old_crl = x509.load_pem_x509_crl(old.crl().read_bytes())
    ours = system.issue("import-sibling", key=old.folder / "compromised.key")
    arguments = [*old.import_arguments("old-ca"), "--crl", str(old.folder / "crl.pem")]

    done = system.quash("import openssl --json", *arguments)

    assert done.status == 0, done.err
    assert {key: done.json[key] for key in ("certificates", "new_certificates", "revoked", "new_revocations")} == {
        "certificates": 8,
        "new_certificates": 8,
        "revoked": 6,
        "new_revocations": 6,
    }
    assert done.json["without_known_key"] == 0
    assert done.json["skipped_lines"] == 0
    assert len(done.json["warnings"]) == 3  # ca-compromised, key-time, held
    assert done.json["siblings_to_revoke"] == 2  # `sibling`, and ours of another issuer
    _wait_for_ocsp(system, "old-ca", good, "good")
    for certificate in (*revoked.values(), sibling):
        _wait_for_ocsp(system, "old-ca", certificate, "revoked")
        assert openssl_ocsp(system, "old-ca", certificate, digest="sha1") == "revoked"
    _wait_for_ocsp(system, "tls-dv", ours, "revoked")
    _assert_statuses(system, revoked)
    crl = x509.load_der_x509_crl(strangers.get(f"{system.crl}/old-ca.crl")[2])
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert number > old_crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert crl.last_update_utc >= old_crl.last_update_utc
    assert {entry.serial_number for entry in crl} == {
        strangers.load(c).serial_number for c in (*revoked.values(), sibling)
    }
    for certificate in (*revoked.values(), sibling):
        assert "certificate revoked" in _verify(old, certificate, crl, tmp_path)
    assert f"{good}: OK" in _verify(old, good, crl, tmp_path)
    assert strangers.lint_crl(strangers.get(f"{system.crl}/old-ca.crl")[2], tmp_path) == ""

    again = system.quash("import openssl --json", *arguments)

    assert again.status == 0, again.err
    assert (again.json["new_certificates"], again.json["new_revocations"], again.json["siblings_to_revoke"]) == (
        0,
        0,
        0,
    )

    old.revoke(good, "-crl_reason", "cessationOfOperation")
    later = system.quash("import openssl --json", *arguments)

    assert (later.json["new_certificates"], later.json["new_revocations"]) == (0, 1)
    _wait_for_ocsp(system, "old-ca", good, "revoked")


def _verify(old: OpensslCa, certificate: Path, crl: x509.CertificateRevocationList, folder: Path) -> str:
    path = folder / "ours.crl"

    path.write_bytes(crl.public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-crl_check", "-CAfile", str(old.folder / "ca.pem"), "-CRLfile", str(path)]
    done = subprocess.run([*command, str(certificate)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _assert_statuses(system: System, revoked: dict[str, Path]) -> None:
    """The reasons that are published, by `quash status` (B11)."""
    expected = {
        "compromised": "keyCompromise",
        "ca-compromised": "keyCompromise",
        "key-time": "keyCompromise",
        "held": "unspecified",
        "superseded": "superseded",
        "plain": "unspecified",
    }
    for name, reason in expected.items():
        status = system.quash("status --json", "--cert", str(revoked[name]))
        assert (status.json["status"], status.json["reason"]) == ("revoked", reason)


def test_bad_lines_stop_an_import_unless_they_are_skipped(system: System, tmp_path: Path) -> None:
    """A damaged index imports nothing and names the lines; --skip-bad imports the rest, and every revoked line."""
    old = OpensslCa(tmp_path / "old", key=_P256, common_name="Broken CA")
    kept, lost = old.issue("kept"), old.issue("lost")
    broken = old.issue("broken")
    old.revoke(broken)
    lines = old.index.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("\t", " ", 1)
    lines[2] = lines[2].replace("\t", "\tnever,", 1).replace("never,", "", 1).replace("Z\t", "X\t", 1)
    old.index.write_text("".join(lines))

    refused = system.quash("import openssl", *old.import_arguments("broken-ca"))

    assert refused.status == 2
    assert refused.err.startswith("error: import.bad_lines:")
    assert "line 2:" in refused.err
    assert "line 3:" in refused.err
    assert strangers.status_by_get(f"{system.ocsp}", kept, old.folder / "ca.pem", "sha1") == "unauthorized"

    skipped = system.quash("import openssl --skip-bad --json", *old.import_arguments("broken-ca"))

    assert skipped.status == 2
    assert (skipped.json["certificates"], skipped.json["revoked"], skipped.json["skipped_lines"]) == (2, 1, 1)
    _wait_for_ocsp(system, "broken-ca", kept, "good")
    _wait_for_ocsp(system, "broken-ca", broken, "revoked")
    assert strangers.status_by_get(f"{system.ocsp}/broken-ca", lost, old.folder / "ca.pem", "sha1") == "unauthorized"


def test_odd_serials_and_names_of_old_are_served(system: System, tmp_path: Path) -> None:
    """Serials of zero, below zero and over 20 octets are on our CRL byte for byte (B8), whatever linters think of them.

    The CA's country is in small letters and its name is as long as a name may be: its OCSP signer has a lawful name.
    """
    long_name = "L" * 64
    old = OpensslCa(tmp_path / "old", common_name=long_name, country="tn")
    revoked = old.issue("revoked")
    old.revoke(revoked, "-crl_reason", "superseded")
    serials = (0, -5, 0x01 << 8 * 21)
    with old.index.open("a") as index:
        for serial in serials:
            text = f"-{-serial:02X}" if serial < 0 else f"{serial:X}".zfill(2)
            index.write(f"R\t361121000000Z\t261101000000Z,superseded\t{text}\tunknown\t/CN={serial}\n")

    done = system.quash("import openssl --json", *old.import_arguments("odd-ca"))

    assert done.status == 0, done.err
    assert (done.json["new_certificates"], done.json["new_revocations"]) == (4, 4)
    _wait_for_ocsp(system, "odd-ca", revoked, "revoked")
    deadline = time.monotonic() + 30
    published = system.state / "crl" / "odd-ca.crl"
    while not published.exists():
        assert time.monotonic() < deadline, "the CRL is not published"
        time.sleep(0.1)
    listed = openssl("crl", "-inform", "DER", "-noout", "-text", "-in", str(published))
    for text in ("Serial Number: 00", "Serial Number: -05", "Serial Number: 01" + "00" * 21):
        assert text in listed
    assert listed.count("Serial Number:") == 4


@pytest.mark.parametrize(
    ("argument", "value", "code"),
    [
        pytest.param("--name", "Not A Name", "config.name", marks=pytest.mark.long),
        ("--name", "tls-dv", "import.name_taken"),
        ("--index", "missing", "import.unreadable"),
        pytest.param("--certs", "missing", "import.unreadable", marks=pytest.mark.long),
        ("--ca", "leaf", "import.not_a_ca"),
        ("--key", "other-key", "key.mismatch"),
        pytest.param("--key", "ca.pem", "key.unreadable", marks=pytest.mark.long),
        pytest.param("--crl", "foreign-crl", "import.crl_foreign", marks=pytest.mark.long),
        pytest.param("--crl", "ca.key", "import.crl_unreadable", marks=pytest.mark.long),
    ],
)
def test_bad_files_import_nothing(system: System, tmp_path: Path, argument: str, value: str, code: str) -> None:
    """Each wrong file has its own code, exit 2 or 3, and no issuer comes of it."""
    old = OpensslCa(tmp_path / "old", key=_P256, common_name=f"Refused {argument} {value}")
    leaf = old.issue("leaf")
    arguments = old.import_arguments("refused-ca")
    if argument not in arguments:
        arguments += [argument, ""]
    arguments[arguments.index(argument) + 1] = {
        "leaf": str(leaf),
        "missing": str(tmp_path / "missing"),
        "other-key": str(old.folder / "leaf.key"),
        "foreign-crl": str(_foreign_crl(tmp_path)) if value == "foreign-crl" else "",
        "ca.pem": str(old.folder / "ca.pem"),
        "ca.key": str(old.folder / "ca.key"),
    }.get(value, value)

    refused = system.quash("import openssl", *arguments)

    assert refused.status in (2, 3)
    assert refused.err.splitlines()[-1].startswith(f"error: {code}:"), refused.err
    assert not (system.state / "certs" / "refused-ca.pem").exists()
    assert not list((system.state / "keys").rglob("refused-ca*"))


def _foreign_crl(folder: Path) -> Path:
    return OpensslCa(folder / "foreign", common_name="Foreign").crl()


@pytest.mark.long
def test_a_hundred_thousand_lines_take_less_than_a_minute(system: System, tmp_path: Path) -> None:
    """100,000 lines, a tenth of them revoked, are imported within a minute and answered soon after."""
    old = OpensslCa(tmp_path / "old", common_name="Large CA")
    first = old.issue("first")
    lines = [old.index.read_text()]
    for number in range(2, 100_001):
        how = "R\t361121000000Z\t261101000000Z,superseded" if number % 10 == 0 else "V\t361121000000Z\t"
        lines.append(f"{how}\t{0x1000 + number:X}\tunknown\t/CN={number}\n")
    old.index.write_text("".join(lines))
    began = time.monotonic()

    done = system.quash("import openssl --json", *old.import_arguments("large-ca"), timeout=300)

    assert done.status == 0, done.err
    assert time.monotonic() - began < 60
    assert (done.json["new_certificates"], done.json["new_revocations"]) == (100_000, 10_000)
    assert done.json["without_known_key"] == 99_999
    _wait_for_ocsp(system, "large-ca", first, "good")
    entries = x509.load_der_x509_crl(strangers.get(f"{system.crl}/large-ca.crl")[2])
    assert len(entries) == 10_000
