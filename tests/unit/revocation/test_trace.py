"""What a revocation leaves behind: sightings of the outside probe, and the bundle that openssl checks."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from issuer.api import application, listening
from issuer.revocation.api import AdminApi
from issuer.revocation.probe import Probe
from issuer.revocation.trace_api import TraceApi
from issuer.revocation.visible import Watches
from quash.cache.layout import Record, encode_batch, encode_record
from quash.pki.certid import CertIdHash
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.store import sightings
from quash.store.database import acquire
from quash.store.roles import ADMIN
from quash.store.sightings import Sighting
from tests.support.command_line import CommandLine
from tests.support.edge import Edge
from tests.support.ledger import Ledger, make_ledger
from tests.support.public import Public
from tests.support.revoking import DAY, Key, World, key_hash, make_world

KEY_COMPROMISE = int(Reason.keyCompromise)


@pytest.fixture
async def world(database: Any) -> World:
    """On the real time of day: openssl knows no other."""
    world = await make_world(database, FakeClock(float(int(time.time()))), ADMIN)
    start = world.now - world.now % DAY
    await world.owner.execute("select feed_add_partition($1, $2)", start, start + 10 * DAY)
    return world


@pytest.fixture
async def public(world: World) -> AsyncIterator[Public]:
    async with Public(world).serving() as public:
        await world.owner.execute("update crl_scope set url = $1 || '/' || path", public.crl_url)
        yield public


@pytest.fixture
def config(database: Any, public: Public) -> Config:
    urls = {"responder": {"base_url": public.ocsp_url}, "crl_origin": {"base_url": public.crl_url}}
    return Config.model_validate({**database.config.model_dump(), **urls})


@pytest.fixture
async def probe(world: World, config: Config) -> AsyncIterator[Probe]:
    async with Probe(world.pool, config, world.clock) as probe:
        yield probe


async def seen(world: World, key: Key, version: int = 1) -> list[Sighting]:
    async with acquire(world.pool) as conn:
        return await sightings.of(conn, (*key, version))


async def into_feed(world: World, key: Key, version: int) -> bytes:
    """A record as the presigner writes it; returns its octets."""
    record = encode_record(Record(version, 1, world.now, world.now, world.now + DAY, 1, (b"a" * 64, b"b" * 64)))
    await world.owner.execute(
        "insert into feed (written_at, lane, kind, payload) values ($1, 0, 'records', $2)",
        world.now,
        encode_batch([(*key, record)]),
    )
    return record


async def test_each_place_is_seen_once_and_first(world: World, public: Public, probe: Probe) -> None:
    """Nothing before it is out; then feed, each hash and CRL with the SHA-256 of what was signed, once."""
    key, bystander = await world.certificate(spki=key_hash()), await world.certificate(spki=key_hash())
    await world.revoke(key, Reason.keyCompromise)
    assert await probe.step() == 0
    public.revoke(key, KEY_COMPROMISE, world.now, CertIdHash.SHA1)
    public.revoke(bystander, KEY_COMPROMISE, world.now)
    record = await into_feed(world, key, 1)
    assert await probe.step() == 0  # it pauses between two looks
    first = world.now
    await world.clock.advance(1)
    assert await probe.step() == 2
    public.revoke(key, KEY_COMPROMISE, first, CertIdHash.SHA256)
    await world.clock.advance(5)
    assert await probe.step() == 1
    await public.publish("alpha", 7, [(key[1], (KEY_COMPROMISE, first))])
    await world.clock.advance(10)
    assert await probe.step() == 1
    feed, sha1, sha256, crl = await seen(world, key)
    assert [(each.kind, each.hash, each.seen_at - first) for each in (feed, sha1, sha256, crl)] == [
        ("feed", "", 0),
        ("ocsp", "sha1", 1),
        ("ocsp", "sha256", 6),
        ("crl", "", 16),
    ]
    assert feed.sha256 == hashlib.sha256(record).digest()
    assert sha1.body is not None
    assert sha1.sha256 == hashlib.sha256(sha1.body).digest()
    assert (crl.number, crl.sha256) == (7, hashlib.sha256(public.files["/alpha.crl"]).digest())
    assert await seen(world, bystander) == []
    asked = len(public.asked)
    await world.clock.advance(60)
    assert await probe.step() == 0
    assert len(public.asked) == asked


async def test_another_date_or_reason_is_not_this_revocation(world: World, public: Public, probe: Probe) -> None:
    """Neither by OCSP nor by CRL; and an upgrade (B25) is looked for as itself, what it replaced no more."""
    key = await world.certificate(spki=key_hash())
    await world.revoke(key, Reason.superseded)
    public.revoke(key, int(Reason.superseded), world.now - 1)
    await public.publish("alpha", 1, [(key[1], (KEY_COMPROMISE, world.now))])
    assert await probe.step() == 0
    await world.revoke(key, Reason.keyCompromise)
    public.revoke(key, KEY_COMPROMISE, world.now)
    await public.publish("alpha", 2, [(key[1], (KEY_COMPROMISE, world.now))])
    await world.clock.advance(2)
    assert await probe.step() == 3
    assert await seen(world, key) == []
    assert {each.kind for each in await seen(world, key, 2)} == {"ocsp", "crl"}


async def test_what_is_late_is_put_off_and_survives_a_restart(world: World, public: Public, config: Config) -> None:
    """After a minute it is looked at once a minute, then more rarely, by whichever process runs, until it is seen."""
    key = await world.certificate(spki=key_hash())
    await world.revoke(key, Reason.keyCompromise)
    date = world.now
    async with Probe(world.pool, config, world.clock) as probe:
        for _ in range(12):
            assert await probe.step() == 0
            await world.clock.advance(10)
    assert await world.owner.fetchval("select count(*) from sighting_due") == 1
    public.revoke(key, KEY_COMPROMISE, date)
    await public.publish("alpha", 1, [(key[1], (KEY_COMPROMISE, date))])
    async with Probe(world.pool, config, world.clock) as probe:
        await world.clock.advance(3600)
        assert await probe.step() == 3
    assert await world.owner.fetchval("select count(*) from sighting_due") == 0


async def test_of_many_at_once_only_the_hashes_are_kept(world: World, public: Public, probe: Probe) -> None:
    """A sibling's answers are seen like any other, without their octets."""
    spki = key_hash()
    key, sibling = await world.certificate(spki=spki), await world.certificate("beta", spki=spki)
    await world.revoke(key, Reason.keyCompromise)
    for each in (key, sibling):
        public.revoke(each, KEY_COMPROMISE, world.now)
    await probe.step()
    assert [each.body is None for each in await seen(world, key)] == [False, False]
    assert [(len(each.sha256), each.body) for each in await seen(world, sibling)] == [(32, None)] * 2


