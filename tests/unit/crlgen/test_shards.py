"""Another number of shards: by explicit command alone; only certificates that are issued afterwards notice (B16)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from issuer.signer.deployment import Deployment
from issuer.signer.shards import change_shards
from quash.errors import QuashError
from quash.pki.crl import read_entry
from quash.runtime.config import Config
from quash.store import issuers
from quash.store.database import acquire
from tests.support.crl_bench import Bench

BASE = "http://crl.example.test"


async def change(bench: Bench, name: str, count: int) -> list[str]:
    config = Config.model_validate({"crl_origin": {"base_url": BASE}})
    deployment = Deployment(config, cast(Any, None), bench.database.owner, bench.clock)
    return await change_shards(deployment, name, count, wait=0)


async def changed(bench: Bench, name: str, count: int) -> list[str]:
    """Repeated until the builder has published the CRLs of new shards."""
    with pytest.raises(QuashError, match=r"shards\.not_published|not out"):
        await change(bench, name, count)
    await bench.settle()
    await bench.settle()
    return await change(bench, name, count)


async def shard_count(bench: Bench, issuer_id: int) -> int:
    async with acquire(bench.database.owner) as conn:
        found = await issuers.get(conn, issuer_id)
    assert found is not None
    return found.shard_count


def union(bench: Bench, *paths: str) -> list[bytes]:
    return sorted(serial for path in paths for serial in bench.listed(path))


async def test_full_crl_becomes_sharded(bench: Bench) -> None:
    """From 0 to 3: old certificates stay on the CRL that they name, which says now that it is not complete (B14).

    No certificate may name a new shard before its CRL is out (B18); then the act tells what CCADB must know (B23).
    """
    ca = await bench.issuer("dv")
    old = await bench.revoked(ca)
    await bench.settle()
    with pytest.raises(QuashError) as caught:
        await change(bench, "dv", 3)
    assert caught.value.code == "shards.not_published"
    assert await shard_count(bench, ca.id) == 0
    await bench.settle()
    await bench.settle()
    assert await change(bench, "dv", 3) == [f"{BASE}/dv/{shard}.crl" for shard in range(3)]
    assert await shard_count(bench, ca.id) == 3
    crl = bench.read("dv.crl")
    assert crl.idp_urls == (f"{BASE}/dv.crl",)
    assert [read_entry(entry)[0] for entry in crl.entries] == [old]
    new = await bench.revoked(ca, shard=2)
    await bench.settle()
    assert union(bench, "dv.crl", "dv/0.crl", "dv/1.crl", "dv/2.crl") == sorted([old, new])
    assert list(bench.listed("dv/2.crl")) == [new]
    assert bench.builder.problems == {}
    subject = await bench.database.owner.fetchval("select subject from act where action = 'issuer.shards'")
    assert subject == {"issuer": "dv", "before": 0, "after": 3, "disclose": [f"{BASE}/dv/{n}.crl" for n in range(3)]}
    acts = "select count(*) from act where action = 'issuer.shards'"
    await change(bench, "dv", 3)
    assert await bench.database.owner.fetchval(acts) == 1, "the same again is no change"


async def test_former_shards_are_published_as_long_as_certificates_name_them(bench: Bench) -> None:
    """From 4 to 1, then to 6: every shard that a certificate names keeps its CRL, its entries, its place in CCADB."""
    ca = await bench.issuer("dv", shards=4)
    old = await bench.revoked(ca, shard=3)
    await bench.settle()
    assert len(await changed(bench, "dv", 1)) == 4, "all stay disclosed"
    later = await bench.revoked(ca, shard=3)  # issued before, revoked after
    await bench.settle()
    assert sorted(bench.listed("dv/3.crl")) == sorted([old, later])
    assert len(await changed(bench, "dv", 6)) == 6
    assert sorted(bench.listed("dv/3.crl")) == sorted([old, later])
    assert bench.listed("dv/5.crl") == {}
    assert bench.builder.problems == {}


@pytest.mark.parametrize(
    ("name", "count", "code"),
    [("dv", 5000, "shards.count"), ("root", 2, "shards.offline"), ("nobody", 2, "issuer.unknown")],
)
async def test_what_is_refused(bench: Bench, name: str, count: int, code: str) -> None:
    """Numbers beyond the configuration's, an offline key, an unknown name."""
    await bench.issuer("dv")
    await bench.issuer("root", key_ref=None)
    with pytest.raises(QuashError) as caught:
        await change(bench, name, count)
    assert caught.value.code == code
