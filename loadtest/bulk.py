"""`make bench-bulk`: a large import on a running system, from the command until every answer is in the node's cache,
and single revocations beside it: what they wait on an idle system, and while the import is signed and fed.

The imported rows are of the bulk lane, as a refresh and a mass revocation by bucket are: the same slices, signed by the
same processes. Times of revocations are the admin API's own, from its commit until a stranger sees it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from loadtest.api import client, get, new_csr, post
from loadtest.revocations import percentile
from loadtest.system import System, openssl

NAME = "old"
_PAUSE = 0.1


def make_index(folder: Path, count: int) -> None:
    """A CA of openssl's with so many certificates, one in three revoked."""
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", str(folder / "ca.key"), "-subj", "/C=TN/O=Old/CN=Old CA", "-days", "3650"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-out", str(folder / "ca.pem")),
    )
    until, since = time.strftime("%y%m%d%H%M%SZ", time.gmtime(time.time() + 90 * 86_400)), "260101000000Z,superseded"
    with (folder / "index.txt").open("w", encoding="ascii") as index:
        for number in range(count):
            serial = f"{0x10_0000_0000 + number:012X}"
            state = "R" if number % 3 == 0 else "V"
            index.write(f"{state}\t{until}\t{since if state == 'R' else ''}\t{serial}\tunknown\t/CN=x\n")


async def issue(session: Any, system: System, count: int) -> list[str]:
    """Serials of new certificates."""
    url = f"https://127.0.0.1:{system.ports['issuer']}/v1/orders"
    orders = [{"profile": "tls-dv", "csr": new_csr(f"bulk-{number}.example.org")} for number in range(count)]
    return [(await post(session, url, order))["serial"] for order in orders]


async def revoke(session: Any, system: System, serial: str) -> float:
    """Milliseconds until it is visible on OCSP."""
    url = f"https://127.0.0.1:{system.ports['admin']}/v1/revocations"
    body = {"issuer": "tls-dv", "serial": serial, "reason": "superseded", "wait": True}
    act = (await post(session, url, body))["act_id"]
    while True:
        found = await get(session, f"{url}/{act}")
        if found["ocsp_visible_ms"] is not None:
            return float(found["ocsp_visible_ms"])
        await asyncio.sleep(0.02)


def cached(system: System) -> int:
    """Records of the imported issuer in the node's cache."""
    said = system.quash("cache stats", "--json")
    issuers = said.json["issuers"] if said.status == 0 else []
    return sum(each["good"] + each["revoked"] for each in issuers if each["issuer"] == NAME)


async def measure(system: System, folder: Path, count: int, single: int) -> None:
    """Runs and prints."""
    async with client(system) as session:
        serials = await issue(session, system, 2 * single)
        idle = [await revoke(session, system, serial) for serial in serials[:single]]
        importing = asyncio.create_task(asyncio.to_thread(_import, system, folder, count))
        busy: list[float] = []
        for serial in serials[single:]:
            if importing.done():
                break
            busy.append(await revoke(session, system, serial))
            await asyncio.sleep(_PAUSE)
        imported, answered = await importing
    print(f"{count} certificates, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print(f"import command {imported:.1f} s, then until the last answer was in the cache {answered:.1f} s")
    for name, values in (("idle", idle), ("beside the import", busy)):
        if values:
            p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
            print(f"revoke -> visible, {name:17} {len(values):4}: p50 {p50:7.1f} ms   p99 {p99:7.1f} ms")


def _import(system: System, folder: Path, count: int) -> tuple[float, float]:
    """Seconds of the command, and from its end until everything is answered."""
    began = time.monotonic()
    done = system.quash(
        "import openssl",
        *("--index", str(folder / "index.txt"), "--ca", str(folder / "ca.pem"), "--key", str(folder / "ca.key")),
        *("--name", NAME, "--json"),
        timeout=3600,
    )
    if done.status != 0:
        raise RuntimeError(done.err)
    ended = time.monotonic()
    while cached(system) < count:
        time.sleep(_PAUSE)
    return ended - began, time.monotonic() - ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="certificates to import")
    parser.add_argument("--single", type=int, default=100, help="revocations on the idle system, and at most beside it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quash-bench-") as name, System(Path(name)) as system:
        folder = Path(name)
        make_index(folder, options.count)
        asyncio.run(measure(system, folder, options.count, options.single))


if __name__ == "__main__":
    main()
