"""The process `metrics`: what `quash up` tells of its children, for processes that are services of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

from quash.runtime.overview import Overview
from quash.runtime.process import Process

_SUFFIX = ".health"


class HealthSockets(Mapping[str, Path]):
    """The health sockets that lie in a folder now, by the names of their processes.

    One that crashed leaves its socket behind, and is not ready; one that was stopped, or never was here, counts not.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> Path:
        path = self._folder / f"{name}{_SUFFIX}"
        if not path.is_socket():
            raise KeyError(name)
        return path

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}")))

    def __len__(self) -> int:
        return sum(1 for _ in self)


async def main(process: Process) -> None:
    """Serves `/metrics`, `/livez` and `/readyz` of this machine's processes until it is cancelled."""
    metrics = process.config.metrics
    async with Overview(HealthSockets(process.state.run)).serve(metrics.host, metrics.port):
        process.log.info("metrics.listening", host=metrics.host, port=metrics.port)
        process.health.set("listening", True)
        await asyncio.Event().wait()
