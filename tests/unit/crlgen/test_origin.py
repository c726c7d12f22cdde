"""The CRL origin over real sockets: what it serves, what its headers say, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from crlgen.origin import sending
from crlgen.origin.main import main
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.crl import certificate_list, entry, tbs_cert_list
from quash.pki.names import build_name
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.process import Process
from quash.runtime.state import State

NOW = 1_800_000_000
VALIDITY = 4 * 86_400 - 1
KEY = ec.generate_private_key(ec.SECP256R1())
ALGORITHM = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"]


def make_crl(number: int, entries: int = 0, this_update: int = NOW) -> bytes:
    tbs = tbs_cert_list(
        algorithm=ALGORITHM, issuer=build_name({"C": "TN", "O": "Q", "CN": "CA"}), this_update=this_update,
        next_update=this_update + VALIDITY, entries=[entry(b"\x01" + os.urandom(15), NOW, 4) for _ in range(entries)],
        authority_key_id=b"k" * 20, number=number, idp_urls=(), only=None,
    )  # fmt: skip
    return certificate_list(tbs, ALGORITHM, ALGORITHM.decode(KEY.sign(tbs, ec.ECDSA(hashes.SHA256()))))


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Served:
    """A running origin, its folder and its clock."""

    address: tuple[str, int]
    folder: Path
    clock: FakeClock
    process: Process

    async def raw(self, head: str) -> Reply:
        """Sends a request head as it is and reads the reply to its end."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(head.encode("latin-1"))
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        top, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = top.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Reply(int(status.split()[1]), headers, body)

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Reply:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        return await self.raw(f"{method} {path} HTTP/1.1\r\nHost: crl.example.test\r\nConnection: close\r\n{lines}\r\n")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """The origin's own `main`, on a listening socket of ours."""
    state, clock = State(tmp_path / "state"), FakeClock(NOW + 100.5)
    listen = socket.create_server(("127.0.0.1", 0))
    process = Process("crl-origin", Config(), state, clock=clock, listen=listen)
    task = asyncio.create_task(main(process))
    await asyncio.sleep(0.05)
    yield Served(listen.getsockname(), state.crl, clock, process)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    listen.close()


async def test_crl_with_all_its_headers(served: Served) -> None:
    """B22 and what caches need: type, length, strong ETag, thisUpdate as Last-Modified, limits up to nextUpdate."""
    body = make_crl(7, 20)
    (served.folder / "ca.crl").write_bytes(body)
    reply = await served.ask("/ca.crl")
    assert (reply.status, reply.body) == (200, body)
    assert reply.headers["Content-Type"] == "application/pkix-crl"
    assert reply.headers["Content-Length"] == str(len(body))
    assert reply.headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'
    assert reply.headers["Last-Modified"] == formatdate(NOW, usegmt=True)
    stale = VALIDITY - 100 - 1800
    assert reply.headers["Cache-Control"] == f"public, max-age=1800, stale-if-error={stale}"
    assert reply.headers["Server"] == "quash"
    assert "Date" in reply.headers
    assert served.process.health.ready


async def test_certificate_has_its_own_type(served: Served) -> None:
    """CA certificates under AIA paths are application/pkix-cert."""
    (served.folder / "ca.cer").write_bytes(b"0\x03\x02\x01\x01")
    reply = await served.ask("/ca.cer")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/pkix-cert")
    assert reply.headers["Cache-Control"] == "public, max-age=1800"


