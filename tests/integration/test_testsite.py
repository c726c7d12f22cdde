"""`quash testsite` and `quash self-audit` beside a whole running system."""

from __future__ import annotations

import subprocess

import pytest

from loadtest.system import QUASH, REPOSITORY, System, free_ports, openssl_ocsp

pytestmark = pytest.mark.long


def s_client(system: System, port: int, host: str) -> str:
    command = (
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", host, "-verify_hostname", host),
        *("-CAfile", str(system.state / "certs" / "root.pem"), "-showcerts"),
    )
    done = subprocess.run(command, check=False, capture_output=True, text=True, input="", timeout=60)
    return done.stdout + done.stderr


def test_the_demo_s_sites_and_its_self_audit(system: System) -> None:
    """F13, F12: valid and revoked sites are served once ordered; then a sample of all is linted."""
    (port,) = free_ports(1)
    command = [*QUASH, "testsite", *system.arguments, "--set", f"testsite.port={port}"]
    sites = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert sites.stdout is not None
        said = sites.stdout.readline().split()
        assert said[-2:] == ["valid.quash-test.example.org", "revoked.quash-test.example.org"]
        for kind, status in (("valid", "good"), ("revoked", "revoked")):
            host = f"{kind}.quash-test.example.org"
            shown = s_client(system, port, host)
            assert "Verify return code: 0 (ok)" in shown
            leaf = system.folder / f"{host}.pem"
            end = "-----END CERTIFICATE-----"
            leaf.write_text(shown[shown.index("-----BEGIN CERTIFICATE-----") :].partition(end)[0] + end + "\n")
            assert openssl_ocsp(system, "tls-dv", leaf) == status
    finally:
        sites.terminate()
        assert sites.wait(timeout=60) == 0
    done = system.quash("self-audit --quarter --json")
    audited = done.lines
    assert done.status == 0, done.err  # the demo's URLs are this machine's own: exempt here as at the gate
    assert {each["linter"] for each in audited} == {"zlint", "pkilint-ocsp"}  # the latter of what responders say (A42)
    assert {"root", "tls-dv"} <= {each["issuer"] for each in audited}
    exempt = {"w_sub_cert_aia_contains_internal_names", "w_ext_subject_key_identifier_missing_sub_cert"}
    assert {finding["code"] for each in audited for finding in each["standing"]} <= exempt
    (listed,) = system.quash("self-audit --json").lines
    sampled = {(each["issuer"], each["serial"]) for each in audited}
    assert (listed["sample"], listed["refused"]) == (len(sampled), 0)
