"""The lint gate: pkilint's own findings on broken twins, external programs, levels and exemptions."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop

from issuer import profiles
from issuer.checks import adapters
from issuer.checks.findings import Finding, refusal
from issuer.checks.lint import TOLERATED_OF_CERTLINT, LintGate
from issuer.checks.workers import Inline
from issuer.profiles import LeafContent, LeafIssuer, Validity
from quash.errors import Kind, QuashError
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config, ExternalLinter, Lint, LintExemption, load
from quash.runtime.profiles import shipped
from tests.support.issuing import CRL_BASE, DAY, OCSP_BASE, ca_certificate, private_key, spki_of

NOW = 1_800_000_000
DEMO = Path(__file__).parents[3] / "config" / "demo.toml"


def twin(*, ocsp: str = OCSP_BASE, names: tuple[str, ...] = ("www.example.org",), days: int = 199) -> bytes:
    """A DV twin that is right unless the test says otherwise."""
    certificate = ca_certificate("tls-dv", "root", NOW, 999)
    issuer = LeafIssuer("ecdsa-p256-sha256", certificate, f"{ocsp}/a", f"{CRL_BASE}/a.cer", f"{CRL_BASE}/a.crl")
    content = LeafContent(spki_of(private_key("leaf")), names, {})
    serial = bytes(range(1, 17))
    tbs = profiles.build_tbs(shipped()["dv"], issuer, content, serial, Validity(NOW, NOW + days * DAY - 1))
    return profiles.build_twin(tbs, issuer.signature_algorithm)


def program(tmp_path: Path, body: str, **more: object) -> ExternalLinter:
    """A linter of the test's own: a Python program that finds the certificate at its standard input."""
    file = tmp_path / "linter.py"
    file.write_text("import sys, time\n" + body)
    values = {"name": "own", "command": (sys.executable, str(file)), "output": "lines", **more}
    return ExternalLinter.model_validate(values | {"version_command": (sys.executable, "-c", "print('own 7')\n")})


BROKEN = {
    "too long a validity": lambda: twin(days=201),
    "an internal name": lambda: twin(names=("host.internal",)),
    "an underscore": lambda: twin(names=("a_b.example.org",)),
}


async def test_a_good_twin_passes_with_no_finding_at_all() -> None:
    """D47: pkilint, with its version, says nothing of a DV twin."""
    (report,) = await LintGate(Lint(), Inline())(twin(), "dv-certificate")
    assert (report.linter, report.findings, report.refusing) == ("pkilint", (), ())
    assert report.version[0].isdigit()
    assert refusal("dv-certificate", [report]) is None


@pytest.mark.parametrize("case", BROKEN)
async def test_pkilint_refuses_what_the_rules_forbid(case: str) -> None:
    """D2, D11: each broken twin is refused with pkilint's own words in the error."""
    reports = await LintGate(Lint(level="error"), Inline())(BROKEN[case](), "dv-certificate")
    error = refusal("dv-certificate", reports)
    assert error is not None
    assert error.code == "lint.refused"
    assert reports[0].refusing[0].code in error.message


async def test_the_demo_s_exemption_covers_loopback_urls_and_nothing_else() -> None:
    """The one exempt finding is still reported; the same finding about another name refuses."""
    gate = LintGate(load(DEMO).lint, Inline())
    (report,) = await gate(twin(ocsp="http://127.0.0.1:8080"), "dv-certificate")
    assert [each.code for each in report.findings] == ["cabf.internal_domain_name"]
    assert report.refusing == ()
    (report,) = await gate(twin(names=("host.internal",)), "dv-certificate")
    assert report.refusing != ()


def test_only_a_demonstration_has_exemptions() -> None:
    """G25: a configuration that validates identifiers and exempts findings is refused at load."""
    lint = {"exempt": [{"code": "a", "message": "b"}]}
    Config.model_validate({"lint": lint, "issuance": {"require_validation": False}})
    with pytest.raises(ValueError, match=r"lint\.exempt"):
        Config.model_validate({"lint": lint})
    with pytest.raises(ValueError, match="level"):
        Config.model_validate({"lint": {"level": "fatal"}})