@pytest.fixture
async def ledger(database: Any, world: World, tmp_path: Path) -> AsyncIterator[Ledger]:
    folder = tmp_path / "ledger"
    folder.mkdir()
    ledger = await make_ledger(database, world.clock, folder)
    yield ledger
    for sequencer in ledger.sequencers:
        await sequencer.let_go()


async def test_openssl_checks_the_bundle(
    world: World, public: Public, config: Config, probe: Probe, ledger: Ledger, tmp_path: Path
) -> None:
    """`quash evidence` tells it all; check.sh passes by openssl alone, and fails when any part was changed."""
    edge = await Edge(tmp_path / "state", world.owner).set_up()
    (edge.state / "certs").mkdir()
    (edge.state / "certs" / "ledger.pub.pem").write_bytes(ledger.public)
    leaf = await world.leaf()
    key = (world.authorities["alpha"].id, leaf.serial_number.to_bytes(16, "big"))
    await world.revoke(key, Reason.keyCompromise)
    public.revoke(key, KEY_COMPROMISE, world.now)
    await public.publish("alpha", 1, [(key[1], (KEY_COMPROMISE, world.now))])
    await into_feed(world, key, 1)
    assert await probe.step() == 4
    await ledger.act(3)
    await ledger.sequencer(checkpoint_rows=1).step()
    app, out = application(world.pool, world.clock), tmp_path / "bundle"
    async with Watches(world.pool, config, world.clock) as watches, CommandLine() as command_line:
        AdminApi(world.pool, config, world.clock, watches).add_routes(app)
        TraceApi(world.pool).add_routes(app)
        async with listening(app, edge.tls, "127.0.0.1", 0) as port:
            path = tmp_path / "quash.toml"
            path.write_text(f'[admin]\nport = {port}\n[responder]\nbase_url = "{public.ocsp_url}"\n')
            options = ("--config", str(path), "--state", str(edge.state))
            said = await command_line.run("evidence", format_serial(key[1]), "--out", str(out), *options)
            shown = await command_line.run("evidence", format_serial(key[1]), "--json", *options)
            other = await world.certificate()
            unrevoked = await command_line.run("evidence", format_serial(other[1]), *options)
    assert (said.status, said.err) == (0, "")
    assert "operator:test: keyCompromise" in said.out
    assert said.out.count("first seen in OCSP") == 2
    assert "not in it" not in said.out
    (revocation,) = shown.json["revocations"]
    assert {each["kind"] for each in revocation["sightings"]} == {"feed", "ocsp", "crl"}
    assert revocation["act"]["by"] == "operator:test"
    assert unrevoked.code == "revocation.none"

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", str(out / "check.sh")], capture_output=True, text=True, check=False, timeout=60)

    done = check()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(".der: revoked") == 3
    assert "links up to a signed checkpoint" in done.stdout
    assert done.stdout.endswith("everything checked\n")
    assert x509.load_pem_x509_certificate((out / "certificate.pem").read_bytes()) == leaf
    for name in ("ocsp-1-sha1.der", "crl.der", "ledger/entry-000001.json", "ledger/checkpoint.signed"):
        whole = (out / name).read_bytes()
        (out / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert check().returncode != 0, name
        (out / name).write_bytes(whole)
