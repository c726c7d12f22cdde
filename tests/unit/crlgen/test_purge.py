"""Purge hooks: caches are told what was replaced, at a limited rate, and nothing waits for them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import ClientSession, web
from prometheus_client import REGISTRY

from crlgen.publish.ocsp_urls import DELAY, OcspPurges, get_urls
from crlgen.publish.purge import MAX_AGE, Purger, Webhook
from quash.errors import Kind, QuashError
from quash.pki.ocsp_request import parse_request
from quash.runtime.clock import FakeClock
from quash.runtime.config import Purge
from quash.store import issuers
from quash.store.crls import Scope
from quash.store.database import acquire
from tests.support.crl_bench import Bench

HOOK = Purge(url="https://cdn.example.test/purge", batch=3, per_second=2)
OCSP_HOOK = HOOK.model_copy(update={"ocsp": True, "url": "https://cdn.example.test/ocsp", "batch": 100})


class Recorder:
    """A hook that keeps what it is sent, or refuses while `down`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.down = False

    async def send(self, hook: Purge, body: Mapping[str, Any]) -> None:
        if self.down:
            raise QuashError("purge.failed", "status 503", Kind.UNAVAILABLE)
        self.sent.append((hook.url, dict(body)))

    @property
    def urls(self) -> list[str]:
        return [url for _, body in self.sent for url in body["urls"]]


async def test_urls_go_in_batches_at_the_configured_rate(clock: FakeClock) -> None:
    """Eight URLs at three a request and two requests a second take a second, each once, with its tag."""
    recorder = Recorder()
    purger = Purger([HOOK], recorder, clock)
    purger.add([f"http://crl.example.test/{n}.crl" for n in range(8)], "crl/dv")
    purger.add(["http://crl.example.test/7.crl"], "crl/dv")
    done = []
    for _ in range(7):
        done.append(await purger.step())
        await clock.advance(0.25)
    assert done == [3, 0, 3, 0, 2, 0, 0]
    assert recorder.urls == [f"http://crl.example.test/{n}.crl" for n in range(8)]
    assert {tuple(body["tags"]) for _, body in recorder.sent} == {("crl/dv",)}


async def test_crls_go_before_the_answers_of_a_mass_revocation(clock: FakeClock) -> None:
    """However many OCSP answers wait: a CRL goes with the next request (G1), and no more answers wait than can go."""
    recorder = Recorder()
    hook = OCSP_HOOK.model_copy(update={"batch": 3})
    most = 3 * 2 * int(MAX_AGE) + 3
    purger = Purger([hook], recorder, clock)
    labels = {"hook": hook.url, "result": "given up"}
    before = REGISTRY.get_sample_value("quash_purge_urls_total", labels) or 0.0
    for n in range(0, most + 100, 10):
        purger.add([f"http://ocsp.example.test/{m}" for m in range(n, n + 10)], "ocsp/dv", ocsp=True)
    waiting = REGISTRY.get_sample_value("quash_purge_waiting", {"hook": hook.url})
    given_up = (REGISTRY.get_sample_value("quash_purge_urls_total", labels) or 0.0) - before
    assert (waiting, given_up) == (most, len(range(0, most + 100, 10)) * 10 - most)
    await purger.step()
    purger.add(["http://crl.example.test/dv.crl"], "crl/dv")
    await clock.advance(0.5)
    await purger.step()
    first, second = (body for _, body in recorder.sent)
    assert first["tags"] == ["ocsp/dv"]
    assert second["urls"][0] == "http://crl.example.test/dv.crl"
    assert second["tags"] == ["crl/dv", "ocsp/dv"]


async def test_hook_that_is_down_is_retried_with_pauses_and_given_up_after_max_age(clock: FakeClock) -> None:
    """A failing hook is a problem with its name; what caches have forgotten by themselves is not sent any more."""
    recorder = Recorder()
    purger = Purger([HOOK], recorder, clock)
    recorder.down = True
    purger.add(["http://crl.example.test/a.crl"], "crl/dv")
    for _ in range(20):
        assert await purger.step() == 0
        await clock.advance(10)
    assert "purge.failed" in purger.problems[HOOK.url]
    recorder.down = False
    await clock.advance(61)
    assert await purger.step() == 1
    assert purger.problems == {}
    recorder.down = True
    purger.add(["http://crl.example.test/b.crl"], "crl/dv")
    await clock.advance(1)
    await purger.step()
    await clock.advance(MAX_AGE + 100)
    recorder.down = False
    assert await purger.step() == 0
    assert recorder.urls == ["http://crl.example.test/a.crl"]


