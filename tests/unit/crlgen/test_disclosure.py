"""The arrays for CCADB: the URLs that really stand in unexpired certificates (B23)."""

from __future__ import annotations

import json

from crlgen.build.disclosure import Disclosure, array
from crlgen.publish.folder import FolderPublisher
from quash.pki import der
from quash.store import crls
from quash.store.database import acquire
from tests.support.crl_bench import Bench, Ca


async def issue(bench: Bench, ca: Ca, url: str, *, shard: int | None, days: int = 90) -> None:
    """A row of a certificate with this URL in its octets."""
    serial = await bench.certificate(ca, shard=shard, not_after=bench.clock.now() + days * 86_400)
    octets = b"before" + der.tlv(0x86, url.encode()) + b"after"
    await bench.database.owner.execute("update certificate set der = $2 where serial = $1", serial, octets)


async def test_only_urls_of_unexpired_certificates_are_disclosed(bench: Bench) -> None:
    """A shard without certificates, an expired one and a URL that merely begins alike are not in the array."""
    ca = await bench.issuer("dv", shards=4)
    disclosure = Disclosure(bench.pool, FolderPublisher(bench.folder), bench.clock)
    assert await disclosure.step() == 1
    assert json.loads(bench.path("ccadb/dv.json").read_bytes()) == [""]
    base = "http://crl.example.test/dv"
    await issue(bench, ca, f"{base}/0.crl", shard=0)
    await issue(bench, ca, f"{base}/0.crl", shard=0)
    await issue(bench, ca, f"{base}/1.crl", shard=1, days=-1)
    await issue(bench, ca, f"{base}/2.crl?x", shard=2)
    assert await disclosure.step() == 0, "not before the next look"
    await bench.clock.advance(600)
    assert await disclosure.step() == 1
    assert json.loads(bench.path("ccadb/dv.json").read_bytes()) == [f"{base}/0.crl"]
    await bench.clock.advance(600)
    assert await disclosure.step() == 0


async def test_former_url_stays_while_a_certificate_carries_it(bench: Bench) -> None:
    """After a move both URLs are disclosed, the former one until its last certificate has expired."""
    ca = await bench.issuer("dv", shards=1)
    disclosure = Disclosure(bench.pool, FolderPublisher(bench.folder), bench.clock)
    old, new = "http://crl.example.test/dv/0.crl", "http://new.example.test/dv/0.crl"
    await issue(bench, ca, old, shard=0, days=1)
    async with acquire(bench.database.owner) as conn:
        scope = await crls.find_scope(conn, ca.id, 0)
        assert scope is not None
        await crls.move(conn, scope, new)
    await issue(bench, ca, new, shard=0)
    await disclosure.step()
    assert json.loads(bench.path("ccadb/dv.json").read_bytes()) == [new, old]
    await bench.clock.advance(86_400 + 1)
    await disclosure.step()
    assert json.loads(bench.path("ccadb/dv.json").read_bytes()) == [new]


def test_array_is_json_with_each_url_once() -> None:
    """What CCADB takes: one array; before the first certificate it holds one empty text."""
    assert json.loads(array(["http://a", "http://b", "http://a"])) == ["http://a", "http://b"]
    assert json.loads(array([])) == [""]
