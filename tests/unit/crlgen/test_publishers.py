"""The publisher's contract, one suite for the folder and for S3 (moto's server, on the loopback interface)."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer

from crlgen.publish.folder import FolderPublisher, Publisher, failed
from crlgen.publish.s3 import S3Publisher
from crlgen.publish.with_copy import WithCopy
from quash.errors import Kind, QuashError
from quash.runtime.config import S3
from tests.support.crl_bench import DAY, Bench
from tests.unit.crlgen.test_builder_trouble import states_of

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def credentials(folder: Path) -> Path:
    file = folder / "s3-credentials"
    file.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test%secret\n")
    return file


@pytest.fixture
def bucket(s3_endpoint: str, tmp_path: Path) -> S3:
    """A new bucket, made as its owner would."""
    import boto3  # noqa: PLC0415 - heavy

    name = f"crls-{next(_NUMBERS)}"
    boto3.client(
        "s3", endpoint_url=s3_endpoint, region_name="us-east-1", aws_access_key_id="test",
        aws_secret_access_key="test%secret",
    ).create_bucket(Bucket=name)  # fmt: skip
    return S3(bucket=name, prefix="public", endpoint=s3_endpoint, credentials_file=credentials(tmp_path))


@pytest.fixture(params=["folder", "s3", "s3 with a copy"])
def publisher(request: pytest.FixtureRequest, tmp_path: Path) -> Publisher:
    folder = tmp_path / "published"
    folder.mkdir()
    if request.param == "folder":
        return FolderPublisher(folder)
    s3 = S3Publisher(request.getfixturevalue("bucket"))
    return s3 if request.param == "s3" else WithCopy(s3, FolderPublisher(folder))


async def code_of(attempt: Callable[[], object]) -> str:
    with pytest.raises(QuashError) as caught:
        await attempt()  # type: ignore[misc]
    return caught.value.code


async def test_put_then_get_and_head_agree(publisher: Publisher) -> None:
    """What was put is read back whole, under the tag that put gave."""
    tag = await publisher.put("dv/3.crl", b"one", replaces=None)
    assert await publisher.get("dv/3.crl") == (b"one", tag)
    assert await publisher.head("dv/3.crl") == tag


async def test_absent_file_has_neither_octets_nor_tag(publisher: Publisher) -> None:
    """Nothing there is None, not an error."""
    assert await publisher.get("none.crl") is None
    assert await publisher.head("none.crl") is None


async def test_put_replaces_only_the_state_it_names(publisher: Publisher) -> None:
    """A file that somebody else made or changed is not overwritten unseen."""
    first = await publisher.put("a.crl", b"one", replaces=None)
    second = await publisher.put("a.crl", b"two", replaces=first)
    assert first != second
    for replaces in (None, first):
        assert await code_of(lambda tag=replaces: publisher.put("a.crl", b"three", replaces=tag)) == "publish.conflict"
    assert await publisher.get("a.crl") == (b"two", second)
    assert await code_of(lambda: publisher.put("new.crl", b"x", replaces=first)) == "publish.conflict"
    assert await publisher.head("new.crl") is None


async def test_one_of_two_racing_writers_wins(publisher: Publisher) -> None:
    """Of writers that replace the same state at once at most one succeeds, and its octets are there whole."""
    tag = await publisher.put("a.crl", b"start", replaces=None)
    bodies = [bytes([n]) * 50_000 for n in range(4)]
    done = await asyncio.gather(
        *(publisher.put("a.crl", body, replaces=tag) for body in bodies), return_exceptions=True
    )
    winners = [n for n, result in enumerate(done) if isinstance(result, str)]
    assert len(winners) == 1
    assert (await publisher.get("a.crl") or (b"",))[0] == bodies[winners[0]]


async def test_large_file_is_whole(publisher: Publisher) -> None:
    """Ten megabytes, the largest CRL that B21 allows, go in one piece."""
    body = bytes(range(256)) * 40_000
    await publisher.put("large.crl", body, replaces=None)
    assert (await publisher.get("large.crl") or (b"",))[0] == body


async def test_s3_objects_say_what_they_are(bucket: S3, s3_endpoint: str) -> None:
    """A CDN gets content type and max-age from the store (B22, G1)."""
    import boto3  # noqa: PLC0415 - heavy

    await S3Publisher(bucket).put("a.crl", b"one", replaces=None)
    client = boto3.client(
        "s3", endpoint_url=s3_endpoint, region_name="us-east-1", aws_access_key_id="test",
        aws_secret_access_key="test%secret",
    )  # fmt: skip
    head = client.head_object(Bucket=bucket.bucket, Key="public/a.crl")
    assert (head["ContentType"], head["CacheControl"]) == ("application/pkix-crl", "public, max-age=1800")


async def test_copy_follows_whatever_state_it_was_in(bucket: S3, tmp_path: Path) -> None:
    """Our own processes read the copy: it is what went out last, also over a file that something else left there."""
    (tmp_path / "a.crl").write_bytes(b"left over")
    publisher = WithCopy(S3Publisher(bucket), FolderPublisher(tmp_path))
    await publisher.put("a.crl", b"one", replaces=None)
    assert (tmp_path / "a.crl").read_bytes() == b"one"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"damaged")], ids=["missing", "damaged"])
async def test_copy_that_is_not_what_is_published_is_written_again(bench: Bench, bucket: S3, spoil: Any) -> None:
    """The CRL in the bucket is sound, so it stays, with its number; the copy follows by the next step."""
    s3 = S3Publisher(bucket)
    await bench.start(publisher=WithCopy(s3, FolderPublisher(bench.folder)))
    await bench.revoked(await bench.issuer())
    await bench.settle()
    await bench.settle()
    found = await s3.get("ca.crl")
    spoil(bench.path("ca.crl"))
    assert await bench.builder.step() == 0
    assert await s3.get("ca.crl") == found
    assert found is not None
    assert bench.path("ca.crl").read_bytes() == found[0]
    assert bench.builder.problems == {}


async def test_copy_of_an_issuer_that_has_ended_is_kept_too(bench: Bench, bucket: S3) -> None:
    """A new machine's folder gets its last CRL, which says for good what was revoked."""
    publisher = WithCopy(S3Publisher(bucket), FolderPublisher(bench.folder))
    await bench.start(publisher=publisher)
    await bench.revoked(await bench.issuer())
    await bench.settle()
    last = bench.path("ca.crl").read_bytes()
    await bench.database.owner.execute("update issuer_certificate set not_after = $1", int(bench.clock.now()) + DAY)
    await bench.clock.advance(2 * DAY)
    await bench.crash()
    bench.path("ca.crl").unlink()
    builder = await bench.start(publisher=publisher)
    await bench.settle()
    await bench.settle()
    assert bench.path("ca.crl").read_bytes() == last
    assert builder.problems == {}


