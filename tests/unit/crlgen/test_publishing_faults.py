"""Publishing when the store does not play along: S3 that answers 500 or never, a disk that is full."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from crlgen.publish.folder import FolderPublisher
from crlgen.publish.s3 import S3Publisher
from quash.pki.crl import read_crl, read_entry
from quash.runtime.config import S3
from tests.support.crl_bench import Bench
from tests.support.small_disk import fill, small_disk
from tests.unit.crlgen.test_publishers import bucket, s3_endpoint

__all__ = ["bucket", "s3_endpoint"]  # fixtures


class Troubled:
    """In front of moto: passes requests on, except that the next PUT goes wrong as `trouble` says."""

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self.trouble = ""
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        trouble = self.trouble if request.method == "PUT" else ""
        if trouble == "500":
            return web.Response(status=500)
        if trouble == "never":
            await asyncio.sleep(3600)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, self._behind + request.path_qs, data=body, headers=request.headers) as said,
        ):
            answer = await said.read()
        if trouble == "done, but 500":
            return web.Response(status=500)
        if trouble == "done, but silent":
            await asyncio.sleep(3600)
        headers = {
            name: value for name, value in said.headers.items() if name not in ("Transfer-Encoding", "Connection")
        }
        if request.method != "HEAD":
            headers.pop("Content-Length", None)
        return web.Response(status=said.status, headers=headers, body=answer)


@pytest.fixture
async def troubled(s3_endpoint: str) -> AsyncIterator[Troubled]:
    front = Troubled(s3_endpoint)
    runner = web.ServerRunner(web.Server(front.handle), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    front.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield front
    await runner.cleanup()


@pytest.mark.parametrize("trouble", ["500", "never", "done, but 500", "done, but silent"])
async def test_s3_that_fails_or_does_it_without_saying_so(
    bench: Bench, troubled: Troubled, bucket: S3, trouble: str
) -> None:
    """Whether or not the object was stored, the revocation ends up on it once, and no number is used twice."""
    publisher = S3Publisher(bucket.model_copy(update={"endpoint": troubled.url, "timeout": 0.7}))
    await bench.start(publisher)
    ca = await bench.issuer()
    await bench.settle()
    troubled.trouble = trouble
    serial = await bench.revoked(ca)
    await bench.settle()
    assert "publish.failed" in bench.builder.problems["ca.crl"]
    await bench.settle(11)
    troubled.trouble = ""
    for _ in range(3):
        await bench.settle(11)
    assert bench.builder.problems == {}
    found = await publisher.get("ca.crl")
    assert found is not None
    crl = read_crl(found[0])
    assert [read_entry(each)[0] for each in crl.entries] == [serial]
    rows = await bench.database.owner.fetch("select number, published_at from crl order by number")
    assert int(rows[-1]["number"]) == crl.number
    assert rows[-1]["published_at"] is not None


async def test_full_disk_keeps_the_published_crl(bench: Bench, tmp_path: Path) -> None:
    """No room for the new file: the old one stays whole and is served, the problem says why, and room ends it."""
    folder = tmp_path / "small"
    folder.mkdir()
    with small_disk(folder, "64k"):
        bench.folder = folder
        await bench.start(FolderPublisher(folder))
        ca = await bench.issuer()
        await bench.settle()
        before = bench.path("ca.crl").read_bytes()
        with (folder / "ballast").open("wb", buffering=0) as ballast:
            fill(ballast)
            serials = {await bench.revoked(ca) for _ in range(100)}
            await bench.settle()
            assert "publish.failed" in bench.builder.problems["ca.crl"]
            assert os.strerror(errno.ENOSPC) in bench.builder.problems["ca.crl"]
            assert bench.path("ca.crl").read_bytes() == before
        (folder / "ballast").unlink()
        await bench.settle(11)
        await bench.settle()
        assert set(bench.listed()) == serials
        assert bench.builder.problems == {}
        assert bench.read().number > 2
        assert sorted(path.name for path in folder.iterdir()) == ["ca.crl"]
        await bench.builder.close()
