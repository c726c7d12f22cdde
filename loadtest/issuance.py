"""`make bench-issuance`: DV certificates from order to release on a new demo system, with linting and three local logs.

So many clients keep one order each going; certificates count once they are handed out, which is when the public
responders answer for them. CPU is told by process, since other work on the machine makes clocks say little; what each
process uses anyway is measured before the first order, since at a low rate a certificate seems to cost a share of it.
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
from loadtest.processes import Processes
from loadtest.revocations import percentile
from loadtest.system import System

_WARM_UP = 40
_IDLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds from first order to last release, of each order, and of CPU: by process, and of the clients themselves.

    `idle`: CPU seconds of each process a second, without orders.
    """

    count: int
    clients: int
    seconds: float
    orders: list[float]
    cpu: dict[str, float]
    idle: dict[str, float]
    client: float

    def own(self, process: str) -> float:
        """CPU seconds of a process for one certificate, without what it uses anyway."""
        return (self.cpu[process] - self.idle.get(process, 0.0) * self.seconds) / self.count


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
    idle = await _idle(system)
    processes, began, client = Processes(system), time.monotonic(), time.process_time()
    orders = await _order(system, requests[_WARM_UP:], clients)
    seconds, client = time.monotonic() - began, time.process_time() - client
    return Measured(count, clients, seconds, orders, dict(processes.spent()), idle, client)


async def _idle(system: System) -> dict[str, float]:
    processes, began = Processes(system), time.monotonic()
    await asyncio.sleep(_IDLE_SECONDS)
    seconds = time.monotonic() - began
    return {name: spent / seconds for name, spent in processes.spent().items()}


def report(of: Measured) -> str:
    """For a terminal and for docs/performance.md."""
    cores, cpu, idle = os.cpu_count() or 1, sum(of.cpu.values()) / of.count, sum(of.idle.values())
    own = sum(map(of.own, of.cpu))
    p50, p99 = (percentile(of.orders, share) * 1e3 for share in (0.5, 0.99))
    most = (cores - idle) / own
    lines = [
        f"  {name:12} {of.cpu[name] / of.count * 1e3:6.2f} ms, its own {of.own(name) * 1e3:6.2f} ms\n"
        for name in sorted(of.cpu, key=of.own, reverse=True)
        if of.cpu[name] / of.count > cpu / 200
    ]
    rate, load, client = of.count / of.seconds, os.getloadavg()[0], of.client / of.count * 1e3
    return f"""\
{of.count} DV certificates, {of.clients} clients; {cores} cores, Python {platform.python_version()}
{rate:.1f} certificates/s at a load of {load:.1f}; order -> release p50 {p50:.0f} ms, p99 {p99:.0f} ms
{cpu * 1e3:.1f} ms of CPU each, {own * 1e3:.1f} ms beside the {idle * 1e3:.0f} ms a second that go without orders:
{most:.1f}/s of {cores} cores that do nothing else (budget 50); the clients' own {client:.1f} ms are not counted
""" + "".join(lines)


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
