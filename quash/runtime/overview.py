"""The supervisor's own HTTP endpoint: `/livez`, `/readyz` over all children, `/metrics` by process, `/metrics/sum`."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from quash.runtime.server_name import hide_versions

_NUMBER = re.compile(r"-\d+$")
_ASK_WITHIN = aiohttp.ClientTimeout(total=2)


class Overview:
    """Asks each process's health socket; `sockets` are those of the processes that must be ready, by name."""

    def __init__(self, sockets: Mapping[str, Path]) -> None:
        self._sockets = sockets

    async def reports(self) -> dict[str, dict[str, Any]]:
        """Name -> health report; a child that does not answer is not ready."""
        sockets = dict(self._sockets)
        answers = await asyncio.gather(*(ask(path, "/readyz") for path in sockets.values()))
        silent = {"ready": False, "checks": {"process": {"ok": False, "detail": "does not answer"}}}
        return {name: orjson.loads(body) if body else silent for name, body in zip(sockets, answers, strict=True)}

    async def ready(self) -> bool:
        return all(report["ready"] for report in (await self.reports()).values())

    async def metrics(self) -> bytes:
        """The children's metrics in one text, each sample labelled with its process."""
        sockets = dict(self._sockets)
        bodies = await asyncio.gather(*(ask(path, "/metrics") for path in sockets.values()))
        up, ready = await self._states(sockets, bodies)
        families: dict[str, Metric] = {up.name: up, ready.name: ready}
        for name, body in zip(sockets, bodies, strict=True):
            for family in text_string_to_metric_families(body.decode()):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                merged.samples += [
                    sample._replace(labels={**sample.labels, "process": name}) for sample in family.samples
                ]
        return generate_latest(_Families(families.values()))

    async def _states(self, sockets: Mapping[str, Path], bodies: Sequence[bytes]) -> tuple[Metric, Metric]:
        """What a process that is dead or deaf cannot tell of itself."""
        up = GaugeMetricFamily("quash_process_up", "1: the process answers; 0: it is dead or hangs", labels=["process"])
        ready = GaugeMetricFamily("quash_process_ready", "1: the process says that it is ready", labels=["process"])
        reports = await self.reports()
        for name, body in zip(sockets, bodies, strict=True):
            up.add_metric([name], bool(body))
            ready.add_metric([name], name in reports and reports[name]["ready"])
        return up, ready

    async def summed(self) -> bytes:
        """Counters and histograms, summed over the processes of a kind: `responder-1` and its like are `responder`."""
        sockets = dict(self._sockets)
        bodies = await asyncio.gather(*(ask(path, "/metrics") for path in sockets.values()))
        families: dict[str, Metric] = {}
        sums: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        for process, body in zip(sockets, bodies, strict=True):
            kind = _NUMBER.sub("", process)
            for family in text_string_to_metric_families(body.decode()):
                if family.type in ("counter", "histogram"):
                    families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    for sample in family.samples:
                        labels = tuple(sorted({**sample.labels, "process": kind}.items()))
                        key = (family.name, sample.name, labels)
                        sums[key] = sums.get(key, 0.0) + sample.value
        for (name, sample_name, labels), value in sums.items():
            if not sample_name.endswith("_created"):
                families[name].add_sample(sample_name, dict(labels), value)
        return generate_latest(_Families(families.values()))

    @contextlib.asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[None]:
        """Serves the endpoint while the context is open."""
        hide_versions()
        runner = web.ServerRunner(web.Server(self._handle))
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/livez":
            return web.Response(text="ok")
        if request.path == "/metrics":
            return web.Response(body=await self.metrics(), content_type="text/plain")
        if request.path == "/metrics/sum":
            return web.Response(body=await self.summed(), content_type="text/plain")
        if request.path == "/readyz":
            reports = await self.reports()
            status = 200 if all(report["ready"] for report in reports.values()) else 503
            return web.Response(body=orjson.dumps(reports), content_type="application/json", status=status)
        return web.Response(status=404)


async def ask(path: Path, target: str) -> bytes:
    """What a child's health socket answers to a path; nothing when it does not answer."""
    try:
        connector = aiohttp.UnixConnector(str(path))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=_ASK_WITHIN) as session,
            session.get(f"http://child{target}") as response,
        ):
            return await response.read()
    except (OSError, aiohttp.ClientError, TimeoutError):
        return b""


class _Families:
    """What prometheus_client's writer wants: an object whose `collect` gives metric families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