@pytest.mark.parametrize("dies", [True, False], ids=["the process dies", "the disk is full"])
async def test_end_between_bucket_and_copy(bench: Bench, bucket: S3, dies: bool) -> None:
    """The CRL is out, its record is completed, and the copy follows, after a restart or when there is room again."""
    s3, folder = S3Publisher(bucket), FolderPublisher(bench.folder)

    class Crash(BaseException):
        pass

    class Full(FolderPublisher):
        async def put(self, name: str, body: bytes, replaces: str | None) -> str:
            raise Crash if dies else failed(name, OSError(errno.ENOSPC, "no room"))

    await bench.start(publisher=WithCopy(s3, folder))
    ca = await bench.issuer()
    await bench.settle()
    serial = await bench.revoked(ca)
    await bench.start(publisher=WithCopy(s3, Full(bench.folder)))
    if dies:
        with pytest.raises(Crash):
            await bench.settle()
        assert bench.listed() == {}
        await bench.crash()
    else:
        await bench.settle()
        assert "publish.failed" in bench.builder.problems["ca.crl"]
        await bench.settle(11)  # it is seen to be out
        for _ in range(3):
            await bench.settle(11)
            assert "publish.failed" in bench.builder.problems["ca.crl"], "until the copy is there"
        (state,) = await states_of(bench)
        assert state.published is not None
        assert (state.published.number, state.dirty_since) == (2, None), "in the bucket it is"
    builder = await bench.start(publisher=WithCopy(s3, folder))
    await bench.settle()
    assert set(bench.listed()) == {serial}
    assert bench.read().number == 2
    assert builder.problems == {}