async def test_an_external_linter_reads_the_twin_and_its_lines_count(tmp_path: Path) -> None:
    """Letters of lines (G6, G7): DER at the standard input; E refuses, N and I do not, all are kept."""
    body = "n = len(sys.stdin.buffer.read())\nprint(f'E: {n} octets')\nprint('I: fine')\nprint('N: so so')"
    gate = LintGate(Lint(external=(program(tmp_path, body),)), Inline())
    der = twin()
    _, report = await gate(der, "dv-certificate")
    assert (report.linter, report.version) == ("own", "own 7")
    assert [each.severity for each in report.findings] == ["error", "info", "notice"]
    assert [each.code for each in report.refusing] == [f"{len(der)} octets"]


LOOPS: dict[str, Callable[..., Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
"""Tests and explicit commands run on the first, services on the second."""


async def found_on(loop: str, linter: ExternalLinter, der: bytes) -> list[Finding]:
    """What it says when a loop of this kind runs it."""
    found: list[Finding] = await asyncio.to_thread(LOOPS[loop], adapters.findings(linter, der))
    return found


# What their sources do with arguments and files: every argument is one, of cablint PEM or DER; of x509lint the only
# one, measured before it is read, PEM. Neither has an option, so `-` and `--version` are files that are not there.
CABLINT = r"""
import os, ssl
for file in sys.argv[1:]:
    raw = open(file, "rb").read()
    der = ssl.PEM_cert_to_DER_cert(raw.decode()) if b"-BEGIN CERTIFICATE-" in raw else raw
    for line in ("I: TLS Server certificate identified", f"E: {len(der)} octets", "W: odd"):
        print(line, os.path.basename(file), sep="\t")
"""
X509LINT = r"""
import ssl
if len(sys.argv) != 2:
    sys.exit(print("Usage: x509lint file") or 1)
with open(sys.argv[1], "rb") as file:
    size = file.seek(0, 2)
    file.seek(0)
    raw = file.read(size)
if b"-BEGIN CERTIFICATE-" not in raw:
    sys.exit(print("E: Unable to parse certificate") or 1)
print("I: Checking as leaf certificate", f"E: {len(ssl.PEM_cert_to_DER_cert(raw.decode()))} octets", "W: odd", sep="\n")
"""
FILE_READERS = {
    "cablint": (CABLINT, "der", "TLS Server certificate identified"),
    "cablint, PEM": (CABLINT, "pem", "TLS Server certificate identified"),
    "x509lint": (X509LINT, "pem", "Checking as leaf certificate"),
}


def reader(tmp_path: Path, body: str, argument: str, encoding: str) -> ExternalLinter:
    made = program(tmp_path, body, encoding=encoding)
    return made.model_copy(update={"command": (*made.command, argument)})


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("case", FILE_READERS)
async def test_a_linter_that_wants_a_file_gets_its_input_as_one(tmp_path: Path, case: str, loop: str) -> None:
    """G6, G7: cablint and x509lint open `/dev/stdin`, seek in it and read; the file's name is no part of a finding."""
    body, encoding, identified = FILE_READERS[case]
    der = twin()
    found = await found_on(loop, reader(tmp_path, body, "/dev/stdin", encoding), der)
    assert [(each.severity, each.code) for each in found] == [
        ("info", identified),
        ("error", f"{len(der)} octets"),
        ("warning", "odd"),
    ]


async def test_what_certlint_of_2019_cannot_know_stands(tmp_path: Path) -> None:
    """D4, D49: an OCSP URL that may be missing, and organizationIdentifier; nothing else that it says."""
    said = (*TOLERATED_OF_CERTLINT, "Name has unknown attribute 2.5.4.98")
    body = "".join(f"print('E: {each}', 'stdin', sep='\\t')\n" for each in said)
    _, report = await LintGate(Lint(external=(program(tmp_path, body),)), Inline())(twin(), "dv-certificate")
    assert [each.code for each in report.standing] == list(TOLERATED_OF_CERTLINT)
    assert [each.code for each in report.refusing] == ["Name has unknown attribute 2.5.4.98"]


@pytest.mark.parametrize("body", [CABLINT, X509LINT])
async def test_a_linter_that_wants_a_file_has_none_called_minus(tmp_path: Path, body: str) -> None:
    """Their sources know no standard input: nothing passes."""
    with pytest.raises(QuashError, match=r"lint\.unavailable"):
        await adapters.findings(reader(tmp_path, body, "-", "pem"), twin())


async def test_an_encoding_that_a_linter_cannot_read_lets_nothing_pass(tmp_path: Path) -> None:
    """x509lint reads PEM alone, and says so of all else."""
    (found,) = await adapters.findings(reader(tmp_path, X509LINT, "/dev/stdin", "der"), twin())
    assert (found.severity, found.code) == ("error", "Unable to parse certificate")


def test_zlint_s_json_is_read() -> None:
    """D48: results that say something become findings; pass, NA and NE do not; an unknown result is an error."""
    said = {
        "e_bad": {"result": "error", "details": "because"},
        "w_odd": {"result": "warn"},
        "e_fine": {"result": "pass"},
        "e_other": {"result": "NA"},
        "e_later": {"result": "NE"},
    }
    found = adapters.read_zlint(orjson.dumps(said))
    assert [(each.severity, each.code, each.message) for each in found] == [
        ("error", "e_bad", "because"),
        ("warning", "w_odd", ""),
    ]
    with pytest.raises(KeyError):
        adapters.read_zlint(b'{"e_bad": {"result": "perhaps"}}')
    with pytest.raises(ValueError, match="zlint"):
        adapters.read_zlint(b"{}")


def test_pkimetal_s_json_is_read() -> None:
    """D48: what its linters say, by their severity; what it says of itself refuses nothing, a linter's crash does."""
    said = [
        {"Linter": "pkimetal", "Finding": "Profile: tbr_leaf_tlsserver_dv", "Severity": "meta"},
        {"Linter": "zlint", "Finding": "because", "Field": "extensions", "Code": "e_bad", "Severity": "error"},
        {"Linter": "x509lint", "Finding": "odd", "Severity": "warning"},
        {"Linter": "certlint", "Finding": "it broke", "Severity": "bug"},
    ]
    found = adapters.read_pkimetal(orjson.dumps(said))
    assert [(each.severity, each.code, each.message) for each in found] == [
        ("info", "Profile: tbr_leaf_tlsserver_dv", "pkimetal: Profile: tbr_leaf_tlsserver_dv"),
        ("error", "e_bad", "zlint: because extensions"),
        ("warning", "odd", "x509lint: odd"),
        ("fatal", "it broke", "certlint: it broke"),
    ]
    for broken in (b"{}", b'[{"Linter": "zlint", "Finding": "x", "Severity": "grave"}]'):
        with pytest.raises((KeyError, TypeError)):
            adapters.read_pkimetal(broken)


FAULTS = {
    "ends at once": ("", {"command": ("false",)}, "lint.unavailable"),
    "crashes without a word": ("sys.exit(70)", {}, "lint.unavailable"),
    "says an HTTP error": ("print('502 Bad Gateway')", {"output": "pkimetal"}, "lint.unavailable"),
    "says a list of something else": ("print('[7]')", {"output": "pkimetal"}, "lint.unavailable"),
    "hangs": ("time.sleep(60)", {"timeout": 0.5}, "lint.timeout"),
    "prints nonsense": ("print('Segmentation fault')", {}, "lint.unavailable"),
    "prints no JSON": ("print('')", {"output": "zlint"}, "lint.unavailable"),
    "is missing": ("", {"command": ("/nowhere/zlint",)}, "lint.unavailable"),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_linter_that_does_not_speak_lets_nothing_pass(tmp_path: Path, fault: str, loop: str) -> None:
    """A configured linter that hangs, crashes or is gone is an error, never an empty report."""
    body, more, code = FAULTS[fault]
    with pytest.raises(QuashError) as error:
        await found_on(loop, program(tmp_path, body, **more), twin())
    assert error.value.code == code


ENDLESS = {
    "its child sleeps with the pipe": (("sh", "-c", "sleep 30; true"), "lint.timeout"),
    "it ends and its child keeps the pipe": (("sh", "-c", "sleep 30 & echo 'I: fine'"), "lint.timeout"),
    "a child in a session of its own keeps the pipe": (("sh", "-c", "setsid sleep 30 & sleep 30"), "lint.timeout"),
    "it prints for ever": (("cat", "/dev/zero"), "lint.unavailable"),
    "it prints too much and sleeps": (("sh", "-c", "head -c 3000000 /dev/zero; sleep 30"), "lint.unavailable"),
    "it prints too much and ends": (("sh", "-c", "yes 'I: fine' | head -c 3000000"), "lint.unavailable"),
}


@pytest.mark.parametrize("case", ENDLESS)
async def test_the_time_out_holds_whatever_a_linter_leaves_behind(tmp_path: Path, case: str) -> None:
    """An order waits, its lock in hand, no longer than the limit says; output past the bound is not even read."""
    command, code = ENDLESS[case]
    began = time.monotonic()
    with pytest.raises(QuashError) as error:
        await found_on("uvloop", program(tmp_path, "", command=command, timeout=1), b"")
    assert error.value.code == code
    assert time.monotonic() - began < 5


async def test_what_a_linter_started_ends_with_it(tmp_path: Path) -> None:
    """At the limit the whole group is killed: nothing that it started lives to do anything."""
    mark = tmp_path / "alive"
    command = ("sh", "-c", f"(sleep 1.5; touch {mark}) & sleep 30")
    with pytest.raises(QuashError, match="took longer"):
        await adapters.findings(program(tmp_path, "", command=command, timeout=0.3), b"")
    await asyncio.sleep(2)
    assert not mark.exists()


async def test_what_a_linter_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """Also when it said all that it had to say in time: nothing of others goes on beside keys."""
    mark = tmp_path / "alive"
    command = ("sh", "-c", f"echo 'I: fine'; (sleep 1; touch {mark}) >/dev/null 2>&1 &")
    (found,) = await adapters.findings(program(tmp_path, "", command=command), b"")
    assert found.severity == "info"
    await asyncio.sleep(1.5)
    assert not mark.exists()


async def test_a_linter_that_does_not_read_its_input_may_speak(tmp_path: Path) -> None:
    """What it said counts, also where the certificate is larger than a pipe."""
    (found,) = await adapters.findings(program(tmp_path, "print('E: no')"), bytes(1_000_000))
    assert found.severity == "error"


SAYS_ALL = """
import json, os, pathlib, resource
sys.stdin.buffer.read()
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
said = {
    "environment": open("/proc/self/environ").read().split("\\0")[:-1],
    "folder": os.listdir(),
    "files": sorted(int(each) for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")),
    "session": os.getsid(0) == os.getpid(),
    "limits": [resource.getrlimit(getattr(resource, "RLIMIT_" + each)) for each in "CORE CPU AS FSIZE NOFILE".split()],
    "no_new_privs": status["NoNewPrivs"],
}
print("I: " + json.dumps(said))
"""


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_linter_gets_nothing_of_who_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    """Whoever runs it may have CA keys: no variable, no open file, no folder of that process is the program's."""
    (secret := tmp_path / "ca.passphrase").write_text("secret")
    monkeypatch.setenv("CA_PIN", "1234")
    with secret.open() as file:
        os.set_inheritable(file.fileno(), True)
        (found,) = await found_on(loop, program(tmp_path, SAYS_ALL, timeout=5, memory=1000), b"")
    said = orjson.loads(found.code)
    assert said["environment"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
    ]
    assert (said["folder"], said["files"], said["session"]) == ([], [0, 1, 2], True)
    assert said["limits"] == [[each, each] for each in (0, 6, 1000 << 20, 1 << 20, 64)]
    assert said["no_new_privs"] == "1"


GREEDY = {
    "memory": ("bytearray(900 << 20)\nprint('I: fine')", {"memory": 500}),
    "a file": ("open('here', 'wb').write(bytes(2 << 20))\nprint('I: fine')", {}),
    "files": ("kept = [open('/dev/null') for _ in range(70)]\nprint('I: fine')", {}),
    "time of the processor": ("import os\nif not os.fork():\n    while True: pass", {"timeout": 1}),
}


@pytest.mark.parametrize("case", GREEDY)
async def test_a_linter_that_takes_too_much_is_none(tmp_path: Path, case: str) -> None:
    """Memory, files and time are bounded, and what it dies of lets nothing pass."""
    body, more = GREEDY[case]
    with pytest.raises(QuashError, match=r"lint\.(unavailable|timeout)"):
        await adapters.findings(program(tmp_path, body, **more), b"")


VERSIONS = {
    "fails": (sys.executable, "-c", "print('own 7'); raise SystemExit(1)"),
    "prints nothing": ("true",),
    "is missing": ("/nowhere/version",),
}


@pytest.mark.parametrize("case", VERSIONS)
async def test_a_linter_whose_version_nobody_knows_lets_nothing_pass(tmp_path: Path, case: str) -> None:
    """D48, G48: what a faulty release let pass must be found again; the gate says so before the first order."""
    linter = program(tmp_path, "print('I: fine')").model_copy(update={"version_command": VERSIONS[case]})
    gate = LintGate(Lint(external=(linter,)), Inline())
    for asked in (gate.meet(), gate.external(linter, twin())):
        with pytest.raises(QuashError) as error:
            await asked
        assert (error.value.code, error.value.kind) == ("lint.unavailable", Kind.UNAVAILABLE)


async def test_an_upgrade_beside_a_running_service_is_on_record(tmp_path: Path) -> None:
    """D48, G48: each result has the version that gave it, also of a package that was upgraded meanwhile."""
    linter = program(tmp_path, "", command=(str(tmp_path / "own"),))
    linter = linter.model_copy(update={"version_command": (*linter.command, "-version")})
    gate, said = LintGate(Lint(external=(linter,)), Inline()), []
    for version in ("own 7", "own 7", "own 8"):
        new = tmp_path / "new"
        new.write_text(f"#!/bin/sh\necho 'I: {version}'\n")
        new.chmod(0o755)
        new.replace(linter.command[0])
        report = await gate.external(linter, b"")
        said.append((report.version, report.findings[0].code))
    assert said == [(f"I: {each}", each) for each in ("own 7", "own 7", "own 8")]


async def test_an_upgrade_behind_a_wrapper_is_on_record_a_minute_later(tmp_path: Path) -> None:
    """D48, G48: the program that is started stays as it was, as `curl` does when pkimetal is upgraded."""
    own, clock = tmp_path / "own", FakeClock()
    linter = program(tmp_path, "", command=("sh", "-c", f"cat {own}"))
    linter = linter.model_copy(update={"version_command": linter.command})
    gate, said = LintGate(Lint(external=(linter,)), Inline(), clock), []
    for version, passed in (("own 7", 0), ("own 8", 59), ("own 8", 1)):
        own.write_text(f"I: {version}")
        await clock.advance(passed)
        said.append((await gate.external(linter, b"")).version)
    assert said == ["I: own 7", "I: own 7", "I: own 8"]


async def test_an_exemption_needs_code_and_whole_message() -> None:
    """A message that only contains the exempt one is not exempt."""
    for message, passes in (('Internal domain name: "host.internal"', True), ("Internal domain name", False)):
        exempt = (LintExemption(code="cabf.internal_domain_name", message=message),)
        (report,) = await LintGate(Lint(exempt=exempt), Inline())(twin(names=("host.internal",)), "dv-certificate")
        assert (report.refusing == ()) is passes
