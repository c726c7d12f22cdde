"""`make bench-visible`: from the commit of a revocation until strangers see it, on OCSP (both hashes) and in the CRL.

Certificates are issued first, then revoked one after the other on an otherwise idle system. The times are the admin
API's own (`--wait`): from its commit until its probe, asking the public responder and the CRL origin, sees the last.
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
from loadtest.system import System

_AT_ONCE = 8
_SEEN_WITHIN = 60.0
_FIELDS = {"ocsp_visible_ms": "revoke -> visible on OCSP", "crl_published_ms": "revoke -> published CRL"}


async def measure(system: System, count: int) -> dict[str, list[float]]:
    """Milliseconds of each revocation, by field."""
    issuer, admin = (f"https://127.0.0.1:{system.ports[name]}/v1" for name in ("issuer", "admin"))
    times: dict[str, list[float]] = {field: [] for field in _FIELDS}
    async with client(system) as session:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def issue(number: int) -> dict[str, Any]:
            async with limit:
                order = {"profile": "tls-dv", "csr": new_csr(f"bench-{number}.example.org")}
                return await post(session, f"{issuer}/orders", order)

        issued = await asyncio.gather(*map(issue, range(count)))
        for certificate in issued:
            body = {"issuer": "tls-dv", "serial": certificate["serial"], "reason": "superseded", "wait": True}
            revoked = await post(session, f"{admin}/revocations", body)
            seen = await _seen(session, f"{admin}/revocations/{revoked['act_id']}")
            for field, values in times.items():
                values.append(seen[field])
    return times


async def _seen(session: Any, url: str) -> dict[str, Any]:
    deadline = time.monotonic() + _SEEN_WITHIN
    while time.monotonic() < deadline:
        answer = await get(session, url)
        if all(answer[field] is not None for field in _FIELDS):
            return answer
        await asyncio.sleep(0.02)
    raise RuntimeError(f"{url}: not visible after {_SEEN_WITHIN} s")


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of all reaches."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory(prefix="quash-bench-") as folder, System(Path(folder)) as system:
        times = asyncio.run(measure(system, count))
    print(f"{count} revocations, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    for field, label in _FIELDS.items():
        values = times[field]
        print(f"{label:28} p50 {percentile(values, 0.5):8.1f} ms   p99 {percentile(values, 0.99):8.1f} ms")


if __name__ == "__main__":
    main()
