"""The certificate table: reservations, completion, siblings; and the spread of buckets and shards."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quash.errors import QuashError
from quash.pki.serials import new_serial
from quash.store import certificates
from quash.store.certificates import bucket_of, bucket_of_foreign, shard_of
from tests.support.issuing import World

KEY = hashlib.sha256(b"key").digest()
NOW = 1_800_000_000


async def _reserve(
    world: World, serial: bytes, *, issuer: str = "tls-dv", key: bytes = KEY, not_after: int = NOW
) -> None:
    async with world.pool.acquire() as conn:
        await certificates.reserve(
            conn,
            issuer_id=world.hierarchy[issuer].id,
            serial=serial,
            profile="tls-dv",
            tbs=b"tbs",
            spki_sha256=key,
            ski=None,
            not_before=NOW - 9,
            not_after=not_after,
            shard=1,
            bucket=2,
            order_id=None,
            created_at=NOW,
        )


async def test_a_serial_is_reserved_once_per_issuer(world: World) -> None:
    """A second reservation of a serial fails; another issuer may have the same one (unique per issuer, D1)."""
    await _reserve(world, b"\x01")
    with pytest.raises(asyncpg.UniqueViolationError):
        await _reserve(world, b"\x01")
    await _reserve(world, b"\x01", issuer="tls-ov")
    async with world.pool.acquire() as conn:
        found = await certificates.find_by_serial(conn, b"\x01")
    assert [each.issuer_id for each in found] == [world.hierarchy["tls-dv"].id, world.hierarchy["tls-ov"].id]


async def test_a_reservation_is_completed_once(world: World) -> None:
    """The same DER again changes nothing, another one is refused, and the TBS is gone."""
    await _reserve(world, b"\x01")
    issuer_id = world.hierarchy["tls-dv"].id
    async with world.pool.acquire() as conn:
        reservation = await certificates.get_reservation(conn, issuer_id, b"\x01")
        assert reservation is not None
        assert (reservation.tbs, reservation.certificate.state) == (b"tbs", "reserved")
        await certificates.complete(conn, issuer_id, b"\x01", b"der")
        await certificates.complete(conn, issuer_id, b"\x01", b"der")
        with pytest.raises(QuashError, match=r"certificate\.conflict"):
            await certificates.complete(conn, issuer_id, b"\x01", b"other")
        with pytest.raises(QuashError, match=r"certificate\.conflict"):
            await certificates.complete(conn, issuer_id, b"\x02", b"der")
        done = await certificates.get_reservation(conn, issuer_id, b"\x01")
    assert done is not None
    assert (done.tbs, done.certificate.der, done.certificate.state) == (None, b"der", "issued")


async def test_siblings_come_in_pages_and_in_every_state(world: World) -> None:
    """C8: reserved and issued, of every issuer, unexpired through the second of notAfter; others stay out."""
    for issuer in ("tls-dv", "tls-ov"):
        for serial in (b"\x01", b"\x02", b"\x03"):
            await _reserve(world, serial, issuer=issuer)
    await _reserve(world, b"\x09", not_after=NOW - 1)
    await _reserve(world, b"\x0a", key=bytes(32))
    ids = [world.hierarchy[name].id for name in ("tls-dv", "tls-ov")]
    wanted = [(issuer_id, serial) for issuer_id in sorted(ids) for serial in (b"\x01", b"\x02", b"\x03")]
    seen: list[tuple[int, bytes]] = []
    async with world.pool.acquire() as conn:
        await certificates.complete(conn, ids[0], b"\x02", b"der")
        after = None
        while page := await certificates.siblings(conn, KEY, NOW, 4, after):
            seen += [(each.issuer_id, each.serial) for each in page]
            after = seen[-1]
        assert await certificates.siblings(conn, KEY, NOW + 1, 4) == []
    assert seen == wanted


RANDOM, COUNTED = [new_serial() for _ in range(8000)], [n.to_bytes(2, "big") for n in range(8000)]


@pytest.mark.parametrize(
    ("function", "serials", "count"),
    [(bucket_of, RANDOM, 64), (shard_of, RANDOM, 4), (bucket_of_foreign, RANDOM, 64), (bucket_of_foreign, COUNTED, 64)],
)
def test_buckets_and_shards_are_even(
    function: Callable[[bytes, int], int | None], serials: list[bytes], count: int
) -> None:
    """Our serials, and the random or counted ones of an import: no bucket has twice its share (flow 4)."""
    sizes = Counter(function(serial, count) for serial in serials)
    assert set(sizes) == set(range(count))
    assert max(sizes.values()) < 2 * len(serials) / count


def test_a_bucket_of_ours_is_a_range_of_serials_and_part_of_one_shard() -> None:
    """In the order of serials buckets follow each other, and with a multiple of the shards so do the shards'."""
    found = [(bucket_of(serial, 64), shard_of(serial, 4)) for serial in sorted(RANDOM)]
    assert found == sorted(found)
    assert {shard for _, shard in set(found)} == {0, 1, 2, 3}
    assert len(set(found)) == 64


@given(serial=st.binary(min_size=1, max_size=64), count=st.integers(1, 65536))
def test_a_bucket_is_a_function_of_the_serial(serial: bytes, count: int) -> None:
    """Always the same bucket, within range; no shards: no shard."""
    assert 0 <= bucket_of(serial, count) == bucket_of(serial, count) < count
    assert 0 <= bucket_of_foreign(serial, count) == bucket_of_foreign(serial, count) < count
    assert shard_of(serial, 0) is None
    assert shard_of(serial, count) == bucket_of(serial, count)
