"""`make bench-issuance`: DV certificates from order to release on a new demo system, with linting and three local logs.

So many clients keep one order each going; certificates count once they are handed out, which is when the public
responders answer for them. CPU is told by process, since other work on the machine makes clocks say little.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from loadtest.api import client, new_csr, post
from loadtest.mass import Processes
from loadtest.revocations import percentile
from loadtest.system import System

_WARM_UP = 40


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds from first order to last release, of each order, and of CPU by process."""

    count: int
    clients: int
    seconds: float
    orders: list[float]
    cpu: dict[str, float]


async def _order(system: System, requests: list[str], clients: int) -> list[float]:
    """Seconds of each order."""
    url, times = f"https://127.0.0.1:{system.ports['issuer']}/v1/orders", []
    waiting = iter(requests)

    async def keep_ordering() -> None:
        async with client(system) as session:
            for request in waiting:
                began = time.monotonic()
                order = await post(session, url, {"profile": "tls-dv", "csr": request})
                if order["state"] != "issued":
                    raise RuntimeError(f"order {order['id']} is {order['state']}")
                times.append(time.monotonic() - began)

    await asyncio.gather(*(keep_ordering() for _ in range(clients)))
    return times


async def measure(system: System, count: int, clients: int) -> Measured:
    """Keys and requests are made before the clock starts; so are the first orders, which warm workers up."""
    requests = [new_csr(f"bench-{number}.example.org") for number in range(count + _WARM_UP)]
    await _order(system, requests[:_WARM_UP], clients)
    processes, began = Processes(system), time.monotonic()
    orders = await _order(system, requests[_WARM_UP:], clients)
    return Measured(count, clients, time.monotonic() - began, orders, dict(processes.spent()))


def report(of: Measured) -> str:
    """For a terminal and for docs/performance.md."""
    cores, cpu = os.cpu_count() or 1, sum(of.cpu.values())
    by_process = sorted(of.cpu.items(), key=lambda each: -each[1])
    p50, p99 = (percentile(of.orders, share) * 1e3 for share in (0.5, 0.99))
    whole, load = cores * of.count / cpu, os.getloadavg()[0]
    return f"""\
{of.count} DV certificates, {of.clients} clients; {cores} cores, Python {platform.python_version()}
{of.count / of.seconds:.1f} certificates/s at a load of {load:.1f}; order -> release p50 {p50:.0f} ms, p99 {p99:.0f} ms
{cpu / of.count * 1e3:.1f} ms of CPU each: {whole:.1f}/s of {cores} cores that do nothing else (budget 50)
""" + "".join(
        f"  {name:20} {seconds / of.count * 1e3:6.2f} ms\n" for name, seconds in by_process if seconds > cpu / 200
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--set", action="append", default=[], help="key=value of the configuration")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quash-bench-") as folder, System(Path(folder), *asked.set) as system:
        print(report(asyncio.run(measure(system, asked.count, asked.clients))))


if __name__ == "__main__":
    main()
