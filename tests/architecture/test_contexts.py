"""Security contexts: what each process has loaded, and what it has not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from quash.cli.serve import PROCESSES

KEYS = {"quash.keys", "pkcs11"}
DATABASE = {"quash.store.database", "asyncpg"}
LINTERS = {"pkilint"}
SERVICES = {"responder", "crlgen", "issuer"}

# process -> modules that must not be in it
ABSENT = {
    "responder": KEYS | DATABASE | LINTERS | {"crlgen", "issuer", "responder.presign", "responder.follow"},
    "follower": KEYS | LINTERS | {"crlgen", "issuer", "responder.presign", "responder.serve"},
    "presigner": {"crlgen", "issuer", "responder.serve", "responder.follow"},
    "ca-signer": {"crlgen", "responder", "issuer.issuance", "issuer.revocation"},
    "ct-log": KEYS | DATABASE | LINTERS | {"crlgen", "responder", "issuer.signer.service", "issuer.issuance"},
    "issuer": KEYS | {"crlgen", "responder", "issuer.signer.service"},
    "admin": KEYS | {"crlgen", "responder", "issuer.signer"},
    "intake": KEYS | LINTERS | {"crlgen", "responder", "issuer.signer", "issuer.issuance", "issuer.revocation.revoke"},
    "jobs": KEYS | {"crlgen", "responder", "issuer.signer"},
    "ledger": {"crlgen", "responder", "issuer.signer", "issuer.issuance", "issuer.revocation"},
    "crl-builder": KEYS | {"issuer", "responder"},
    "crl-origin": KEYS | DATABASE | {"issuer", "responder", "crlgen.build"},
    "metrics": KEYS | DATABASE | LINTERS | SERVICES,
}
# What proves that the listing works: a module that the process does have.
PRESENT = {
    "responder": "lmdb",
    "follower": "asyncpg",
    "presigner": "quash.keys",
    "ca-signer": "quash.keys",
    "ct-log": "aiohttp",
    "issuer": "asyncpg",
    "admin": "asyncpg",
    "intake": "asyncpg",
    "jobs": "asyncpg",
    "ledger": "quash.keys",
    "crl-builder": "asyncpg",
    "crl-origin": "aiohttp",
    "metrics": "aiohttp",
}


def test_every_process_has_its_rows() -> None:
    """A process that is added without saying what it must not load fails here."""
    assert set(ABSENT) == set(PRESENT) == set(PROCESSES)


@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_a_process_loads_only_what_its_context_allows(process: str) -> None:
    """`sys.modules` of the verb that runs a process, with its module imported, holds nothing of the other contexts."""
    program = f"import quash.cli.serve, {PROCESSES[process]}, sys; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert PRESENT[process] in loaded
    assert not {name for name in ABSENT[process] if name in loaded}