async def test_head_is_get_without_a_body(served: Served) -> None:
    """HEAD gives the same headers, and no octet more."""
    (served.folder / "ca.crl").write_bytes(make_crl(1))
    get, head = await served.ask("/ca.crl"), await served.ask("/ca.crl", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert {k: v for k, v in head.headers.items() if k != "Date"} == {
        k: v for k, v in get.headers.items() if k != "Date"
    }


async def test_conditions_give_304(served: Served) -> None:
    """If-None-Match decides alone; without it If-Modified-Since does; 304 carries the validators and no body."""
    (served.folder / "ca.crl").write_bytes(make_crl(1))
    etag = (await served.ask("/ca.crl")).headers["ETag"]
    at = formatdate(NOW, usegmt=True)
    earlier, later = formatdate(NOW - 1, usegmt=True), formatdate(NOW + 5, usegmt=True)
    for conditions, status in (
        ({"If_None_Match": etag}, 304),
        ({"If_None_Match": f'"x", W/{etag}'}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"x"'}, 200),
        ({"If_None_Match": '"x"', "If_Modified_Since": later}, 200),
        ({"If_Modified_Since": at}, 304),
        ({"If_Modified_Since": later}, 304),
        ({"If_Modified_Since": earlier}, 200),
        ({"If_Modified_Since": "yesterday"}, 200),
        ({"If_Modified_Since": ""}, 200),
    ):
        for method in ("GET", "HEAD"):
            reply = await served.ask("/ca.crl", method, **conditions)
            assert reply.status == status, conditions
            if status == 304:
                assert reply.body == b""
                assert reply.headers["ETag"] == etag
                assert "Cache-Control" in reply.headers
                assert reply.headers["Last-Modified"] == at


async def test_new_crl_is_served_at_once_with_a_new_tag(served: Served) -> None:
    """A file renamed over the old one is the next answer, also for whoever knows the old tag."""
    path = served.folder / "ca.crl"
    path.write_bytes(make_crl(1))
    etag = (await served.ask("/ca.crl")).headers["ETag"]
    body = make_crl(2, 3, NOW + 50)
    (served.folder / ".ca.crl.new").write_bytes(body)
    (served.folder / ".ca.crl.new").rename(path)
    reply = await served.ask("/ca.crl", If_None_Match=etag)
    assert (reply.status, reply.body) == (200, body)
    assert reply.headers["Last-Modified"] == formatdate(NOW + 50, usegmt=True)


async def test_no_cache_outlives_next_update(served: Served) -> None:
    """Close to nextUpdate max-age shrinks with it; after it nothing may be kept or served stale."""
    (served.folder / "ca.crl").write_bytes(make_crl(1))
    served.clock.step(NOW + VALIDITY - 10 - served.clock.now())
    assert (await served.ask("/ca.crl")).headers["Cache-Control"] == "public, max-age=10, stale-if-error=0"
    served.clock.step(1000)
    assert (await served.ask("/ca.crl")).headers["Cache-Control"] == "public, max-age=0, stale-if-error=0"


async def test_damaged_crl_is_kept_by_no_cache(served: Served) -> None:
    """A file that is no CRL is served as it is, for the builder to replace, but with no time to live."""
    (served.folder / "ca.crl").write_bytes(b"damaged")
    reply = await served.ask("/ca.crl")
    assert (reply.status, reply.body) == (200, b"damaged")
    assert reply.headers["Cache-Control"] == "public, max-age=0, stale-if-error=0"


async def test_shards_lie_in_folders_and_a_query_is_ignored(served: Served) -> None:
    """Sub-folders are served; a query, which some clients add against caches, names the same file."""
    (served.folder / "dv").mkdir()
    (served.folder / "dv/3.crl").write_bytes(make_crl(1))
    assert (await served.ask("/dv/3.crl")).status == 200
    assert (await served.ask("/dv/3.crl?t=1")).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/", "/none.crl", "/dv", "/dv/", "//ca.crl", "/ca.crl/", "/./ca.crl", "/dv/../ca.crl", "/../secret.crl",
        "/..%2fsecret.crl", "/%2e%2e/secret.crl", "/..\\secret.crl", "/%63a.crl", "/ca.crl%00", "/.hidden.crl",
        "/.ca.crl.new", "/ca.key", "/ca.crl.bak", "/link.crl", "/pipe.crl", "/folder.crl", "/CA.CRL", "/ca.crl;x",
        "/a/b/c/../../../../secret.crl", "/" + "a" * 6000 + ".crl",
    ],
)  # fmt: skip
async def test_everything_else_is_404(served: Served, path: str) -> None:
    """No traversal, no decoding, no hidden, linked or foreign file, no listing; and a 404 is kept by nobody."""
    secret = served.folder.parent / "secret.crl"
    for file in (secret, served.folder / "ca.crl", served.folder / ".hidden.crl", served.folder / ".ca.crl.new"):
        file.write_bytes(make_crl(1))
    (served.folder / "ca.key").write_bytes(b"k")
    (served.folder / "ca.crl.bak").write_bytes(b"k")
    (served.folder / "link.crl").symlink_to(secret)
    os.mkfifo(served.folder / "pipe.crl")
    for folder in ("dv", "folder.crl"):
        (served.folder / folder).mkdir()
    reply = await served.ask(path)
    assert (reply.status, reply.body) == (404, b"")
    assert reply.headers["Cache-Control"] == "no-store"


