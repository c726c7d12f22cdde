"""The CRL origin: CRLs and CA certificates over plain HTTP, from the publish folder. It has no key and no database."""

from __future__ import annotations

import asyncio
import io
from http import HTTPStatus
from pathlib import Path
from typing import cast

from aiohttp import web
from prometheus_client import Counter

from crlgen.origin import answer, sending
from crlgen.origin.files import Files
from quash.runtime.clock import Clock
from quash.runtime.process import Process

_REQUESTS = Counter("quash_crl_origin_requests_total", "Answers of the CRL origin", ["status"])
_HEALTH_EVERY = 5.0


class Origin:
    """Serves one folder. The kernel copies bodies from the open file, so that memory does not grow with CRLs."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._files = Files(folder)
        self._clock = clock

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Takes the path from the raw request line: decoding or normalising could only turn it into another name."""
        if request.method not in ("GET", "HEAD"):
            return await self._send(request, *answer.refuse_method())
        opened = self._files.open(request.path_qs.partition("?")[0])
        if opened is None:
            return await self._send(request, *answer.not_found())
        with opened.file as file:
            meta = self._files.known(opened)
            if meta is None:
                meta = await asyncio.to_thread(self._files.read, opened)
            conditions = request.headers.copy()
            if request.method == "HEAD":  # RFC 9110 14.2: a range is one of a GET
                conditions.popall("Range", None)
            status, headers = answer.found(meta, conditions, self._clock.now())
            sends = status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT) and request.method == "GET"
            return await self._send(request, status, headers, file if sends else None)

    async def _send(
        self, request: web.BaseRequest, status: HTTPStatus, headers: dict[str, str], body: io.FileIO | None = None
    ) -> web.StreamResponse:
        _REQUESTS.labels(str(status.value)).inc()
        response = web.StreamResponse(status=status, headers={**headers, "Server": "quash"})
        await response.prepare(request)
        if body is not None and request.transport is not None:
            start = int(headers.get("Content-Range", "bytes 0-").removeprefix("bytes ").partition("-")[0])
            transport = cast(asyncio.WriteTransport, request.transport)
            await sending.send(transport, body.fileno(), start, int(headers["Content-Length"]))
        await response.write_eof()
        return response


async def main(process: Process) -> None:
    """Serves until cancelled; ready while the publish folder can be read."""
    process.health.set("folder", ok=False, detail="starting")
    folder = process.state.crl
    runner = web.ServerRunner(web.Server(Origin(folder, process.clock).handle, access_log=None), shutdown_timeout=10)
    await runner.setup()
    try:
        await _site(process, runner).start()
        while True:
            readable = folder.is_dir()
            process.health.set("folder", ok=readable, detail="" if readable else f"{folder} cannot be read")
            await process.clock.sleep(_HEALTH_EVERY)
    finally:
        await runner.cleanup()


def _site(process: Process, runner: web.ServerRunner) -> web.BaseSite:
    if process.listen is not None:
        return web.SockSite(runner, process.listen)
    return web.TCPSite(runner, process.config.crl_origin.host, process.config.crl_origin.port)