async def test_url_replaced_again_is_purged_again(clock: FakeClock) -> None:
    """A CRL published while its purge was under way is purged once more: the first may have come too early."""
    recorder = Recorder()
    purger = Purger([HOOK], recorder, clock)
    original = recorder.send

    async def send(hook: Purge, body: Mapping[str, Any]) -> None:
        await original(hook, body)
        if len(recorder.sent) == 1:
            await clock.advance(1)
            purger.add(["u"], "t")

    recorder.send = send  # type: ignore[method-assign]
    purger.add(["u"], "t")
    for _ in range(4):
        await purger.step()
        await clock.advance(1)
    assert recorder.urls == ["u", "u"]


async def test_builder_announces_what_it_publishes_and_everything_at_its_start(bench: Bench) -> None:
    """Each published CRL is announced; a builder that starts announces all, since a crash may have kept one back."""
    announced: list[Scope] = []
    await bench.start(announce=announced.append)
    ca = await bench.issuer("dv", shards=1)
    await bench.settle()
    await bench.revoked(ca, shard=0)
    await bench.settle()
    assert [scope.path for scope in announced] == ["dv.crl", "dv/0.crl", "dv/0.crl"]
    announced.clear()
    await bench.start(announce=announced.append)
    await bench.builder.step()
    assert {scope.path for scope in announced} == {"dv.crl", "dv/0.crl"}


async def test_revocation_purges_the_get_urls_of_both_hashes(bench: Bench) -> None:
    """A hook that asks for it is told every GET URL of a revoked certificate, after the revocation is visible."""
    recorder = Recorder()
    purger = Purger([HOOK, OCSP_HOOK], recorder, bench.clock)
    pool = await bench.database.pool("quash_crl_builder")
    purges = OcspPurges(pool, purger, bench.clock, "http://ocsp.example.test")
    ca = await bench.issuer("dv")
    old = await bench.revoked(ca)
    await bench.clock.advance(MAX_AGE + 1)
    serial = await bench.revoked(ca)
    assert await purges.step() == 2
    assert await purger.step() == 0
    await bench.clock.advance(DELAY)
    await purger.step()
    assert {hook for hook, _ in recorder.sent} == {OCSP_HOOK.url}
    found = set()
    for url in recorder.urls:
        assert url.startswith("http://ocsp.example.test/dv/")
        request = parse_request(base64.b64decode(unquote(url.removeprefix("http://ocsp.example.test/dv/"))))
        (cert_id,) = request.cert_ids
        assert cert_id is not None
        assert cert_id.serial == serial != old
        found.add(cert_id.hash)
    assert len(found) == 2
    async with acquire(pool) as conn:
        issuer = await issuers.get(conn, ca.id)
    assert issuer is not None
    assert recorder.urls == list(get_urls("http://ocsp.example.test", issuer, serial))
    again = OcspPurges(pool, purger, bench.clock, "http://ocsp.example.test")
    assert await again.step() == 0, "the position is durable"


@pytest.fixture
async def hook() -> AsyncIterator[tuple[str, list[tuple[str | None, Any]], list[int]]]:
    """A real webhook: its URL, what it got (authorization, body), and the status that it answers."""
    got: list[tuple[str | None, Any]] = []
    status = [200]

    async def handle(request: web.BaseRequest) -> web.Response:
        got.append((request.headers.get("Authorization"), json.loads(await request.read())))
        return web.Response(status=status[0], headers={"Location": "http://127.0.0.1:1/"})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/purge", got, status  # type: ignore[union-attr]
    await runner.cleanup()


async def test_webhook_gets_json_and_its_token(
    hook: tuple[str, list[tuple[str | None, Any]], list[int]], tmp_path: Path
) -> None:
    """One POST with lists of URLs and tags; anything but success, a redirection too, is a failure with a code."""
    url, got, status = hook
    token = tmp_path / "token"
    token.write_text("secret\n")
    configured = Purge(url=url, token_file=token, timeout=5)
    async with ClientSession() as session:
        webhook = Webhook(session)
        await webhook.send(configured, {"urls": ["u"], "tags": ["t"]})
        assert got == [("Bearer secret", {"urls": ["u"], "tags": ["t"]})]
        for status[0] in (302, 403, 500):
            with pytest.raises(QuashError, match=r"purge\.failed"):
                await webhook.send(configured, {"urls": [], "tags": []})
        token.unlink()
        with pytest.raises(QuashError, match=r"purge\.failed"):
            await webhook.send(configured, {"urls": [], "tags": []})
    assert len(got) == 4