async def test_absolute_form_names_the_path_in_it(served: Served) -> None:
    """A proxy may send the whole URL as request target; it reaches the same file and no other."""
    (served.folder / "ca.crl").write_bytes(make_crl(1))
    assert (await served.ask("http://crl.example.test/ca.crl")).status == 200
    assert (await served.ask("http://crl.example.test/../ca.crl")).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_other_methods_are_405(served: Served, method: str) -> None:
    """The origin only gives: anything else is 405 with Allow (A38)."""
    (served.folder / "ca.crl").write_bytes(make_crl(1))
    reply = await served.ask("/ca.crl", method)
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")


async def test_large_crl_arrives_whole_on_many_connections(served: Served) -> None:
    """Several megabytes, streamed from the open file, are the same octets for everybody, also while it is replaced."""
    body = make_crl(1, 60_000)
    path = served.folder / "ca.crl"
    path.write_bytes(body)
    reader, writer = await asyncio.open_connection(*served.address)
    writer.write(b"GET /ca.crl HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")  # open, and more than a socket takes
    asked = [asyncio.create_task(served.ask("/ca.crl")) for _ in range(6)]
    (served.folder / ".new").write_bytes(make_crl(2))
    (served.folder / ".new").rename(path)
    replies = await asyncio.gather(*asked)
    assert all(reply.headers["ETag"] == f'"{hashlib.sha256(reply.body).hexdigest()}"' for reply in replies)
    assert await reader.readexactly(len(body)) == body
    writer.close()
    assert all(int(reply.headers["Content-Length"]) == len(reply.body) for reply in replies)


async def test_one_connection_serves_many_requests(served: Served) -> None:
    """Keep-alive works, and a HEAD or 304 does not leave the connection out of step."""
    body = make_crl(1)
    (served.folder / "ca.crl").write_bytes(body)
    reader, writer = await asyncio.open_connection(*served.address)
    for method in ("GET", "HEAD", "GET"):
        writer.write(f"{method} /ca.crl HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head
        if method == "GET":
            assert await reader.readexactly(len(body)) == body
    writer.close()


async def test_health_follows_the_folder(served: Served) -> None:
    """Without its folder the origin is not ready, and says what is missing."""
    served.folder.rename(served.folder.with_name("gone"))
    await served.clock.advance(6)
    assert not served.process.health.ready
    assert "cannot be read" in served.process.health.report()["checks"]["folder"]["detail"]


@pytest.mark.parametrize(
    ("range_", "start", "end"),
    [("bytes=0-9", 0, 10), ("bytes=5-5", 5, 6), ("bytes=100-", 100, None), ("bytes=-7", -7, None),
     ("bytes=0-999999999", 0, None), ("bytes=-999999999", 0, None)],
)  # fmt: skip
async def test_one_range_is_served(served: Served, range_: str, start: int, end: int | None) -> None:
    """A CDN that lost a large CRL half way fetches the rest (RFC 9110 14)."""
    body = make_crl(7, 20)
    (served.folder / "ca.crl").write_bytes(body)
    reply = await served.ask("/ca.crl", Range=range_)
    assert (reply.status, reply.body) == (206, body[start:end])
    first = start % len(body)
    assert reply.headers["Content-Range"] == f"bytes {first}-{first + len(reply.body) - 1}/{len(body)}"
    assert reply.headers["Content-Length"] == str(len(reply.body))
    assert reply.headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'


@pytest.mark.parametrize("range_", ["bytes=0-1,5-6", "lines=0-5", "bytes=9-5", "bytes=-", "bytes=x-", "bytes 0-5"])
async def test_other_ranges_are_passed_over(served: Served, range_: str) -> None:
    """Several ranges, other units and nonsense get the whole file, as RFC 9110 allows."""
    body = make_crl(7, 20)
    (served.folder / "ca.crl").write_bytes(body)
    reply = await served.ask("/ca.crl", Range=range_)
    assert (reply.status, reply.body, reply.headers["Accept-Ranges"]) == (200, body, "bytes")


async def test_range_beyond_the_file_and_of_another_state(served: Served) -> None:
    """Octets that are not there are 416; a range of another state of the file gets the new one whole (If-Range)."""
    body = make_crl(7, 20)
    (served.folder / "ca.crl").write_bytes(body)
    beyond = await served.ask("/ca.crl", Range=f"bytes={len(body)}-")
    assert (beyond.status, beyond.body, beyond.headers["Content-Range"]) == (416, b"", f"bytes */{len(body)}")
    other = await served.ask("/ca.crl", Range="bytes=0-9", If_Range='"other"')
    assert (other.status, other.body) == (200, body)
    same = await served.ask("/ca.crl", Range="bytes=0-9", If_Range=other.headers["ETag"])
    assert (same.status, same.body) == (206, body[:10])
    head = await served.ask("/ca.crl", "HEAD", Range="bytes=0-9")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(body)))


