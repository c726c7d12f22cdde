"""`make load`: a new deployment with imported certificates, and Locust's users on it, headless.

Arguments are Locust's and those of loadtest/traffic/locustfile.py; exit status 0: every goal was met.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.bulk import NAME, cached, make_index
from loadtest.system import REPOSITORY, System, openssl
from loadtest.traffic.truth import Population
from quash.pki.reasons import Reason
from quash.pki.serials import parse_serial

CERTIFICATES = 3000


def populate(system: System, folder: Path, count: int = CERTIFICATES) -> Population:
    """Imports an issuer of openssl's, one in three of its certificates revoked; waits until all are answered."""
    make_index(folder, count)
    files = ("--index", str(folder / "index.txt"), "--ca", str(folder / "ca.pem"), "--key", str(folder / "ca.key"))
    done = system.quash("import openssl", *files, "--name", NAME, "--json", timeout=600)
    if done.status != 0:
        raise RuntimeError(done.err)
    while cached(system) < count:
        time.sleep(0.2)
    openssl("x509", "-in", str(folder / "ca.pem"), "-outform", "DER", "-out", str(folder / "ca.der"))
    rows = [line.split("\t") for line in (folder / "index.txt").read_text().splitlines()]
    serials = [parse_serial(row[3]) for row in rows]
    random.shuffle(serials)
    return Population(
        issuer=NAME,
        ocsp=f"{system.ocsp}/{NAME}",
        crl=f"{system.crl}/{NAME}.crl",
        admin=f"https://127.0.0.1:{system.ports['admin']}",
        operators=system.state / "operators",
        ca=(folder / "ca.der").read_bytes(),
        serials=serials,
        reasons={parse_serial(row[3]): int(Reason.superseded) for row in rows if row[0] == "R"},
    )


def locust(population: Path, *arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """Locust, headless; `how`: of subprocess.run."""
    command = [sys.executable, "-m", "locust", "-f", str(REPOSITORY / "loadtest" / "traffic" / "locustfile.py")]
    command += ["--headless", "--only-summary", "--population", str(population), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, text=True, check=False, **how)


def main(arguments: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="quash-load-") as name, System(Path(name)) as system:
        population = Path(name) / "population.json"
        populate(system, Path(name)).save(population)
        return locust(population, *arguments).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
