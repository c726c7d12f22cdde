"""Answers for one asker on the running system, as openssl believes them: nonces and several certificates (A22, A27)."""

from __future__ import annotations

import os
import signal
import time

from loadtest.system import System, openssl

ORGANIZATION = "/C=TN/L=Tunis/O=Example Organization"


def ask(system: System, issuer: str, *certificates: str, nonce: bool = True) -> str:
    """What `openssl ocsp` says when it asks about all of them at once; a serial as `0x...`, or a file."""
    which = [part for each in certificates for part in (("-serial" if each.startswith("0x") else "-cert"), each)]
    return openssl(
        *("ocsp", "-nonce" if nonce else "-no_nonce", "-sha256"),
        *("-issuer", str(system.state / "certs" / f"{issuer}.pem")),
        *("-CAfile", str(system.state / "certs" / "chain.pem"), "-url", f"{system.ocsp}/{issuer}"),
        *which,
        status=None,
    )


def test_openssl_believes_what_is_signed_for_it(system: System) -> None:
    """Nonce checked, several serials in one answer, a revocation in the next one; without the presigner the cache."""
    good = system.issue("live-good", profile="tls-ov", subject=ORGANIZATION)
    other = system.issue("live-other", profile="tls-ov", subject=ORGANIZATION)
    serial = "0x" + openssl("x509", "-in", str(other), "-noout", "-serial").strip().partition("=")[2]
    said = ask(system, "tls-ov", str(good), serial)
    assert "Response verify OK" in said
    assert "WARNING" not in said
    assert [f"{each}: good" in said for each in (good, serial)] == [True, True]
    assert system.quash("revoke", "--cert", str(other), "--reason", "superseded", "--wait").status == 0
    said = ask(system, "tls-ov", str(good), serial)
    assert "Response verify OK" in said
    assert f"{good}: good" in said
    assert f"{serial}: revoked" in said
    assert "Reason: superseded" in said
    assert "unauthorized" in ask(system, "tls-ov", str(good), "0x1234567890abcdef")
    assert "WARNING: no nonce in response" in ask(system, "root", str(system.state / "certs" / "tls-dv.pem"))
    presigner = system.children()["presigner"]
    os.kill(presigner, signal.SIGSTOP)
    try:
        began = time.monotonic()
        said = ask(system, "tls-ov", str(good))
        assert time.monotonic() - began < 10
        assert "WARNING: no nonce in response" in said
        assert f"{good}: good" in said
    finally:
        os.kill(presigner, signal.SIGCONT)
