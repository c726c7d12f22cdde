"""What is coming: sizes (B21), disclosures (B24), and what only an offline key renews (B2, B4, G4)."""

from __future__ import annotations

import os

import pytest
from prometheus_client import REGISTRY

from crlgen.build.outlook import Watch
from quash.pki import der
from quash.store import outlook
from quash.store.database import acquire
from tests.support.crl_bench import DAY, Bench, Ca

HOUR = 3600


async def look(bench: Bench) -> dict[str, list[str]]:
    watch = Watch(bench.pool, bench.clock)
    assert await watch.step()
    assert not await watch.step(), "every ten minutes"
    return watch.warnings


async def issue(bench: Bench, ca: Ca, url: str) -> bytes:
    """A certificate with this URL in its octets."""
    serial = await bench.certificate(ca)
    await bench.database.owner.execute(
        "update certificate set der = $2, created_at = $3 where serial = $1",
        serial, der.tlv(0x86, url.encode()), int(bench.clock.now()),
    )  # fmt: skip
    return serial


async def test_small_issuer_has_nothing_to_warn_of(bench: Bench) -> None:
    """A few certificates without a CRLDP: no size to fear, nothing to disclose, no offline key."""
    ca = await bench.issuer()
    await bench.revoked(ca)
    await bench.settle()
    assert await look(bench) == {}
    forecast = REGISTRY.get_sample_value("quash_crl_forecast_bytes", {"issuer": "ca", "scope": "full"})
    assert forecast == 1000 + 53


async def test_mass_revocation_that_would_pass_ten_megabytes_is_foreseen(bench: Bench) -> None:
    """B21: what counts is not the CRL of today but that of the day on which everything is revoked."""
    ca = await bench.issuer()
    await bench.database.owner.execute(
        "insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)"
        " select $1, decode(lpad(to_hex(g), 32, '0'), 'hex'), 'imported', 'x', $2, 0, 0"
        " from generate_series(1, 200000) g", ca.id, int(bench.clock.now()) + DAY,
    )  # fmt: skip
    await bench.settle()
    (said,) = (await look(bench))["ca.crl"]
    assert "a mass revocation would make it 10.6 MB (B21)" in said
    await bench.clock.advance(2 * DAY)
    assert await look(bench) == {}, "expired certificates are revoked no more"


async def test_growth_is_warned_of_before_ten_megabytes_are_reached(bench: Bench) -> None:
    """B21: the pace of the last month says when; two months before, it is a warning, above it another one."""
    await bench.issuer()
    await bench.settle()
    await bench.settle(DAY)
    now = int(bench.clock.now())
    rows = "update crl set size = $1, this_update = $2 where number = $3"
    await bench.database.owner.execute(rows, 1_000_000, now - 20 * DAY, 1)
    await bench.database.owner.execute(rows, 4_000_000, now, 2)
    (said,) = (await look(bench))["ca.crl"]
    assert "at this pace the CRL reaches 10 MB on" in said
    await bench.database.owner.execute(rows, 1_400_000, now, 2)
    assert await look(bench) == {}
    await bench.database.owner.execute(rows, 10_000_001, now, 2)
    (said,) = (await look(bench))["ca.crl"]
    assert "more than 10 MB" in said


@pytest.mark.parametrize("revoked", [False, True])
async def test_disclosure_has_a_deadline_until_it_is_made(bench: Bench, revoked: bool) -> None:
    """B24: 7 days after the first certificate with the URL, or 4 hours after the first revocation of one."""
    ca = await bench.issuer()
    await bench.settle()
    url = "http://crl.example.test/ca.crl"
    start = int(bench.clock.now())
    serial = await issue(bench, ca, url)
    await bench.clock.advance(DAY)
    by = start + 7 * DAY
    if revoked:
        await bench.revoke(ca, serial)
        by = start + DAY + 4 * HOUR
    (said,) = (await look(bench))["ca.crl"]
    assert url in said
    labels = {"issuer": "ca", "scope": "full"}
    assert REGISTRY.get_sample_value("quash_crl_disclose_by_timestamp", labels) == by
    async with acquire(bench.database.owner) as conn, conn.transaction():
        await outlook.add_disclosure(conn, ca.id, "ca", [url], actor="test", at=start)
    assert await look(bench) == {}
    assert REGISTRY.get_sample_value("quash_crl_disclose_by_timestamp", labels) is None


async def test_what_only_an_offline_key_renews_is_warned_of_60_days_before(bench: Bench) -> None:
    """B2, G4: its CRL, its OCSP signer, the CAs below it and its own certificate, each with its end."""
    root = await bench.issuer("root", key_ref=None)
    sub = await bench.issuer("sub")
    await bench.database.owner.execute("update issuer set parent = $1 where id = $2", root.id, sub.id)
    now = int(bench.clock.now())
    owner = bench.database.owner
    await owner.execute(
        "insert into crl (issuer_id, scope, number, this_update, next_update, entries, size, sha256, covers, scheduled,"
        " published_at) values ($1, 'full', 1, $2, $3, 0, 500, $4, pg_current_snapshot(), true, $2)",
        root.id, now, now + 61 * DAY, os.urandom(32),
    )  # fmt: skip
    await owner.execute(
        "insert into ocsp_signer (issuer_id, certificate, key_ref, signature_algorithm, not_before, not_after, state,"
        " created_at) values ($1, '', 'x', 'x', 0, $2, 'active', 0)", root.id, now + 62 * DAY,
    )  # fmt: skip
    await owner.execute("update issuer_certificate set not_after = $1 where issuer_id = $2", now + 63 * DAY, sub.id)
    await owner.execute("update issuer_certificate set not_after = $1 where issuer_id = $2", now + 64 * DAY, root.id)
    assert await look(bench) == {}
    seen = []
    for _ in range(5):
        seen.append(len((await look(bench)).get("root.crl", [])))
        await bench.clock.advance(DAY)
    assert seen == [0, 1, 2, 3, 4]
    said = " ".join((await look(bench))["root.crl"])
    for words in ("the CRL of root ends", "OCSP signer of root", "sub-CA of sub", "certificate of root"):
        assert words in said
    labels = {"issuer": "root", "what": "CRL"}
    assert REGISTRY.get_sample_value("quash_offline_renewal_timestamp", labels) == now + 61 * DAY


async def test_revoked_sub_ca_demands_a_root_crl_at_once(bench: Bench) -> None:
    """B4: until the root's CRL shows it, the warning says by when somebody must have fetched the offline key."""
    root = await bench.issuer("root", key_ref=None)
    await bench.database.owner.execute(
        "insert into crl (issuer_id, scope, number, this_update, next_update, entries, size, sha256, covers, scheduled,"
        " published_at) values ($1, 'full', 1, $2, $3, 0, 500, $4, pg_current_snapshot(), true, $2)",
        root.id, int(bench.clock.now()), int(bench.clock.now()) + 180 * DAY, os.urandom(32),
    )  # fmt: skip
    await bench.settle()
    assert await look(bench) == {}
    await bench.revoked(root, 1)
    (said,) = (await look(bench))["root.crl"]
    assert "a revocation is not on the CRL of root: sign it by" in said
    labels = {"issuer": "root", "what": "revocation"}
    by = REGISTRY.get_sample_value("quash_offline_renewal_timestamp", labels)
    assert by == int(bench.clock.now()) + 24 * HOUR