async def test_trouble_with_looking_is_over_when_it_is(bench: Bench) -> None:
    """A bucket that did not answer once leaves no scope unready until its next CRL, which may be a day away."""

    class Sometimes(FolderPublisher):
        away = False

        async def head(self, name: str) -> str | None:
            if self.away:
                raise failed(name, OSError("timed out"))
            return await super().head(name)

    publisher = Sometimes(bench.folder)
    await bench.start(publisher)
    await bench.issuer()
    await bench.settle()
    publisher.away = True
    await bench.settle()
    assert "publish.failed" in bench.builder.problems["ca.crl"]
    publisher.away = False
    await bench.settle(11)
    assert bench.builder.problems == {}
    assert bench.read().number == 1


@pytest.fixture
async def broken(tmp_path: Path) -> AsyncIterator[tuple[S3, list[str]]]:
    """An endpoint that answers 500, or not at all below `/slow`; and the methods it was asked with."""
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        asked.append(request.method)
        if "/slow/" in request.path:
            await asyncio.sleep(5)
        return web.Response(status=500, text="<Error><Code>InternalError</Code></Error>")

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    endpoint = f"http://127.0.0.1:{port}"
    yield S3(bucket="b", endpoint=endpoint, credentials_file=credentials(tmp_path), timeout=0.5), asked
    await runner.cleanup()


@pytest.mark.parametrize("prefix", ["", "slow"])
async def test_s3_that_fails_or_hangs_is_unavailable_and_asked_once(broken: tuple[S3, list[str]], prefix: str) -> None:
    """A 500 and a time-out are `publish.failed`, which the builder retries under a new number; nothing below does."""
    config, asked = broken
    publisher = S3Publisher(config.model_copy(update={"prefix": prefix}))
    attempts: list[Callable[[], object]] = [
        lambda: publisher.head("a.crl"),
        lambda: publisher.get("a.crl"),
        lambda: publisher.put("a.crl", b"x", replaces=None),
        lambda: publisher.put("a.crl", b"x", replaces='"tag"'),
    ]
    for attempt in attempts:
        with pytest.raises(QuashError) as caught:
            await attempt()  # type: ignore[misc]
        assert (caught.value.code, caught.value.kind) == ("publish.failed", Kind.UNAVAILABLE)
    assert asked == ["HEAD", "GET", "PUT", "PUT"]


def test_s3_without_tls_or_credentials_is_refused(tmp_path: Path) -> None:
    """Secrets travel by https only, and come from a file that holds them."""
    file = credentials(tmp_path)
    with pytest.raises(QuashError, match=r"publish\.endpoint"):
        S3Publisher(S3(bucket="b", endpoint="http://s3.example.test", credentials_file=file))
    file.write_text("[other]\n")
    with pytest.raises(QuashError, match=r"publish\.credentials"):
        S3Publisher(S3(bucket="b", endpoint="https://s3.example.test", credentials_file=file))


async def test_builder_publishes_to_s3(bench: Bench, bucket: S3) -> None:
    """Flow 3 over a bucket: numbers rise, one writer's object is not overwritten by another's old tag."""
    s3 = S3Publisher(bucket)
    await bench.start(publisher=WithCopy(s3, FolderPublisher(bench.folder)))
    ca = await bench.issuer()
    serial = await bench.revoked(ca)
    await bench.settle()
    assert set(bench.listed()) == {serial}
    found = await s3.get("ca.crl")
    assert found is not None
    assert found[0] == bench.path("ca.crl").read_bytes()
    await s3.put("ca.crl", b"damaged", replaces=found[1])
    await bench.settle(2)
    await bench.settle(20)
    assert bench.builder.problems == {}
    assert ((await s3.get("ca.crl")) or (b"",))[0] == bench.path("ca.crl").read_bytes() != found[0]