async def test_disclosure_is_served_under_its_well_known_path_only(served: Served) -> None:
    """CCADB fetches `/.well-known/ccadb/<issuer>.json` (B23); no other path shows it, and no other JSON is served."""
    (served.folder / "ccadb").mkdir()
    (served.folder / "ccadb/tls-dv.json").write_bytes(b'["http://x"]')
    (served.folder / "other.json").write_bytes(b"{}")
    reply = await served.ask("/.well-known/ccadb/tls-dv.json")
    assert (reply.status, reply.body) == (200, b'["http://x"]')
    assert reply.headers["Content-Type"] == "application/json"
    for path in ("/ccadb/tls-dv.json", "/other.json", "/.well-known/ccadb/../other.json", "/.well-known/ccadb/"):
        assert (await served.ask(path)).status == 404


async def test_slow_reader_gets_every_octet_while_others_are_served(served: Served) -> None:
    """A client that reads in small steps holds up nobody, and gets the file it asked for although a new one came."""
    body = make_crl(1, 60_000)
    (served.folder / "ca.crl").write_bytes(body)
    reader, writer = await asyncio.open_connection(*served.address, limit=4096)
    writer.write(b"GET /ca.crl HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    got = bytearray(await reader.read(4096))
    new = served.folder / "new"
    new.write_bytes(make_crl(2))
    new.rename(served.folder / "ca.crl")
    assert (await served.ask("/ca.crl")).body != body
    while chunk := await asyncio.wait_for(reader.read(65_536), 10):
        got += chunk
    assert bytes(got) == body
    writer.close()


async def test_reader_that_takes_nothing_is_let_go(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled client costs a socket for a minute, not for ever; its descriptor is given back."""
    monkeypatch.setattr(sending, "STALL", 0.2)
    (served.folder / "ca.crl").write_bytes(make_crl(1, 200_000))
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, served.address)
        client.send(b"GET /ca.crl HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            while (await asyncio.sleep(0.05), len(os.listdir("/proc/self/fd")))[1] > before + 1:
                pass
    assert (await served.ask("/ca.crl", "HEAD")).status == 200


async def test_origin_on_the_loop_of_the_service(tmp_path: Path) -> None:
    """The process runs on uvloop: a child with that loop sends the same octets, whole and in part."""
    folder = tmp_path / "crl"
    folder.mkdir()
    body = make_crl(1, 100_000)
    (folder / "ca.crl").write_bytes(body)
    program = (
        "import asyncio, sys, uvloop\nfrom pathlib import Path\nfrom aiohttp import web\n"
        "from crlgen.origin.main import Origin\nfrom quash.runtime.clock import SystemClock\n"
        "async def main():\n"
        "    runner = web.ServerRunner(web.Server(Origin(Path(sys.argv[1]), SystemClock()).handle))\n"
        "    await runner.setup()\n"
        "    await web.TCPSite(runner, '127.0.0.1', 0).start()\n"
        "    print(runner.addresses[0][1], flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "uvloop.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(folder), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        port = int(await asyncio.wait_for(child.stdout.readline(), 20))
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/ca.crl"
            answers = await asyncio.gather(*(_body(session, url) for _ in range(4)))
            assert set(answers) == {body}
            assert await _body(session, url, Range="bytes=1000-4999999") == body[1000:5000000]
    finally:
        child.kill()
        await child.wait()


async def _body(session: aiohttp.ClientSession, url: str, **headers: str) -> bytes:
    async with session.get(url, headers=headers) as answer:
        return await answer.read()
