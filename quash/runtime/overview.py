"""The supervisor's own HTTP endpoint: `/livez`, `/readyz` over all children, `/metrics` labelled by process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

_ASK_WITHIN = aiohttp.ClientTimeout(total=2)


class Overview:
    """Asks each child's health socket; `names` are the children that must be ready."""

    def __init__(self, sockets: dict[str, Path]) -> None:
        self._sockets = sockets

    async def reports(self) -> dict[str, dict[str, Any]]:
        """Name -> health report; a child that does not answer is not ready."""
        answers = await asyncio.gather(*(self._ask(path, "/readyz") for path in self._sockets.values()))
        silent = {"ready": False, "checks": {"process": {"ok": False, "detail": "does not answer"}}}
        return {name: orjson.loads(body) if body else silent for name, body in zip(self._sockets, answers, strict=True)}

    async def ready(self) -> bool:
        return all(report["ready"] for report in (await self.reports()).values())

    async def metrics(self) -> bytes:
        """The children's metrics in one text, each sample labelled with its process."""
        bodies = await asyncio.gather(*(self._ask(path, "/metrics") for path in self._sockets.values()))
        families: dict[str, Metric] = {}
        for name, body in zip(self._sockets, bodies, strict=True):
            for family in text_string_to_metric_families(body.decode()):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                merged.samples += [
                    sample._replace(labels={**sample.labels, "process": name}) for sample in family.samples
                ]
        return generate_latest(_Families(families.values()))

    async def _ask(self, path: Path, target: str) -> bytes:
        try:
            connector = aiohttp.UnixConnector(str(path))
            async with (
                aiohttp.ClientSession(connector=connector, timeout=_ASK_WITHIN) as session,
                session.get(f"http://child{target}") as response,
            ):
                return await response.read()
        except (OSError, aiohttp.ClientError, TimeoutError):
            return b""

    @contextlib.asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[None]:
        """Serves the endpoint while the context is open."""
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
        if request.path == "/readyz":
            reports = await self.reports()
            status = 200 if all(report["ready"] for report in reports.values()) else 503
            return web.Response(body=orjson.dumps(reports), content_type="application/json", status=status)
        return web.Response(status=404)


class _Families:
    """What prometheus_client's writer wants: an object whose `collect` gives metric families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
