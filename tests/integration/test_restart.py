"""Stopping and starting again: the same state, other ports, nothing lost, nobody left behind."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from loadtest.system import PORTS, System, free_ports, openssl_ocsp
from tests.support import strangers
from tests.support.processes import gone


@pytest.mark.long  # a clean stop, by the fixture `system`; the same state again, by tests/faults/test_supervisor.py
def test_a_second_run_goes_on_at_other_ports(server_folder: Path, tmp_path: Path) -> None:
    """What was issued and revoked before is so afterwards; new certificates name URLs at the new ports (B15, B18)."""
    with System(server_folder) as first:
        kept, revoked = first.issue("kept"), first.issue("revoked")
        assert first.quash("revoke --wait", "--cert", str(revoked), "--reason", "superseded").status == 0
        children = first.children()
        began = time.monotonic()
        assert first.stop() == 0
        assert time.monotonic() - began < 20
        assert all(gone(pid) for pid in children.values())

    with System(server_folder) as second:
        assert second.ports != first.ports
        chain = second.state / "certs" / "chain.pem"
        assert openssl_ocsp(second, "tls-dv", kept) == "good"
        assert openssl_ocsp(second, "tls-dv", revoked) == "revoked"
        late = second.issue("late")
        assert strangers.crl_url(late).startswith(f"{second.crl}/tls-dv/")
        assert not strangers.revoked_by_crl(late, chain, tmp_path)
        assert second.quash("revoke --wait", "--cert", str(late), "--reason", "superseded").status == 0
        assert strangers.revoked_by_crl(late, chain, tmp_path)
        # The old certificate's CRLDP names the old port; the CRL at the new one names both, so it still counts for it.
        moved = strangers.crl_url(revoked).replace(first.crl, second.crl)
        assert strangers.revoked_by_crl(revoked, chain, tmp_path, url=moved)


@pytest.mark.long  # test_a_killed_supervisor_takes_all_along_and_the_next_run_goes_on is its normal form
def test_children_end_with_a_killed_supervisor(server_folder: Path) -> None:
    """kill -9 of the supervisor ends every process of its, and the next run goes on (design 7)."""
    with System(server_folder) as system:
        certificate = system.issue("before")
        children = system.children()
        assert {"postgres", "ca-signer", "presigner", "follower", "responder-1", "responder-2"} <= set(children)
        assert system.process is not None
        system.process.send_signal(signal.SIGKILL)
        system.process.wait(10)
        deadline = time.monotonic() + 20
        while not all(gone(pid) for pid in children.values()):
            assert time.monotonic() < deadline, {n: p for n, p in children.items() if not gone(p)}
            time.sleep(0.05)
    again = System(server_folder)
    with again:
        assert openssl_ocsp(again, "tls-dv", certificate) == "good"


def test_one_state_has_one_supervisor(system: System) -> None:
    """A second `quash up` on a state that is in use says so and exits with 4."""
    other = System(system.folder, *(f"{key}={port}" for key, port in zip(PORTS, free_ports(len(PORTS)), strict=True)))
    refused = other.quash("up")
    assert refused.status == 4
    assert "error: state.locked:" in refused.err
